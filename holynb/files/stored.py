"""A table of many rows that is not whole in memory: a frame is made of a window of them. Knows no file and no library's kinds."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pickle import HIGHEST_PROTOCOL, dumps, loads
from typing import TYPE_CHECKING, Any

from holynb.files.columns import ColumnKind
from holynb.files.cutting import WINDOW, Window
from holynb.files.filled import Filled
from holynb.spool import Spool

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PlainTable", "StoredTable", "gathered", "pieces", "taken", "whole", "window"]


class StoredTable:
    """`n` rows. What is read of it at once is a frame, on its part of the index."""

    n: int
    index: Any
    _head: int | None = None

    def __len__(self) -> int:
        return self.n if self._head is None else min(self.n, self._head)

    @property
    def columns(self) -> Any:
        """The names of the columns, as a frame has them."""
        return self.rows(0, 0).columns

    @abstractmethod
    def rows(self, first: int, stop: int, only: Sequence[int] | None = None) -> pd.DataFrame:
        """The rows from `first` to before `stop`; of the columns at the places `only`. Their values, and their columns of objects, are
        those of the whole frame.
        """

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """All of it; little more than this is held while it is made."""

    @abstractmethod
    def head(self, n: int) -> StoredTable:
        """The first `n` rows, in types that all of them have."""


class PlainTable(StoredTable):
    """Columns of Python's values in a spool. `starts`: the first row of each window."""

    def __init__(
        self, columns: dict[str, ColumnKind], places: dict[str, list[int | None]], starts: list[int], n: int, spool: Spool
    ) -> None:
        import pandas as pd

        self.n, self._spool = n, spool
        self._columns, self._places, self._starts = columns, places, starts
        self.index = pd.RangeIndex(n)

    def rows(self, first: int, stop: int, only: Sequence[int] | None = None) -> pd.DataFrame:
        import pandas as pd

        names = list(self._columns) if only is None else [list(self._columns)[place] for place in only]
        index = self.index[first:stop]
        return pd.DataFrame({name: self._series(name, first, stop).set_axis(index) for name in names}, index=index, columns=names)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        n = len(self)
        columns = {}
        for name in self._columns:
            column = Filled(n)
            for first in range(0, max(1, n), WINDOW):
                column.put(first, self._series(name, first, min(n, first + WINDOW)).array)
            columns[name] = column.series()
        return pd.DataFrame(columns, copy=False).set_axis(self.index[:n], axis=0) if columns else self.rows(0, n)

    def head(self, n: int) -> StoredTable:
        copy = PlainTable(self._columns, self._places, self._starts, min(n, self.n), self._spool)
        copy.index = self.index[:n]
        return copy

    def _series(self, name: str, first: int, stop: int) -> pd.Series[Any]:
        cells: list[Any] = []
        window = max(0, bisect_right(self._starts, first) - 1)
        while len(cells) < stop - first:
            start = self._starts[window]
            end = self._starts[window + 1] if window + 1 < len(self._starts) else self.n
            place = self._places[name][window] if window < len(self._places[name]) else None
            read = [None] * (end - start) if place is None else loads(self._spool.get(place))  # noqa: S301 - bytes of this process
            cells += read[max(0, first - start) : max(0, stop - start)]
            window += 1
        return self._columns[name].series(cells)


def gathered(
    windows: Iterable[Window], column: Callable[[], ColumnKind], folder: Path | None, index: list[Any] | None = None
) -> PlainTable:
    """The table of these windows, of which each has the columns of the one before it, and maybe more. `folder`: where it lies."""
    import pandas as pd

    spool = Spool(folder)
    columns: dict[str, ColumnKind] = {}
    places: dict[str, list[int | None]] = {}
    starts: list[int] = []
    n = 0
    for part in windows:
        for name, cells in part.columns.items():
            if name not in columns:
                columns[name], places[name] = column(), [None] * len(starts)
                if n:
                    columns[name].see([None])
            columns[name].see(cells)
            if part.n:
                places[name].append(spool.put(dumps(cells, HIGHEST_PROTOCOL)))
        if part.n:
            starts.append(n)
            n += part.n
    table = PlainTable(columns, places, starts, n if columns else 0, spool)
    if index is not None and index != list(range(n)):
        table.index = pd.Index(index)
    return table


# -- of a frame or a stored table --------------------------------------------------------------------------------------------
def window(source: pd.DataFrame | StoredTable, first: int, stop: int) -> pd.DataFrame:
    """The rows from `first` to before `stop`."""
    return source.rows(first, stop) if isinstance(source, StoredTable) else source.iloc[first:stop]


def taken(source: pd.DataFrame | StoredTable, places: Sequence[int]) -> pd.DataFrame:
    """The rows at these places, which lie near each other."""
    if not isinstance(source, StoredTable):
        return source.iloc[places]
    if not places:
        return source.rows(0, 0)
    first = min(places)
    return source.rows(first, max(places) + 1).iloc[[place - first for place in places]]


def pieces(source: pd.DataFrame | StoredTable, place: int) -> Iterator[pd.Series[Any]]:
    """A column, a window of rows at a time."""
    if not isinstance(source, StoredTable):
        yield source.iloc[:, place]
        return
    for first in range(0, len(source), WINDOW):
        yield source.rows(first, min(len(source), first + WINDOW), [place]).iloc[:, 0]


def whole(source: pd.DataFrame | StoredTable) -> pd.DataFrame:
    """All of it as a frame; a frame is itself."""
    return source.frame() if isinstance(source, StoredTable) else source
