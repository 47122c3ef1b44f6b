"""How a run goes over time: dollars, latency, tokens a second, memory, as columns of buckets. Pure; folds events, draws nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from holynb.types import Ended, Event, Failed, Gauge, Load, Noted, Outcome
from holynb.ui.live.buckets import Buckets
from holynb.ui.output import mark, percentile, together

__all__ = ["Price", "TimeSeries"]

#: Percentiles are over this many answers, speeds over this many seconds.
WINDOW, SPAN_S = 50, 3.0

#: What an outcome would have cost elsewhere; None where that is not known.
Price = Callable[[Outcome], Decimal | None]


class TimeSeries:
    """The charts of one run that began at `started` (`time.time()`). Times handed in are seconds since then."""

    def __init__(self, started: float, price_as: Price | None = None) -> None:
        self.started = started
        self.points = Buckets()
        self.elsewhere = Decimal(0)
        self._price_as = price_as
        self._cost: Decimal | None = None
        self._whole: deque[float] = deque(maxlen=WINDOW)
        self._first: deque[float] = deque(maxlen=WINDOW)
        self._tokens = 0
        self._pieces: dict[int, int] = {}
        self._rates: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._at = 0.0
        self._loads: dict[str, Load] = {}

    def take(self, event: Event) -> None:
        """Fold an event, at its own time."""
        self._move(event.at - self.started)
        if isinstance(event, Ended):
            self._end(event.row, event.outcome)
        elif isinstance(event, Failed):
            self._pieces.pop(event.row, None)
            self._mark("rate", event)
        elif isinstance(event, Noted):
            self._mark("memory", event)
        elif isinstance(event, Gauge):
            self._gauge(event)
        elif isinstance(event, Load):
            self._loads[event.route] = event
            for name, value in together(self._loads.values()).items():
                self.points.put("server", name, self._at, value)

    def now(self, at: float, pieces: Mapping[int, int]) -> None:
        """Time has come to `at`: note how things stand. `pieces`: what rows in flight have said is about as many tokens, until they are counted."""
        self._move(at)
        self._pieces.update(pieces)
        self._note()

    def token_rate(self) -> float | None:
        """Answered tokens a second over the last seconds; None before there is anything to tell from."""
        (then, before), (now, here) = self._rates[0], self._rates[-1]
        return max(0, here - before) / (now - then) if now > then and here else None

    def _move(self, at: float) -> None:
        """A bucket that time leaves gets its values first."""
        at = max(at, self._at)
        if self.points.index(at) != self.points.index(self._at):
            self._note()
        self._at = at

    def _end(self, row: int, outcome: Outcome) -> None:
        pieces = self._pieces.pop(row, 0)
        if outcome.cost is not None:
            self._cost = (self._cost or Decimal(0)) + outcome.cost
        if outcome.cached:
            return
        self._tokens += pieces if outcome.usage.tokens_out is None else outcome.usage.tokens_out
        if outcome.status == "ok":
            if outcome.latency_s is not None:
                self._whole.append(outcome.latency_s)
            if outcome.ttft_s is not None:
                self._first.append(outcome.ttft_s)
            if self._price_as is not None:
                self.elsewhere += self._price_as(outcome) or Decimal(0)

    def _mark(self, chart: str, event: Event) -> None:
        if (name := mark(event)) is not None:
            self.points.put(chart, name, self._at, 1.0, "sum")

    def _gauge(self, event: Gauge) -> None:
        values: dict[str, Any] = {"all": event.used, "total": event.total, "ours": event.ours, **event.parts}
        for name, value in values.items():
            if value is not None:
                self.points.put("memory", f"{event.device}|{name}", self._at, float(value), "max")

    def _note(self) -> None:
        """The values of now, in the bucket of now."""
        at = self._at
        self._rates.append((at, self._tokens + sum(self._pieces.values())))
        while len(self._rates) > 2 and at - self._rates[1][0] >= SPAN_S:
            self._rates.popleft()
        found: dict[tuple[str, str], float | None] = {
            ("rate", "tokens"): self.token_rate(),
            ("cost", "cost"): None if self._cost is None else float(self._cost),
            ("cost", "as"): None if self._price_as is None else float(self.elsewhere),
            ("latency", "p50"): percentile(self._whole, 0.5),
            ("latency", "p95"): percentile(self._whole, 0.95),
            ("latency", "ttft"): percentile(self._first, 0.5),
        }
        for (chart, name), value in found.items():
            if value is not None:
                self.points.put(chart, name, at, value)
