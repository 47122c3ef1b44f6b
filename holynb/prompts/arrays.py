"""Arrays and frames in a template: which of numpy's and pandas' objects it may hold, and how it reads their parts. Imports neither: where
they are not loaded there is nothing to read. The methods are in `array_methods.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

from holynb.bounded import MAX_ITEMS, TooMuch
from holynb.prompts.exact_floats import exact_array, exact_frame, exact_index, exact_series

__all__ = [
    "ABSENT",
    "Accessor",
    "Indexer",
    "attribute",
    "check_operands",
    "check_size",
    "converted",
    "dtype_name",
    "item",
    "kind_of",
    "size_of",
]

_TIME = """
day day_of_week day_of_year dayofweek dayofyear days_in_month hour is_leap_year is_month_end is_month_start is_quarter_end is_quarter_start
is_year_end is_year_start microsecond minute month nanosecond quarter second weekday year days microseconds nanoseconds seconds
"""
_SHAPE = "dtype empty hasnans is_monotonic_decreasing is_monotonic_increasing is_unique name names ndim nlevels shape size"
_INDEXERS = frozenset({"at", "iat", "iloc", "loc"})
_ACCESSORS = frozenset({"dt", "str"})

#: Attributes by kind, besides a frame's columns and a series' labels.
ATTRIBUTES = {
    "frame": frozenset(["T", "columns", "dtypes", "empty", "index", "ndim", "shape", "size", "values"]),
    "series": frozenset(f"{_SHAPE} index values".split()),
    "index": frozenset(f"{_SHAPE} {_TIME} values".split()),
    "array": frozenset(["T", "dtype", "ndim", "shape", "size"]),
    "number": frozenset({"imag", "real"}),
    "moment": frozenset(f"{_TIME} closed end_time fold left length mid right start_time tz tzinfo value".split()),
    "str": frozenset(),
    "dt": frozenset(f"{_TIME} date time".split()),
}

#: Where the types come from that a column may hold.
_PLAIN_MODULES = frozenset({"builtins", "datetime", "decimal", "fractions", "numpy", "pandas", "pathlib", "uuid", "zoneinfo"})

#: Largest array that is made exact when it is met: about 50 ms.
MAX_EXACT = 20_000

#: Says that there is no such attribute or item.
ABSENT = object()


class Accessor:
    """`.str` or `.dt` of a series."""

    __slots__ = ("kind", "series")

    def __init__(self, series: Any, kind: str) -> None:
        self.series, self.kind = series, kind

    @property
    def target(self) -> Any:
        """Pandas' own accessor. Raises AttributeError where the series holds neither texts nor times."""
        return getattr(self.series, self.kind)


class Indexer:
    """`.loc`, `.iloc`, `.at` or `.iat`: read by a key."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name


def _libraries() -> tuple[Any, Any]:
    """Pandas and numpy, None where they are not loaded."""
    return sys.modules.get("pandas"), sys.modules.get("numpy")


@lru_cache(maxsize=256)
def _kind(kind: Any) -> str | None:
    pandas, numpy = _libraries()
    if pandas is not None and hasattr(pandas, "Interval"):  # not half way through its own import
        if issubclass(kind, pandas.DataFrame):
            return "frame"
        if issubclass(kind, pandas.Series):
            return "series"
        if issubclass(kind, pandas.Index):
            return "index"
        if issubclass(kind, pandas.Timestamp | pandas.Timedelta | pandas.Period | pandas.Interval):
            return "moment"
        if issubclass(kind, pandas.api.extensions.ExtensionArray):
            return "extension"
    if numpy is not None and issubclass(kind, numpy.ndarray | numpy.generic):
        return "array" if issubclass(kind, numpy.ndarray) else "number"
    return None


def kind_of(value: Any) -> str | None:
    """Which of the kinds in ATTRIBUTES a value is; None for all other values."""
    kind: Any = type(value)
    return str(value.kind) if kind is Accessor else _kind(kind)


def dtype_name(value: Any) -> str | None:
    """The name of a dtype; None for all other values."""
    pandas, numpy = _libraries()
    if numpy is not None and isinstance(value, numpy.dtype):
        return str(value)
    own = pandas is not None and type(value).__module__.partition(".")[0] == "pandas"
    return str(value) if own and issubclass(type(value), pandas.api.extensions.ExtensionDtype) else None


def converted(value: Any) -> Any:
    """An object of numpy or pandas as a template reads it, subclasses as what they derive from; None for any other or refused one."""
    kind, own = kind_of(value), type(value).__module__.partition(".")[0] in ("numpy", "pandas")
    pandas, _ = _libraries()
    if kind == "frame":
        return _exact(value if type(value) is pandas.DataFrame else pandas.DataFrame(value), exact_frame)
    if kind == "series":
        return _exact(value if type(value) is pandas.Series else pandas.Series(value), exact_series)
    if kind == "extension" and own:
        return exact_series(pandas.Series(value)).tolist() if value.size <= MAX_ITEMS else None
    if kind == "array":
        return _array(value)
    if kind == "number" and own:
        return _scalar(value)
    return _exact(value, exact_index) if kind == "index" and own else value if kind == "moment" and own else None


def _exact(value: Any, exact: Callable[[Any], Any]) -> Any:
    """Exact where it is small, so that every way out of it is: a large one is made exact where it is listed or printed."""
    return exact(value) if value.size <= MAX_EXACT else value


def _array(value: Any) -> Any:
    """An array as a plain one of known values, with its fields as dicts, and as a number where it has no dimension."""
    _, numpy = _libraries()
    if value.dtype.names is not None and value.size <= MAX_ITEMS:
        return [_array(v) for v in value] if value.ndim else _scalar(value[()])
    if value.dtype.kind not in "biufcmMSUO":
        return None
    if issubclass(type(value), numpy.ma.MaskedArray):
        known = numpy.empty(value.size, dtype=object)
        for place, one in enumerate(exact_array(numpy.asarray(value.data)).ravel()):
            known[place] = one
        known = known.reshape(value.shape)
        known[numpy.ma.getmaskarray(value)] = None
        return known if known.ndim else known[()]
    value = value if type(value) is numpy.ndarray else numpy.asarray(value)
    if value.ndim:
        return _exact(value, exact_array)
    return float("nan") if value[()] is None else _scalar(value[()])  # None says that it is refused


def _scalar(value: Any) -> Any:
    """A number of numpy, or what stands for one in Python; the fields of one that has them."""
    _, numpy = _libraries()
    if not isinstance(value, numpy.generic):  # of an array of objects
        return value
    if value.dtype.names is not None:
        return {name: value[name] for name in value.dtype.names}
    return value.item() if value.dtype.kind in "bSU" else value if value.dtype.kind in "iufcmM" else None


def size_of(value: Any) -> int:
    """Bytes of an array or frame; 0 of any other value."""
    kind = kind_of(value)
    if kind == "frame":
        return int(value.memory_usage().sum())
    return int(value.nbytes) if kind in ("series", "index", "array") else 0


def check_size(value: Any) -> None:
    """Refuse to make Python's objects of more than a step may make."""
    if value.size > MAX_ITEMS:
        raise TooMuch(f"it reads more than {MAX_ITEMS:,} values one by one: take head(), or compute it in the cell above")


