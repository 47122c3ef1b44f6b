"""What a row sets for itself: sampling parameters, the task that names its route, and what counts as missing. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from holynb.config import BY_NAME
from holynb.errors import BadPrompt
from holynb.types import Sampling
from holynb.words import an

__all__ = ["SAMPLING_FIELDS", "missing", "sampling", "task_type"]

#: Sampling parameters that a row may set; any other column of --params-from is passed through like `-p`.
SAMPLING_FIELDS = tuple(f.name for f in fields(Sampling) if f.name != "extra")


def sampling(row: Mapping[str, Any], names: Sequence[str], i: int) -> Sampling:
    """The sampling parameters that a row sets; missing values are inherited."""
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name in names:
        value = row[name]
        if missing(value) or (isinstance(value, str) and not value.strip()):
            continue
        value = value if isinstance(value, str | int | float) and not hasattr(value, "dtype") else _of_json(value, name, i)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas makes whole numbers floats where one is missing
        if name not in SAMPLING_FIELDS:
            extra[name] = value
            continue
        convert = BY_NAME[name].convert
        try:
            values[name] = convert(value) if convert else value
        except (TypeError, ValueError):
            expected = getattr(convert, "__name__", "another value")
            raise BadPrompt(f"Row {i}: {name} takes {expected}, not {value!r}.") from None
    return Sampling(**values, extra=extra)


def _of_json(value: Any, name: str, i: int) -> Any:
    """A number of numpy, a list or a dict as JSON has it, with all that is inside."""
    if not isinstance(value, list | tuple | dict | Decimal) and not hasattr(value, "dtype"):
        raise BadPrompt(f"Row {i}: {name} is {an(type(value).__name__)}, which a request cannot hold.")
    from holynb.prompts import templates

    return json.loads(templates.compiled("{{ value|tojson }}").render({"value": value}, where=f" (row {i}: {name})"))


def task_type(value: Any, where: str = "") -> str | None:
    """The word that names a row's task; None where it has none."""
    if where and isinstance(value, list | tuple | dict | set):
        raise BadPrompt(f"{where} should be one word that names the task, not {value!r:.80}.")
    return None if missing(value) or not str(value).strip() else str(value).strip()


def missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, NaT, NA."""
    if value is None or isinstance(value, str):  # nearly all values; saves importing the template engine
        return value is None
    from holynb.prompts import templates

    return templates.missing(value)
