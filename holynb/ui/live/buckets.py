"""Time series in a bounded number of points: buckets of equal width that double when they run out. Pure; knows names and numbers.

An hour at ten samples a second must not become 36,000 points, neither here nor in the page that draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from holynb.ui.live.protocol import Points

__all__ = ["Buckets", "Merge"]

MAX_BUCKETS = 240
FIRST_WIDTH_S = 0.25
SIGNIFICANT_DIGITS = 6

Column = list[float | None]
Merge = Literal["last", "sum", "max"]

#: How values of one bucket, in order of time, become one.
_MERGE: Mapping[Merge, Callable[[Sequence[float]], float]] = {"last": lambda values: values[-1], "sum": sum, "max": max}


class Buckets:
    """At most `max_buckets` buckets from 0 s on; each column has one value or None per bucket."""

    def __init__(self, max_buckets: int = MAX_BUCKETS, width: float = FIRST_WIDTH_S) -> None:
        self.max_buckets = max_buckets
        self.width = width
        """Seconds."""
        self.size = 0
        self._columns: dict[tuple[str, str], Column] = {}
        self._merge: dict[tuple[str, str], Merge] = {}
        self._first_changed = 0
        """The first bucket changed since `flush`."""

    def index(self, at: float) -> int:
        """The bucket of a time. Makes room for it first, so `width` may double."""
        while at >= self.max_buckets * self.width:
            self._halve()
        return max(0, int(at / self.width))

    def put(self, chart: str, name: str, at: float, value: float, merge: Merge = "last") -> None:
        """Add a value at `at` seconds; `merge` joins it with what its bucket holds."""
        key = (chart, name)
        index = self.index(at)
        if index >= self.size:
            for column in self._columns.values():
                column.extend([None] * (index + 1 - self.size))
            self.size = index + 1
        if key not in self._columns:
            self._columns[key] = [None] * self.size
            self._merge[key] = merge
            self._first_changed = 0
        column = self._columns[key]
        before = column[index]
        column[index] = value if before is None else _MERGE[self._merge[key]]((before, value))
        self._first_changed = min(self._first_changed, index)

    def all(self) -> Points:
        """Every bucket."""
        return self._points(0)

    def flush(self) -> Points | None:
        """The buckets from the first changed since the last flush; None where none did."""
        if self._first_changed >= self.size:
            return None
        changed = self._points(self._first_changed)
        self._first_changed = self.size
        return changed

    def _points(self, first: int) -> Points:
        charts: dict[str, dict[str, Column]] = {}
        for (chart, name), column in self._columns.items():
            charts.setdefault(chart, {})[name] = [None if v is None else float(f"{v:.{SIGNIFICANT_DIGITS}g}") for v in column[first:]]
        return {"width": self.width, "first": first, "size": self.size, "charts": charts}

    def _halve(self) -> None:
        """Join neighbours: twice the time in as many buckets."""
        for key, column in self._columns.items():
            merge = _MERGE[self._merge[key]]
            self._columns[key] = [_join(column[i : i + 2], merge) for i in range(0, len(column), 2)]
        self.size = (self.size + 1) // 2
        self.width *= 2
        self._first_changed = 0


def _join(pair: Column, merge: Callable[[Sequence[float]], float]) -> float | None:
    values = [v for v in pair if v is not None]
    return merge(values) if values else None
