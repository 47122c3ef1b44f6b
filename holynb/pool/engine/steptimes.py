"""How long steps take: of rows that each get one token, and of those that verify guesses. Knows numbers and a clock."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from statistics import median

from holynb.pool.engine.sizes import BATCH_SIZES

__all__ = ["StepTimes"]

#: Of each kind of step the last ones count. Few: contexts grow.
_KEPT = 7

#: What is assumed of a step with as few guesses as can be, and of twice as many tokens, until they are measured.
_FIRST, _DOUBLED = 1.3, 1.25

#: Times of a kind that are believed: one alone may have been a hiccup, and would keep rows from trying again.
_ENOUGH = 3

#: Steps after which times are too old: what was slow once may be so no more.
_MAX_AGE = 2000


class StepTimes:
    """Medians of the time from one step's end to the next one's, by the number of tokens that went through the model."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._kinds: dict[tuple[bool, int], _Kind] = {}
        self._last: float | None = None
        self._count = 0

    def add(self, rows: int, tokens: int) -> None:
        """A step of so many rows and tokens has just ended; more tokens than rows: guesses were verified."""
        now, last = self._clock(), self._last
        self._last, self._count = now, self._count + 1
        if last is None:
            return
        key = tokens > rows, _size(tokens)
        kind = self._kinds.get(key)
        if kind is None or self._count - kind.at > _MAX_AGE:
            # The first time of a kind is not one: a graph may be captured then, or kernels compiled.
            self._kinds[key] = _Kind(self._count)
        else:
            kind.at = self._count
            kind.times.append(now - last)

    def pause(self) -> None:
        """Something else took time: what is measured next would not be a step."""
        self._last = None

    def cost(self, rows: int, tokens: int) -> float:
        """The time of a step of so many rows and tokens, in steps of one token a row; infinite where nothing is known that is near it.

        So guesses begin few, and there are more of them once it is known what few of them cost.
        """
        size, times = _size(tokens), self._times(guesses=False, size=_size(rows))
        if not times:
            return inf
        plain = max(median(times), 1e-9)
        times = self._times(guesses=True, size=size)
        measured = max(1.0, median(times) / plain) if times else inf  # less than one is chance
        if len(times) >= _ENOUGH:
            return measured
        if size <= _size(2 * rows):
            return min(measured, _FIRST)
        fewer = self._times(guesses=True, size=size // 2)
        return min(measured, _DOUBLED * max(1.0, median(fewer) / plain)) if fewer else measured

    def _times(self, *, guesses: bool, size: int) -> Sequence[float]:
        """Those of a kind that are not too old."""
        kind = self._kinds.get((guesses, size))
        return () if kind is None or self._count - kind.at > _MAX_AGE else kind.times


class _Kind:
    __slots__ = ("at", "times")

    def __init__(self, at: int) -> None:
        self.at = at
        """The number of its last step."""
        self.times: deque[float] = deque(maxlen=_KEPT)


def _size(tokens: int) -> int:
    """The size that so many tokens are captured as; of a model without 224 the times of 193 to 224 and of 225 to 256 rows stand apart."""
    return BATCH_SIZES[min(bisect_left(BATCH_SIZES, tokens), len(BATCH_SIZES) - 1)]
