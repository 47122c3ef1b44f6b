"""The line above the table: how far, how fast, how dear, by whom, and what a person should know now. Pure; folds events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.events import Ended, Event, Paused
from holynb.results import dollars, is_simulated
from holynb.translation import brief, say
from holynb.ui.live.protocol import ErrorCount, Head, RunState
from holynb.ui.output import clip, one_line, report, seconds
from holynb.units import three_digits
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.results import Summary
    from holynb.ui.live.quality import QualitySoFar
    from holynb.ui.live.runinfo import RunInfo
    from holynb.ui.live.timeseries import TimeSeries
    from holynb.ui.live.totals import Totals

__all__ = ["Heading"]

NOTE_CHARS = 300
MAX_ERROR_KINDS, MAX_ROUTES = 4, 4


class Heading:
    """The fold of one run for its head. Owned by the feed of a view.

    elapsed, in the methods: seconds into the run.
    """

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self.quality = _quality(info)
        self._pause: tuple[float, str] = (0.0, "")
        self._simulated = False
        self._stopping_since: float | None = None

    def fold(self, event: Event) -> None:
        """Fold an event."""
        if isinstance(event, Paused) and event.kind == "rate_limit":
            until = event.at - self._info.started + event.seconds
            self._pause = (until, brief(f"{event.route} asked all rows to wait {seconds(event.seconds)} ({event.kind})"))
        elif isinstance(event, Ended):
            self._simulated |= is_simulated(event.outcome.route)
            if self.quality is not None:
                self.quality.fold(event)

    def head(self, totals: Totals, series: TimeSeries, in_flight: int, elapsed: float, state: RunState) -> Head:
        """All of it, as it stands."""
        summary = totals.summary(elapsed)
        rate, tokens = totals.speed(elapsed)[0], series.token_rate()
        return {
            "n": summary.n,
            "ended": summary.n - summary.running,
            "ok": summary.ok,
            "failed": summary.error,
            "cached": summary.cached,
            "cancelled": summary.cancelled,
            "skipped": summary.skipped,
            "in_flight": in_flight,
            "elapsed": seconds(elapsed),
            "eta": _time_left(summary, rate, in_flight) if state == "running" else "",
            "rows_s": three_digits(rate) if rate else "",
            "tokens_s": three_digits(tokens) if tokens else "",
            "cost": _cost(summary),
            "as_cost": dollars(series.elsewhere) if self._info.as_route and summary.ok else "",
            "cache_saved": dollars(saved) if (saved := summary.prompt_cache_saved) and saved > 0 else "",
            "errors": [ErrorCount(kind=kind, n=n) for kind, n in summary.errors.most_common(MAX_ERROR_KINDS)],
            "simulated": self._simulated,
            "by": _by(self._info, totals.answered_by.most_common(MAX_ROUTES)),
            "state": state,
            "note": self._note(totals, in_flight, elapsed, state),
            "quality": "" if self.quality is None else self.quality.line(),
        }

    def _note(self, totals: Totals, in_flight: int, elapsed: float, state: RunState) -> str:
        if state == "stopping":
            self._stopping_since = elapsed if self._stopping_since is None else self._stopping_since
            left = math.ceil(self._stopping_since + self._info.grace_s - elapsed)
            rows = brief(f"{counted(in_flight, 'row')} in flight") if in_flight else ""
            rest = brief(f"{left} s at most") if left > 0 else ""
            return ": ".join(filter(None, [brief("stopping"), ", ".join(filter(None, [rows, rest]))]))
        if state == "running" and elapsed < self._pause[0]:
            return self._pause[1]
        return say(clip(one_line(totals.note), NOTE_CHARS))


def _time_left(summary: Summary, rate: float | None, in_flight: int) -> str:
    """Empty until as many rows have been answered as are asked at once: until then the rate is that of the first to end among them."""
    answered = summary.ok + summary.error - summary.cached
    return seconds(summary.running / rate) if rate and summary.running and answered >= max(2, in_flight) else ""


def _cost(summary: Summary) -> str:
    """What was paid so far: nothing is said before a row has ended, and never $0.00 for what nobody knows."""
    return "" if summary.running == summary.n else brief(summary.money())


def _by(info: RunInfo, answered: Sequence[tuple[str, int]]) -> str:
    """Who answers. A recording does not tell who was asked."""
    return report.answered_by(info.first_routes or [route for route, _ in answered[:1]], info.fallbacks, answered)


def _quality(info: RunInfo) -> QualitySoFar | None:
    """How good the answers are so far; None, and no measure loaded, where nobody asked."""
    if info.measure is None and not info.assessment:
        return None
    from holynb.ui.live.quality import QualitySoFar

    return QualitySoFar(info.measure, info.assessment)
