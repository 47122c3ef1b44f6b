"""Plain values as the columns of a frame, each in a dtype that holds every one of them exactly. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ColumnKind", "Kind", "column", "table"]


class ColumnKind(Protocol):
    """A column whose cells come in parts. What it is follows from all of them."""

    def see(self, cells: Sequence[Any]) -> None:
        """Take note of the next cells."""

    def series(self, cells: Sequence[Any]) -> pd.Series[Any]:
        """These cells, some or all of the column's, in the dtype of the column."""


def table(columns: Mapping[str, Sequence[Any]], index: list[Any] | None = None) -> pd.DataFrame:
    """A frame of columns of one length. None is a missing value, and changes no other."""
    import pandas as pd

    frame = pd.DataFrame({name: column(values) for name, values in columns.items()})
    return frame if index is None or list(index) == list(range(len(frame))) else frame.set_axis(pd.Index(index), axis=0)


def column(values: Sequence[Any]) -> pd.Series[Any]:
    """Texts as pandas keeps text; numbers and booleans of one kind in its dtype, the nullable one where some are missing; else objects.

    So are whole numbers that 64 bits do not hold, and those among fractions, which as floats would be others.
    """
    kind = Kind()
    kind.see(values)
    return kind.series(values)


class Kind:
    """What the values of a column are."""

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._is_narrow = True
        """Whether 64 bits hold each whole number."""
        self._surrogate = ""
        """A text with half of a surrogate pair, which Arrow's text does not hold."""

    def see(self, cells: Sequence[Any]) -> None:
        """Take note of the next values."""
        kinds = set(map(type, cells))
        self._kinds |= kinds
        if int in kinds and self._is_narrow:
            self._is_narrow = all(-(2**63) <= v < 2**63 for v in cells if type(v) is int)
        if str in kinds and not self._surrogate:
            try:
                "".join([v for v in cells if type(v) is str]).encode()
            except UnicodeEncodeError as exc:
                self._surrogate = exc.object[exc.start]

    def series(self, cells: Sequence[Any]) -> pd.Series[Any]:
        """Values as a Series."""
        import pandas as pd

        dtype = self._dtype()
        values = list(cells)
        return pd.Series(pd.array(values, dtype=dtype)) if dtype in ("int64", "Int64") else pd.Series(values, dtype=dtype)

    def _dtype(self) -> Any:
        import pandas as pd

        gaps, kinds = type(None) in self._kinds, self._kinds - {type(None)}
        if kinds == {str}:
            try:
                return pd.Series([self._surrogate]).dtype
            except UnicodeEncodeError:
                return object
        if kinds == {bool}:
            return "boolean" if gaps else "bool"
        if kinds == {int} and self._is_narrow:
            return "Int64" if gaps else "int64"
        return "float64" if kinds == {float} else object
