"""How a run stands, kept up to date event by event: counts, dollars, speed, the last thing it said. Pure; a reader of one journal.

Folding only what is new keeps five looks a second cheap at ten thousand rows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from holynb.results import Summary
from holynb.types import Ended, Noted

if TYPE_CHECKING:
    from holynb.types import Event, Outcome

__all__ = ["Totals"]

#: Speed is over this many seconds: long enough to be calm, short enough to follow a limit that opens or closes.
SPAN_S = 15.0


class Totals:
    """The fold of the events of a run of `n` rows that began at `began` (by the clock that `speed` is asked with). Owned by the view that feeds it."""

    def __init__(self, n: int, began: float = 0.0) -> None:
        self.n = n
        self.note = ""
        self._status: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._cached = self._in = self._out = self._unpriced = self._unknown = self._answered = 0
        self._paid: Decimal | None = None
        self._kept: Decimal | None = None
        """What rows out of the log came to; like a summary, it says nothing where other rows have no price."""
        self._marks = deque([(began, 0, 0)])

    def take(self, events: Sequence[Event]) -> None:
        """Fold events that were not folded before."""
        for event in events:
            if isinstance(event, Ended):
                self._end(event.outcome)
            elif isinstance(event, Noted):
                self.note = event.text

    def summary(self, elapsed: float, *, stopped: bool = False) -> Summary:
        """The counts as they stand."""
        done, cost = sum(self._status.values()), self._paid
        if self._kept is not None and not self._unpriced:
            cost = (cost or Decimal(0)) + self._kept
        return Summary(
            self.n,
            self._status["ok"],
            self._status["error"],
            self._status["cancelled"],
            self._status["skipped"],
            self._cached,
            self.n - done,
            cost,
            self._unknown,
            None,
            self._in,
            self._out,
            elapsed,
            self._errors,
            stopped,
        )

    def speed(self, now: float) -> tuple[float | None, float | None]:
        """Rows and answered tokens a second over the last seconds; None where nothing was answered in them. Rows from the log do not count."""
        self._marks.append((now, self._answered, self._out))
        while len(self._marks) > 2 and now - self._marks[1][0] >= SPAN_S:
            self._marks.popleft()
        then, rows, tokens = self._marks[0]
        gone = now - then
        if gone <= 0 or self._answered == rows:
            return None, None
        return (self._answered - rows) / gone, (self._out - tokens) / gone or None

    def _end(self, outcome: Outcome) -> None:
        self._status[outcome.status] += 1
        if outcome.status == "error":
            self._errors[outcome.error_type or "error"] += 1
        self._cached += outcome.cached
        if not outcome.cached:
            self._answered += outcome.status != "skipped"
            self._in += outcome.usage.tokens_in or 0
            self._out += outcome.usage.tokens_out or 0
        if outcome.cost is not None and outcome.cached:
            self._kept = (self._kept or Decimal(0)) + outcome.cost
        elif outcome.cost is not None:
            self._paid = (self._paid or Decimal(0)) + outcome.cost
        elif (outcome.attempts or outcome.cached) and outcome.status == "ok":
            self._unpriced += 1
            self._unknown += not (outcome.route or "").startswith("pool/")
