"""A column of a frame that is filled a window at a time, and takes no more memory meanwhile than it has at its end. Knows no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Filled"]

#: pandas' dtypes whose arrays are values and a mask.
_MASKED = ("Int64", "Float64", "boolean")


class Filled:
    """A column of `n` rows whose windows come in order, all in one dtype.

    Numbers, booleans, categories and objects are in place from the beginning: parts that are put together leave holes of their size.
    Texts are parts of Arrow's, of which the whole one consists without a copy.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._parts: list[Any] = []
        self._dtype: Any = None
        self._values: Any = None
        self._gone: Any = None

    def put(self, first: int, array: Any) -> None:
        """Add the rows from `first` on, an array of pandas' or numpy's."""
        import numpy as np
        import pandas as pd

        self._dtype = array.dtype if self._dtype is None else self._dtype
        if isinstance(self._dtype, pd.StringDtype):
            self._parts.append(array)
            return
        coded, masked = isinstance(self._dtype, pd.CategoricalDtype), str(self._dtype) in _MASKED
        if self._values is None:
            plain = array.codes.dtype if coded else getattr(self._dtype, "numpy_dtype", self._dtype)
            self._values = np.zeros(self._n, dtype=plain)
            self._gone = np.zeros(self._n, dtype=bool) if masked else None
        rows = slice(first, first + len(array))
        if masked:
            self._gone[rows] = array.isna()
            array = array.to_numpy(dtype=self._values.dtype, na_value=self._values.dtype.type(0))
        self._values[rows] = array.codes if coded else array

    def series(self) -> pd.Series[Any]:
        """All of it."""
        import pandas as pd

        if self._values is None:
            return pd.concat([pd.Series(part, copy=False) for part in self._parts], ignore_index=True)
        if isinstance(self._dtype, pd.CategoricalDtype):
            return pd.Series(pd.Categorical.from_codes(self._values, dtype=self._dtype), copy=False)
        if self._gone is None:
            return pd.Series(self._values, dtype=self._values.dtype, copy=False)
        kinds = {"Int64": pd.arrays.IntegerArray, "Float64": pd.arrays.FloatingArray, "boolean": pd.arrays.BooleanArray}
        return pd.Series(kinds[str(self._dtype)](self._values, self._gone), copy=False)