def check_objects(value: Any) -> None:
    """Refuse a column that holds objects of the notebook: to compare or count them would run their code."""
    kind = kind_of(value)
    columns = [value.iloc[:, place] for place in range(value.shape[1])] if kind == "frame" else [value]
    for column in columns:
        if getattr(column.dtype, "kind", "") == "O":
            modules = {t.__module__.partition(".")[0] for t in set(map(type, column.ravel() if kind == "array" else column))}
            if not modules <= _PLAIN_MODULES:
                raise SecurityError("a column of objects: compute it in the cell above")


# -- parts ---------------------------------------------------------------------------------------------------------------
def attribute(value: Any, name: str) -> Any:
    """An attribute, a frame's column or a series' item of that label; ABSENT where there is none that a template reads."""
    kind = str(kind_of(value))
    if kind in ("frame", "series"):
        if name in _INDEXERS:
            return Indexer(value, name)
        if name in _ACCESSORS and kind == "series":
            return Accessor(value, name)
        labels = value.columns if kind == "frame" else value.index
        if not name.startswith("__") and name in labels:  # a column called size or name is the column
            return value[name]
    if name not in ATTRIBUTES[kind]:
        return ABSENT
    if name in ("T", "values"):
        check_size(value)
    return getattr(value.target if isinstance(value, Accessor) else value, name, ABSENT)


def item(value: Any, key: Any) -> Any:
    """`value[key]`, of a frame, a series, an array or an indexer; ABSENT where there is none. The result is not larger than `value`."""
    owner = value.owner if isinstance(value, Indexer) else value
    target = getattr(owner, value.name) if isinstance(value, Indexer) else value
    try:
        return target[_key(key, owner)]
    except (KeyError, IndexError):
        return ABSENT


def _key(key: Any, owner: Any) -> Any:
    """A key of plain values. A mask is a mask of the whole, and a list names nothing twice, so that nothing is multiplied."""
    if isinstance(key, tuple):
        return tuple(_key(k, owner) for k in key)
    kind = kind_of(key)
    if kind == "frame":
        if key.shape != owner.shape or any(str(t) not in ("bool", "boolean") for t in key.dtypes):
            raise TypeError("a frame chooses from a frame by true and false")
        return key
    if kind in ("series", "index", "array"):
        if str(key.dtype) in ("bool", "boolean"):
            return key
        check_size(key)
        key = key.tolist()
    if isinstance(key, list):
        if not all(isinstance(k, bool) for k in key) and len(set(key)) < len(key):
            raise TooMuch("a list of labels names one of them twice")
        return key
    if isinstance(key, slice):
        return key
    if key is None or key is Ellipsis or isinstance(key, Undefined | dict | set | frozenset | Indexer | Accessor):
        raise TypeError("a row or column is chosen by its label")
    return key


# -- operations ------------------------------------------------------------------------------------------------------------
def check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse what would grow or run code: an operation of two arrays that do not match, or of a column of texts or objects."""
    kinds = [kind_of(v) for v in (left, right)]
    arrays = [v for v, kind in zip((left, right), kinds, strict=True) if kind in ("frame", "series", "index", "array")]
    if operator in ("in", "notin"):
        arrays = [right] if kinds[1] == "array" else []
    if len(arrays) == 2 and operator not in ("in", "notin"):
        same = kinds[0] == kinds[1] and left.shape == right.shape
        if not same or (kinds[0] in ("frame", "series") and not left.index.equals(right.index)):
            raise SecurityError("an operation of two columns that do not match: compute it in the cell above")
        if kinds[0] == "frame" and not left.columns.equals(right.columns):
            raise SecurityError("an operation of two frames that do not match: compute it in the cell above")
    for array in arrays:
        check_objects(array)
    if operator in ("+", "-", "*", "/", "//", "%", "**"):
        dtypes = [t for a in arrays for t in (a.dtypes if kind_of(a) == "frame" else [a.dtype])]
        if any(getattr(t, "kind", "O") not in "biufcmM" for t in dtypes) or any(isinstance(v, str | bytes) for v in (left, right)):
            raise SecurityError("arithmetic with a column of texts: compute it in the cell above")
