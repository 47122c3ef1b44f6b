"""What a template reads of a value: attributes, items and methods, by lists of names for each type. Runs no code of the notebook."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from jinja2 import Undefined
from jinja2.runtime import LoopContext
from jinja2.utils import Cycler, Namespace

from holynb.bounded import CONTAINERS, measure
from holynb.prompts import arrays
from holynb.prompts.arrays import ABSENT
from holynb.prompts.values import Fields, FieldValues

__all__ = ["METHODS", "attribute", "item"]

_DATE = frozenset({"day", "month", "year"})
_TIME = frozenset({"fold", "hour", "microsecond", "minute", "second", "tzinfo"})
_REAL = frozenset({"imag", "real"})
_RATIONAL = _REAL | {"denominator", "numerator"}
_LOOP = "depth depth0 first index index0 last length nextitem previtem revindex revindex0"

#: Attributes by type. Those of arrays and frames are in `arrays.py`.
_ATTRIBUTES: Mapping[type, frozenset[str]] = {
    int: _RATIONAL,
    bool: _RATIONAL,
    float: _REAL,
    complex: _REAL,
    Fraction: _RATIONAL,
    dt.date: _DATE,
    dt.datetime: _DATE | _TIME,
    dt.time: _TIME,
    dt.timedelta: frozenset({"days", "microseconds", "seconds"}),
    UUID: frozenset({"hex", "int", "urn", "version"}),
    range: frozenset({"start", "step", "stop"}),
    LoopContext: frozenset(_LOOP.split()),
    Cycler: frozenset({"current"}),
}

_OF_DATE = frozenset({"ctime", "isocalendar", "isoformat", "isoweekday", "replace", "strftime", "weekday"})
#: Methods by type, besides those that `BoundedEnvironment` lists for Python's plain types.
METHODS: Mapping[type, frozenset[str]] = {
    dt.date: _OF_DATE,
    dt.datetime: _OF_DATE | {"date", "time", "timestamp", "utcoffset"},
    dt.time: frozenset({"isoformat", "replace", "strftime"}),
    dt.timedelta: frozenset({"total_seconds"}),
    Decimal: frozenset({"adjusted", "as_tuple", "is_finite", "is_zero", "normalize", "quantize", "to_integral_value"}),
    Fraction: frozenset({"limit_denominator"}),
    LoopContext: frozenset({"changed", "cycle"}),
    Cycler: frozenset({"next", "reset"}),
}

_SEQUENCES = (str, bytes, list, tuple, range)


def attribute(value: Any, name: str) -> Any:
    """What is stored under a name: a key, a column, a field, an attribute of the list. ABSENT where there is none."""
    if isinstance(value, dict):
        return dict.get(value, name, ABSENT)
    if arrays.kind_of(value):
        return arrays.attribute(value, name)
    if isinstance(value, FieldValues):
        return value.fields.get(name, ABSENT)
    if isinstance(value, Fields):
        return value[value.names.index(name)] if name in value.names else ABSENT
    if isinstance(value, Namespace):
        return ABSENT if name.startswith("_") else getattr(value, name, ABSENT)
    return getattr(value, name) if name in _ATTRIBUTES.get(type(value), ()) else ABSENT


def item(value: Any, key: Any) -> Any:
    """`value[key]`, ABSENT where there is none; a text as the key may name an attribute, too."""
    entry = ABSENT
    if isinstance(key, CONTAINERS):
        measure(key)
    if arrays.kind_of(value) in ("frame", "series", "index", "array") or isinstance(value, arrays.Indexer):
        entry = arrays.item(value, key)
    elif not isinstance(key, Undefined):
        try:
            entry = dict.get(value, key, ABSENT) if isinstance(value, dict) else value[key] if isinstance(value, _SEQUENCES) else ABSENT
        except (TypeError, LookupError):
            entry = ABSENT
    return attribute(value, key) if entry is ABSENT and isinstance(key, str) else entry
