"""Thoughts that a server leaves in the text of its answers, told apart at their head. Knows which servers may; no wire's JSON.

A thought that is never closed leaves no text: ended by length the row is `truncated`, and otherwise it is asked once more, as for
every empty answer.
"""

from __future__ import annotations

from dataclasses import replace

from holynb.engines import codec
from holynb.thoughts import HeadSplitter
from holynb.types import Completion, Endpoint

__all__ = ["apart", "splitter_for"]

#: Providers that tell thoughts from text themselves: an answer of theirs that begins with a tag speaks of it.
SPLIT_THEMSELVES = frozenset({"openai", "deepseek", "openrouter", "xai"})


def splitter_for(endpoint: Endpoint) -> HeadSplitter | None:
    """What tells thoughts apart in a stream of this endpoint; None where that is not needed."""
    return HeadSplitter() if _may_leave(endpoint) else None


def apart(answer: Completion, endpoint: Endpoint) -> Completion:
    """A whole answer without the thoughts in its text."""
    if answer.thinking or not _may_leave(endpoint) or not answer.text.lstrip().startswith(("<", "[")):
        return answer
    splitter = HeadSplitter()
    thought, text = splitter.push(answer.text, last=True)
    if not (splitter.thinking or splitter.closings):
        return answer if text == answer.text else replace(answer, text=text)
    return replace(answer, text=text, thinking=True, reasoning=codec.mend(thought) or None)


def _may_leave(endpoint: Endpoint) -> bool:
    return endpoint.wire == "openai" and endpoint.route.provider not in SPLIT_THEMSELVES
