"""A run's only row, as a page is sent it: what was added to its answer and to its thoughts since the last message. Pure."""

from __future__ import annotations

from holynb.types import Outcome
from holynb.ui.live.protocol import Answer, Thoughts
from holynb.ui.output import clean, thinking, thought

__all__ = ["OnlyRow"]

#: A single answer is shown whole up to here, then in pages of this many characters.
PAGE_CHARS = 60_000


class OnlyRow:
    """What a view has been sent of it. Owned by that view's feed."""

    def __init__(self) -> None:
        self._answer = self._thoughts = self._summary = ""

    def reset(self) -> None:
        """Another page begins."""
        self._answer = self._thoughts = self._summary = ""

    def answer(self, text: str) -> Answer | None:
        """What was added to it, or all of it where it began anew. None where nothing changed."""
        sent, self._answer = self._answer, _last_page(text)
        return None if self._answer == sent else _growth(sent, self._answer)

    def thoughts(self, outcome: Outcome | None, thoughts: str, counts: tuple[int, int | None] | None) -> Thoughts | None:
        """The same of what it thinks, `counts` characters and tokens so far, or has thought."""
        text = thoughts if outcome is None else outcome.reasoning or ""
        summary = thought(outcome) if outcome is not None and text else thinking(*counts) if outcome is None and counts else ""
        before = self._thoughts, self._summary
        self._thoughts, self._summary = _last_page(text), summary
        return None if before == (self._thoughts, summary) else {**_growth(before[0], self._thoughts), "summary": summary}


def _last_page(text: str) -> str:
    return clean(text[max(0, len(text) // PAGE_CHARS - 1) * PAGE_CHARS :])


def _growth(sent: str, text: str) -> Answer:
    """What a page that has `sent` needs for `text`."""
    append = bool(sent) and text.startswith(sent)
    return {"text": text[len(sent) :] if append else text, "append": append}
