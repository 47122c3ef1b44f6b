"""Plain values as the columns of a frame, each in a dtype that holds every one of them exactly. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column", "table"]


def table(columns: Mapping[str, Sequence[Any]], index: list[Any] | None = None) -> pd.DataFrame:
    """A frame of columns of one length. None is a missing value, and changes no other."""
    import pandas as pd

    frame = pd.DataFrame({name: column(values) for name, values in columns.items()})
    return frame if index is None or list(index) == list(range(len(frame))) else frame.set_axis(pd.Index(index), axis=0)


def column(values: Sequence[Any]) -> pd.Series[Any]:
    """Texts as pandas keeps text; numbers and booleans of one kind in its dtype, the nullable one where some are missing; else objects.

    So are whole numbers that 64 bits do not hold, and those among fractions, which as floats would be others.
    """
    import pandas as pd

    kinds = set(map(type, values))
    gaps = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {str}:
        try:
            return pd.Series(list(values))
        except UnicodeEncodeError:  # a lone surrogate, which Arrow's text does not hold
            return pd.Series(list(values), dtype=object)
    if kinds == {bool}:
        return pd.Series(list(values), dtype="boolean" if gaps else "bool")
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pd.Series(pd.array(list(values), dtype="Int64" if gaps else "int64"))
    return pd.Series(list(values), dtype="float64" if kinds == {float} else object)
