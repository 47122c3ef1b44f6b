"""Running totals of a run: counts, dollars, speed, its last note, event by event. Pure; reads one journal.

Folding only what is new keeps five redraws a second cheap at ten thousand rows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from holynb.events import Ended, Noted, Paused
from holynb.results import CacheSavings, CutAnswers, Summary, is_pool, is_simulated, is_unsettled, refused_by

if TYPE_CHECKING:
    from holynb.events import Event
    from holynb.types import Outcome

__all__ = ["Totals"]

#: Speed is over this many seconds: long enough to be calm, short enough to follow a limit that opens or closes.
SPEED_WINDOW_S = 15.0


class Totals:
    """The fold of the events of a run of `n` rows. Owned by the view that feeds it.

    began: the run's start, by the clock whose times `speed` is given.
    """

    def __init__(self, n: int, began: float = 0.0) -> None:
        self.n = n
        self._note = ""
        self._away: dict[str, str] = {}
        """Route → the kind of fault for which its server is waited for."""
        self._status: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._cached = self._tokens_in = self._tokens_out = self._unpriced = self._unknown = self._answered = self._thought = 0
        self._cut = CutAnswers()
        self.answered_by: Counter[str] = Counter()
        """Rows by the route that answered them."""
        self._paid: Decimal | None = None
        self._cached_cost: Decimal | None = None
        """Cost of rows from the log; like a summary, it is left out where other rows have no price."""
        self._simulated = Decimal(0)
        self._unsettled = 0
        self._savings = CacheSavings()
        self._refused: set[str] = set()
        self._samples = deque([(began, 0, 0)])
        """Time, answered rows, answered tokens."""

    def fold(self, events: Sequence[Event]) -> None:
        """Fold events that were not folded before."""
        for event in events:
            if isinstance(event, Ended):
                self._away.pop(event.outcome.route or "", None)
                self._fold_outcome(event.outcome)
            elif isinstance(event, Noted):
                self._note = event.text
            elif isinstance(event, Paused) and event.kind != "rate_limit":
                self._away[event.route] = event.kind

    @property
    def note(self) -> str:
        """What a person should know now: the servers that are waited for, else the run's last note."""
        away = [f"waiting for the server of {route} ({kind}): one row asks until it is back" for route, kind in self._away.items()]
        return "; ".join(away) or self._note

    def summary(self, elapsed: float, *, stopped: bool = False) -> Summary:
        """The counts as they stand."""
        done, cost = sum(self._status.values()), self._paid
        if self._cached_cost is not None and not self._unpriced:
            cost = (cost or Decimal(0)) + self._cached_cost
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
            self._tokens_in,
            self._tokens_out,
            elapsed,
            self._errors,
            stopped,
            tokens_reasoning=self._thought,
            cut=replace(self._cut),
            simulated=self._simulated or None,
            refused=frozenset(self._refused),
            answered_by=Counter(self.answered_by),
            unsettled=self._unsettled,
            prompt_cache_saved=self._savings.dollars,
        )

    def speed(self, now: float) -> tuple[float | None, float | None]:
        """Rows and answered tokens a second over the last seconds, without rows from the log; None where nothing was answered."""
        self._samples.append((now, self._answered, self._tokens_out))
        while len(self._samples) > 2 and now - self._samples[1][0] >= SPEED_WINDOW_S:
            self._samples.popleft()
        then, rows, tokens = self._samples[0]
        elapsed = now - then
        if elapsed <= 0 or self._answered == rows:
            return None, None
        return (self._answered - rows) / elapsed, (self._tokens_out - tokens) / elapsed or None

    def _fold_outcome(self, outcome: Outcome) -> None:
        self._status[outcome.status] += 1
        if outcome.status == "error":
            self._errors[outcome.error_type or "error"] += 1
            self._refused |= {provider for provider in [refused_by(outcome)] if provider}
        if outcome.status == "ok" and outcome.route:
            self.answered_by[outcome.route] += 1
        self._cached += outcome.cached
        self._cut.add(outcome)
        self._savings.add(outcome)
        if not outcome.cached:
            self._answered += outcome.status != "skipped"
            self._tokens_in += outcome.usage.tokens_in or 0
            self._tokens_out += outcome.usage.tokens_out or 0
            self._thought += outcome.usage.tokens_reasoning or 0
        if outcome.cost is not None and outcome.cached:
            self._cached_cost = (self._cached_cost or Decimal(0)) + outcome.cost
        elif outcome.cost is not None:
            self._paid = (self._paid or Decimal(0)) + outcome.cost
        elif (outcome.attempts or outcome.cached) and outcome.status == "ok":
            self._unpriced += 1
            self._unknown += not is_pool(outcome.route)
        if outcome.cost is not None and is_simulated(outcome.route):
            self._simulated += outcome.cost
        self._unsettled += is_unsettled(outcome)
