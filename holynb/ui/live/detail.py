"""One row of a run in full: its messages, answer, error and attempts, for a page that opened it. Pure reading; knows no widget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from holynb import attachments
from holynb.events import Ended, Event, Failed, Started
from holynb.results import captioned, cost_text
from holynb.translation import brief
from holynb.types import Outcome
from holynb.ui.live.protocol import AttemptLine, DetailMessage, DetailPart
from holynb.ui.output import clean, count, formats, pictures, seconds, thinking, thought, verdict

if TYPE_CHECKING:
    from holynb.ui.live.source import ViewSource

__all__ = ["detail"]

#: Characters of one text; the value holds the rest.
MAX_TEXT_CHARS = 100_000
ANSWER_TITLE = "Answer"
ROLE_TITLES = {"system": "System", "user": "Prompt"}


def detail(source: ViewSource, row: int, how: str | None = None) -> DetailMessage:
    """The message with one row in full, as it stands. how: the answer is shown; None: as the run's `--format` says."""
    how = how or source.info.format
    events = [e for e in source.journal.events_of(row) if isinstance(e, Started | Failed | Ended)]
    return {
        "kind": "detail",
        "row": row,
        "label": source.info.label(row),
        "facts": _facts(source.journal.rows[row]),
        "format": how,
        "parts": [_rendered(part, how) for part in _parts(source, row, events)],
        "attempts": [
            AttemptLine(at=seconds(max(0.0, e.at - source.info.started)), text=_attempt_text(e)) for e in events if source.info.timed
        ],
    }


def _parts(source: ViewSource, row: int, events: list[Started | Failed | Ended]) -> Iterator[DetailPart]:
    outcome = source.journal.rows[row]
    for message in source.messages(row):
        yield _part(ROLE_TITLES.get(message.role, "Earlier answer"), message.content)
        if message.attachments:
            words = "\n".join(map(attachments.described, message.attachments))
            yield {**_part("Attached", words), "html": pictures.as_html(message.attachments, height=72)}
    if outcome is None:
        if thoughts := source.journal.partial_thoughts(row):
            yield _part(thinking(*source.journal.thinking().get(row, (len(thoughts), None))), thoughts, "thought")
        if text := source.journal.partial_text(row):
            yield _part("Answer so far", text)
    else:
        if outcome.reasoning:
            yield _part(thought(outcome), outcome.reasoning, "thought")
        if outcome.text or outcome.status == "ok":
            yield _part(ANSWER_TITLE, outcome.text or "")
        if outcome.score_reason:
            yield _part(f"Score {verdict(outcome, source.info.scale).strip('?')}".strip(), outcome.score_reason)
        if outcome.error and outcome.error_type is not None:
            yield _part("Error", f"{outcome.error_type}: {outcome.error}", "failed")
        elif outcome.error:  # an answer may have a note: that it moved, or went through an out-of-memory
            yield _part("Note", outcome.error)
    for e in events:
        if isinstance(e, Failed) and e.raw:
            yield _part(f"The server's words, attempt {e.attempt}", e.raw, "raw")


def _rendered(part: DetailPart, how: str) -> DetailPart:
    """A part, with its HTML where it is an answer that is shown otherwise than as text."""
    if how == "text" or part["title"] != brief(ANSWER_TITLE) or not part["text"]:
        return part
    return {**part, "html": formats.STYLE + formats.as_html(part["text"], how)}


def _part(title: str, text: str, kind: str = "") -> DetailPart:
    if len(text) > MAX_TEXT_CHARS:
        more = brief(f"… {len(text) - MAX_TEXT_CHARS:,} more characters; the value holds them all.")
        text = f"{text[:MAX_TEXT_CHARS]}\n{more}"
    return {"title": brief(title), "text": clean(text), "kind": kind}


def _facts(outcome: Outcome | None) -> str:
    if outcome is None:
        return brief("not ended")
    u, sent = outcome.usage, outcome.attempts or outcome.cached
    facts = [
        outcome.status,
        brief("from the run log") if outcome.cached else None,
        outcome.route,
        outcome.model,
        outcome.finish_reason,
        brief(f"{outcome.tier} tier") if outcome.tier else None,
        brief(f"{count(u.tokens_in)} + {count(u.tokens_out)} tokens") if sent and (u.tokens_in, u.tokens_out) != (None, None) else None,
        brief(f"{u.tokens_reasoning:,} of them thought") if sent and u.tokens_reasoning else None,
        brief(captioned(cost_text(outcome.cost, outcome.route))) if sent else None,
        seconds(outcome.latency_s) if outcome.latency_s is not None else None,
        brief(f"first token {seconds(outcome.ttft_s)}") if outcome.ttft_s is not None else None,
    ]
    return " · ".join(clean(fact) for fact in facts if fact)


def _attempt_text(event: Event) -> str:
    if isinstance(event, Started):
        return brief(f"attempt {event.attempt} sent to {event.route}")
    if isinstance(event, Failed):
        again = "" if event.wait is None else f"; {brief(f'again in {seconds(event.wait)}')}"
        return clean(f"{brief(f'attempt {event.attempt} failed')}: {event.kind}: {event.message}{again}")
    return brief(f"ended: {event.outcome.status}") if isinstance(event, Ended) else ""
