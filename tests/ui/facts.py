"""Outcomes, events and reports for tests of output. No run is needed to draw one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from holynb.events import Ended, Event
from holynb.journal import Journal
from holynb.results.summary import Summary, summarize
from holynb.types import Message, Outcome, Prompt, Usage
from holynb.ui.output.report import Report


def ok(text: str = "yes", **facts: Any) -> Outcome:
    facts = {"route": "sim/echo", "attempts": 1, "usage": Usage(10, 5), "cost": Decimal("0.01"), "latency_s": 0.5, "ttft_s": 0.1, **facts}
    return Outcome("ok", text, finish_reason="stop", **facts)


def failed(kind: str = "timeout", message: str = "no answer in 60 s", **facts: Any) -> Outcome:
    return Outcome("error", error_type=kind, error=message, attempts=4, **facts)


def record(rows: Sequence[Outcome | None], prompts: Sequence[str] | None = None, **facts: Any) -> Report:
    """A report whose rows ended one a second."""
    events: list[Event] = [Ended(i, o, 100.0 + i) for i, o in enumerate(rows) if o is not None]
    summary = facts.pop("summary", summarize(rows, float(len(rows)), stopped=facts.pop("stopped", False)))
    facts = {"events": events, "started": 100.0, **facts}
    return Report("test on sim/echo", list(prompts or [f"prompt {i}" for i in range(len(rows))]), rows, summary, **facts)


class FakeRun:
    """A run that a test ends, for tests of what waits for it."""

    def __init__(self, n: int = 4, name: str | None = None) -> None:
        self.n, self.name, self.id = n, name, "1122-000000-beef"
        self.journal = Journal(n)
        self.prompts = [Prompt((Message("user", f"prompt {i}"),)) for i in range(n)]
        self.done = self.stopped = False
        self.batch = SimpleNamespace(accepted=False)
        self.cancels = 0
        self.elapsed = 0.0
        self.waited: list[float | None] = []

    def end(self, row: int, outcome: Outcome, at: float = 0.0) -> None:
        self.journal.append(Ended(row, outcome, at))

    def cancel(self) -> None:
        self.cancels += 1
        self.stopped = True

    def wait(self, timeout: float | None = None) -> FakeRun:
        self.waited.append(timeout)
        return self

    def summary(self) -> Summary:
        return summarize(self.journal.rows, self.elapsed, stopped=self.stopped)
