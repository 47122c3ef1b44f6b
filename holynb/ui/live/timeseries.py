"""How a run goes over time: dollars, latency, tokens a second, memory, as columns of buckets. Pure; folds events, draws nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from holynb.events import Ended, Event, Failed, Gauge, Load, Noted
from holynb.types import Outcome
from holynb.ui.live.buckets import Buckets
from holynb.ui.output import combined_load, mark_name, percentile

__all__ = ["Price", "TimeSeries"]

#: Percentiles are over the last answers, the token rate over the last seconds.
WINDOW_ANSWERS, RATE_WINDOW_S = 50, 3.0

#: What an outcome would have cost elsewhere; None where that is not known.
Price = Callable[[Outcome], Decimal | None]


class Lane:
    """What one route answers, or all of them: dollars, latency, tokens. Owned by its time series."""

    def __init__(self) -> None:
        self.pieces: dict[int, int] = {}
        """Row in flight → pieces of its answer."""
        self._cost: Decimal | None = None
        self._latencies: deque[float] = deque(maxlen=WINDOW_ANSWERS)
        self._ttfts: deque[float] = deque(maxlen=WINDOW_ANSWERS)
        self._tokens = 0
        self._rate_samples: deque[tuple[float, int]] = deque([(0.0, 0)])

    def fold(self, row: int, outcome: Outcome) -> None:
        """A row of it has ended."""
        pieces = self.pieces.pop(row, 0)
        if outcome.cost is not None:
            self._cost = (self._cost or Decimal(0)) + outcome.cost
        if outcome.cached:
            return
        self._tokens += pieces if outcome.usage.tokens_out is None else outcome.usage.tokens_out
        if outcome.status == "ok":
            if outcome.latency_s is not None:
                self._latencies.append(outcome.latency_s)
            if outcome.ttft_s is not None:
                self._ttfts.append(outcome.ttft_s)

    def sample(self, at: float) -> None:
        """Its tokens as of now."""
        self._rate_samples.append((at, self._tokens + sum(self.pieces.values())))
        while len(self._rate_samples) > 2 and at - self._rate_samples[1][0] >= RATE_WINDOW_S:
            self._rate_samples.popleft()

    def rate(self) -> float | None:
        """Answered tokens a second over the last seconds; None before the first."""
        (then, before), (now, total) = self._rate_samples[0], self._rate_samples[-1]
        return max(0, total - before) / (now - then) if now > then and total else None

    def values(self) -> dict[tuple[str, str], float | None]:
        """Chart and column → its value as of now."""
        return {
            ("rate", "tokens"): self.rate(),
            ("cost", "cost"): None if self._cost is None else float(self._cost),
            ("latency", "p50"): percentile(self._latencies, 0.5),
            ("latency", "p95"): percentile(self._latencies, 0.95),
            ("latency", "ttft"): percentile(self._ttfts, 0.5),
        }


class TimeSeries:
    """The charts of one run that began at `started` (`time.time()`). Times handed in are seconds since then, events' own apart.

    compared: the routes that rows ask in turn, where several stand side by side: each has a line of its own.
    """

    def __init__(self, started: float, price_as: Price | None = None, compared: Sequence[str] = ()) -> None:
        self.started = started
        self._lanes = [Lane() for _ in dict.fromkeys(compared)] or [Lane()]
        self._names = list(dict.fromkeys(compared))
        self._lane_of = [self._names.index(route) for route in compared] or [0]
        self.points = Buckets()
        self.elsewhere = Decimal(0)
        """Dollars at `price_as` so far."""
        self._price_as = price_as
        self._at = 0.0
        self._loads: dict[str, Load] = {}

    def fold(self, event: Event) -> None:
        """Fold an event, at its own time."""
        self._advance(event.at - self.started)
        if isinstance(event, Ended):
            self._fold_outcome(event.row, event.outcome)
        elif isinstance(event, Failed):
            self._lane(event.row).pieces.pop(event.row, None)
            self._put_mark("rate", event)
        elif isinstance(event, Noted):
            self._put_mark("memory", event)
        elif isinstance(event, Gauge):
            self._put_memory(event)
        elif isinstance(event, Load):
            self._loads[event.route] = event
            for name, value in combined_load(self._loads.values()).items():
                self.points.put("server", name, self._at, value)

    def sample(self, at: float, pieces: Mapping[int, int]) -> None:
        """Sample all series at `at`. `pieces` of rows in flight count as about as many tokens, until the server has counted them."""
        self._advance(at)
        for row, n in pieces.items():
            self._lane(row).pieces[row] = n
        self._sample()

    def token_rate(self) -> float | None:
        """Answered tokens a second over the last seconds; None before the first."""
        rates = [rate for lane in self._lanes if (rate := lane.rate()) is not None]
        return sum(rates) if rates else None

    def _lane(self, row: int) -> Lane:
        return self._lanes[self._lane_of[row % len(self._lane_of)]]

    def _advance(self, at: float) -> None:
        """Move on to `at`. A bucket that time leaves is sampled first."""
        at = max(at, self._at)
        if self.points.index(at) != self.points.index(self._at):
            self._sample()
        self._at = at

    def _fold_outcome(self, row: int, outcome: Outcome) -> None:
        self._lane(row).fold(row, outcome)
        if not outcome.cached and outcome.status == "ok" and self._price_as is not None:
            self.elsewhere += self._price_as(outcome) or Decimal(0)

    def _put_mark(self, chart: str, event: Event) -> None:
        if (name := mark_name(event)) is not None:
            self.points.put(chart, name, self._at, 1.0, "sum")

    def _put_memory(self, event: Gauge) -> None:
        values: dict[str, float | None] = {"all": event.used, "total": event.total, "ours": event.ours, **event.parts}
        for name, value in values.items():
            if value is not None:
                self.points.put("memory", f"{event.device}|{name}", self._at, float(value), "max")

    def _sample(self) -> None:
        """The values as of now, in the bucket of now."""
        at = self._at
        for lane in self._lanes:
            lane.sample(at)
        if self._price_as is not None:
            self.points.put("cost", "as", at, float(self.elsewhere))
        if not self._names:
            self._put(at, self._lanes[0].values())
            return
        for route, lane in zip(self._names, self._lanes, strict=True):  # one line a route: its cost, its p50, its tokens
            values = lane.values()
            own = {("cost", "cost"): "cost", ("latency", "p50"): "latency", ("rate", "tokens"): "rate"}
            self._put(at, {(chart, f"{chart}|{route}"): values[key] for key, chart in own.items()})

    def _put(self, at: float, values: Mapping[tuple[str, str], float | None]) -> None:
        for (chart, name), value in values.items():
            if value is not None:
                self.points.put(chart, name, at, value)
