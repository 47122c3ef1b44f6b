"""Numbers of fewer than 64 bits as the decimals that they are written as: 0.1, not 0.10000000149011612. Imports neither numpy nor pandas:
what is given is one of their objects, and brings its library along.

Python has one kind of float, so each way out of an array (a list, a loop, JSON, a row of several dtypes) widens a float32, and what
it adds is read as digits that were measured. An array that is widened here, by its own decimals, keeps them on every way.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["exact_array", "exact_frame", "exact_index", "exact_list", "exact_series"]

#: Arrow's names of such types.
_ARROW = frozenset({"float", "float32", "halffloat", "float16"})


def exact_list(value: Any) -> list[Any]:
    """An array, a Series or an Index as a list of exact values. Dates of numpy stay what they are: its own lists make them integers."""
    if hasattr(value, "nlevels"):
        return list(exact_index(value).tolist())
    if hasattr(value, "index"):
        return list(exact_series(value).tolist())
    if value.dtype.kind in "mM":
        return [exact_list(v) for v in value] if value.ndim > 1 else list(value)
    return list(exact_array(value).tolist())


def exact_array(array: Any) -> Any:
    """A numpy array whose floats have 64 bits; the same object where nothing is to do."""
    dtype = array.dtype
    if dtype.kind == "f" and dtype.itemsize != 8:
        return array.astype("U32").astype("f8")
    return array.astype("U64").astype("c16") if dtype.kind == "c" and dtype.itemsize < 16 else array


def exact_series(series: Any) -> Any:
    """A pandas Series with exact values and an exact index; the same object where nothing is to do."""
    values, index = _exact_values(series), exact_index(series.index)
    if values is None and index is series.index:
        return series
    pandas = sys.modules["pandas"]
    return pandas.Series(series.array if values is None else values, index=index, name=series.name)


def exact_frame(frame: Any) -> Any:
    """A pandas DataFrame with exact columns and an exact index; the same object where nothing is to do."""
    index, labels = exact_index(frame.index), exact_index(frame.columns)
    inexact = [place for place, dtype in enumerate(frame.dtypes) if _inexact(dtype)]
    if not inexact and index is frame.index and labels is frame.columns:
        return frame
    copy = frame.copy(deep=False)
    for place in inexact:
        copy.isetitem(place, _exact_values(frame.iloc[:, place]))
    copy.index, copy.columns = index, labels
    return copy


def exact_index(index: Any) -> Any:
    """A pandas Index with exact labels; the same object where nothing is to do."""
    if index.nlevels > 1:
        levels = [exact_index(level) for level in index.levels]
        same = all(new is old for new, old in zip(levels, index.levels, strict=True))
        return index if same else index.set_levels(levels)
    if not _inexact(index.dtype):
        return index
    return sys.modules["pandas"].Index(_exact_values(index.to_series()), name=index.name)


def _inexact(dtype: Any) -> bool:
    """Whether values of a dtype, or parts of them, have fewer bits than Python's."""
    categories = getattr(dtype, "categories", None)
    if categories is not None:
        return _inexact(categories.dtype)
    arrow = getattr(dtype, "pyarrow_dtype", None)
    if arrow is not None:
        return _narrow(arrow)
    plain = getattr(dtype, "subtype", None) or getattr(dtype, "numpy_dtype", dtype)  # of a sparse column, of one with missing values
    kind, size = getattr(plain, "kind", ""), getattr(plain, "itemsize", 8)
    return (kind == "f" and size != 8) or (kind == "c" and size < 16)


def _exact_values(column: Any) -> Any:
    """The exact values of a Series, as what another is made of; None where they are exact."""
    dtype, pandas = column.dtype, sys.modules["pandas"]
    if not _inexact(dtype) or (dtype.kind == "O" and not hasattr(dtype, "categories") and not hasattr(dtype, "pyarrow_dtype")):
        return None
    if hasattr(dtype, "categories"):
        return column.array.rename_categories(exact_index(dtype.categories))
    if hasattr(dtype, "pyarrow_dtype"):
        values = [_decimal(v, dtype.pyarrow_dtype) for v in column.array.tolist()]
        if str(dtype.pyarrow_dtype) in _ARROW:
            return pandas.array(values, dtype="Float64")
        objects = pandas.Series(index=range(len(values)), dtype=object)
        for place, value in enumerate(values):
            objects.iat[place] = value
        return objects.array
    if hasattr(dtype, "numpy_dtype"):  # Float32: NA is no NaN
        gone = column.isna().to_numpy()
        return pandas.arrays.FloatingArray(exact_array(column.to_numpy(dtype=dtype.numpy_dtype, na_value=0)), gone)
    return exact_array(column.to_numpy())


# -- Arrow's types, which nest -----------------------------------------------------------------------------------------------
def _parts(kind: Any) -> list[Any]:
    """The types in a type of Arrow's."""
    if hasattr(kind, "storage_type"):
        return [kind.storage_type]
    if hasattr(kind, "key_type"):
        return [kind.key_type, kind.item_type]
    if hasattr(kind, "value_type"):
        return [kind.value_type]
    return [kind.field(place).type for place in range(kind.num_fields)]


def _narrow(kind: Any) -> bool:
    return str(kind) in _ARROW or any(map(_narrow, _parts(kind)))


def _decimal(value: Any, kind: Any) -> Any:
    """A value that Arrow gave as Python's, with the floats of its type as they are written."""
    if value is None or not _narrow(kind):
        return value
    if str(kind) in _ARROW:
        numpy = sys.modules["numpy"]
        narrow = numpy.float16 if str(kind) in ("halffloat", "float16") else numpy.float32
        return float(str(narrow(value))) if isinstance(value, float) else value
    parts = _parts(kind)
    if isinstance(value, dict):
        return {name: _decimal(v, kind.field(name).type) for name, v in value.items()}
    if hasattr(kind, "key_type"):
        return [tuple(_decimal(v, part) for v, part in zip(pair, parts, strict=True)) for pair in value]
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return [_decimal(v, parts[0]) for v in value]
    return _decimal(value, parts[0])
