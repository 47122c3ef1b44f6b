"""The text of a date, a duration or an interval of numpy or pandas. Imports neither."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

__all__ = ["datetime_text"]


def datetime_text(value: Any, text: Callable[[Any], str]) -> str:
    """A number, date or interval as pandas writes it: no `T`, no zeros of nanoseconds. `text`: of what bounds an interval."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return _date(value)
    if kind == "m":
        return _duration(value)
    if hasattr(value, "closed"):
        left, right = ("[" if value.closed_left else "("), ("]" if value.closed_right else ")")
        return f"{left}{text(value.left)}, {text(value.right)}{right}"
    return str(value)


def _date(value: Any) -> str:
    """A datetime64, to the day where that is its unit, else to the second and its fraction."""
    written = str(value)
    if "T" not in written:
        return written
    if written.count(":") < 2:
        written = str(value.astype("M8[s]"))
    day, _, time = written.partition("T")
    return f"{day} {time.rstrip('0').rstrip('.') if '.' in time else time}"


def _duration(value: Any) -> str:
    """A timedelta64 as Python's, where that holds it; in its own unit where not (months, nanoseconds)."""
    try:
        microseconds = value.astype("m8[us]")
        if microseconds == value and isinstance(plain := microseconds.item(), dt.timedelta):
            return str(plain)
    except (TypeError, OverflowError):
        pass
    return str(value)
