"""Time series in a bounded number of points: buckets of equal width that double when they run out. Pure; knows names and numbers.

An hour at ten looks a second must not become 36,000 points, neither here nor in the page that draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["HOW", "Buckets"]

Column = list[float | None]


#: How two values of one bucket, in order of time, become one.
HOW: Mapping[str, Callable[[Sequence[float]], float]] = {"last": lambda pair: pair[-1], "sum": sum, "max": max}


class Buckets:
    """At most `most` buckets from 0 s on; each column has one value or None per bucket. `mark` is the first bucket changed since `flush`."""

    def __init__(self, most: int = 240, width: float = 0.25) -> None:
        self.most = most
        self.width = width
        self.size = 0
        self._columns: dict[tuple[str, str], Column] = {}
        self._how: dict[tuple[str, str], str] = {}
        self._mark = 0

    def index(self, at: float) -> int:
        """The bucket of a time, once there is room for it."""
        while at >= self.most * self.width:
            self._halve()
        return max(0, int(at / self.width))

    def put(self, chart: str, name: str, at: float, value: float, how: str = "last") -> None:
        """Note a value at `at` seconds. `how` merges it with what its bucket holds: last, sum or max."""
        key = (chart, name)
        place = self.index(at)
        if place >= self.size:
            for column in self._columns.values():
                column.extend([None] * (place + 1 - self.size))
            self.size = place + 1
        if key not in self._columns:
            self._columns[key] = [None] * self.size
            self._how[key] = how
            self._mark = 0
        column = self._columns[key]
        here = column[place]
        column[place] = value if here is None else HOW[self._how[key]]((here, value))
        self._mark = min(self._mark, place)

    def all(self) -> dict[str, Any]:
        """Everything: `width`, `from` 0, `size`, and `charts` as chart → name → values."""
        return self._cut(0)

    def flush(self) -> dict[str, Any] | None:
        """What changed since the last flush, from bucket `from` on; None where nothing did."""
        if self._mark >= self.size:
            return None
        changed = self._cut(self._mark)
        self._mark = self.size
        return changed

    def _cut(self, start: int) -> dict[str, Any]:
        charts: dict[str, dict[str, Column]] = {}
        for (chart, name), column in self._columns.items():
            charts.setdefault(chart, {})[name] = [None if v is None else float(f"{v:.6g}") for v in column[start:]]
        return {"width": self.width, "from": start, "size": self.size, "charts": charts}

    def _halve(self) -> None:
        """Join neighbours; twice the time in the same room."""
        for key, column in self._columns.items():
            merge = HOW[self._how[key]]
            self._columns[key] = [_join(column[i : i + 2], merge) for i in range(0, len(column), 2)]
        self.size = (self.size + 1) // 2
        self.width *= 2
        self._mark = 0


def _join(pair: Column, merge: Callable[[Sequence[float]], float]) -> float | None:
    known = [v for v in pair if v is not None]
    return merge(known) if known else None
