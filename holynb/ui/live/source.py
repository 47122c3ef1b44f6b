"""What a live view watches: a run, or a recording of one that plays. Pure reading; knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from holynb.results import dollars
from holynb.types import Ended, Failed, Message, Outcome, Started
from holynb.ui.live.feed import RunInfo
from holynb.ui.output import clean, count, report, seconds

if TYPE_CHECKING:
    from holynb.journal import Journal
    from holynb.run import Run
    from holynb.types import Event

__all__ = ["RunSource", "ViewSource", "detail"]

#: Characters of one text in a row's detail; the value holds the rest.
MOST = 100_000


class ViewSource(Protocol):
    """A run as a view sees it. `state` is running, stopping, stopped or done; `label` is what a recording is marked with."""

    asked: RunInfo
    label: str

    @property
    def journal(self) -> Journal: ...

    @property
    def elapsed(self) -> float: ...

    @property
    def state(self) -> str: ...

    def messages(self, row: int) -> Sequence[Message]: ...

    def cancel(self) -> None: ...


class RunSource:
    """A run of this session."""

    label = ""

    def __init__(self, run: Run) -> None:
        from holynb.results import frame

        self.run = run
        self.journal = run.journal
        index, beside = run.plan.rows.index, report.ways(run.plan.rows.index)
        labels: Sequence[object] | None = None if index is None else frame.labels(index)
        if beside:
            labels = [(*_wide(label), beside[i % len(beside)]) for i, label in enumerate(report.labels(index))]
        title = report.title(run).replace(" on ", " · ", 1)
        self.asked = RunInfo([p.text for p in run.prompts], labels, run.started, title, *_elsewhere(run))

    @property
    def elapsed(self) -> float:
        return self.run.elapsed

    @property
    def state(self) -> str:
        if self.run.done:
            return "stopped" if self.run.stopped else "done"
        return "stopping" if self.run.stopped else "running"

    def messages(self, row: int) -> Sequence[Message]:
        return self.run.prompts[row].messages

    def cancel(self) -> None:
        self.run.cancel()


def _wide(label: object) -> tuple[object, ...]:
    return tuple(label) if isinstance(label, tuple) else (label,)


def _elsewhere(run: Run) -> tuple[str | None, Any]:
    """`--price-as`: the route, and what an outcome would have cost there."""
    if run.options.price_as is None:
        return None, None
    from holynb.config import settings
    from holynb.pricing import prices

    route = settings.route(run.options.price_as)
    return str(route), lambda outcome: prices.price(route, None, outcome.usage)


def detail(source: ViewSource, row: int) -> dict[str, Any]:
    """One row in full, as the page shows it: parts are [word, text, kind], attempts are [when, what]."""
    outcome = source.journal.rows[row]
    events, _ = source.journal.events_since(0)
    mine = [e for e in events if isinstance(e, Started | Failed | Ended) and e.row == row]
    parts = [
        ["System" if m.role == "system" else "Prompt" if m.role == "user" else "Earlier answer", _cut(m.content), ""]
        for m in source.messages(row)
    ]
    if outcome is None:
        parts += [["Answer so far", _cut(said), ""]] if (said := source.journal.partial_text(row)) else []
    else:
        if outcome.text or outcome.status == "ok":
            parts.append(["Answer", _cut(outcome.text or ""), ""])
        if outcome.error:
            failed = outcome.error_type is not None  # an answer may have a note: that it moved, or went through an out-of-memory
            parts.append(
                ["Error", _cut(f"{outcome.error_type}: {outcome.error}"), "failed"] if failed else ["Note", _cut(outcome.error), ""]
            )
    parts += [[f"The server's words, attempt {e.attempt}", _cut(e.raw), "raw"] for e in mine if isinstance(e, Failed) and e.raw]
    return {
        "kind": "row",
        "row": row,
        "label": source.asked.label(row),
        "facts": _facts(outcome),
        "parts": parts,
        "attempts": [[seconds(max(0.0, e.at - source.asked.started)), _happened(e)] for e in mine],
    }


def _facts(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not ended"
    u, sent = outcome.usage, outcome.attempts or outcome.cached
    said = [
        "cached" if outcome.cached else outcome.status,
        outcome.route,
        outcome.model,
        outcome.finish_reason,
        f"{count(u.tokens_in)} + {count(u.tokens_out)} tokens" if sent and (u.tokens_in, u.tokens_out) != (None, None) else None,
        ("cost unknown" if outcome.cost is None else dollars(outcome.cost)) if sent else None,
        seconds(outcome.latency_s) if outcome.latency_s is not None else None,
        f"first token {seconds(outcome.ttft_s)}" if outcome.ttft_s is not None else None,
    ]
    return " · ".join(clean(s) for s in said if s)


def _happened(event: Event) -> str:
    if isinstance(event, Started):
        return f"attempt {event.attempt} sent to {event.route}"
    if isinstance(event, Failed):
        again = "" if event.wait is None else f"; again in {seconds(event.wait)}"
        return clean(f"attempt {event.attempt} failed: {event.kind}: {event.message}{again}")
    return f"ended: {event.outcome.status}" if isinstance(event, Ended) else ""


def _cut(text: str) -> str:
    return clean(text if len(text) <= MOST else f"{text[:MOST]}\n… {len(text) - MOST:,} more characters; the value holds them all.")
