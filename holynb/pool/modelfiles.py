"""The JSON of a model's folder, which anybody may have written: bounded and typed where it is read. Knows files and numbers; no models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_object", "read_text", "real", "truth", "whole"]

#: Far above the largest that models have: configurations of some hundred kB, tokenizers of 40 MB.
_MAX_BYTES = 64_000_000


def read_text(path: Path, most: int = _MAX_BYTES) -> str:
    """A text file of at most `most` bytes. Raises ValueError, OSError."""
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it has {size:,} bytes; at most {most:,} are read")
    return path.read_text(encoding="utf-8")


def read_object(path: Path, most: int = _MAX_BYTES) -> dict[str, Any]:
    """A JSON object in a file. Raises ValueError, OSError."""
    try:
        value = json.loads(read_text(path, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004 - a file is wrong, not an argument
    return value


def whole(data: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number of an object. None counts as left out. Raises ValueError, KeyError where it is left out and has no default."""
    value = data.get(name)
    if value is None:
        if default is None:
            raise KeyError(name)
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {_shown(value)} and must be a whole number from {low:,} to {high:,}")
    return value


def real(data: Mapping[str, Any], name: str, low: float, high: float, default: float | None = None) -> float:
    """A finite number of an object, as `whole`."""
    value = data.get(name)
    if value is None:
        if default is None:
            raise KeyError(name)
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} is {_shown(value)} and must be a number from {low:g} to {high:g}")
    return float(value)


def truth(data: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A switch of an object. Raises ValueError."""
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)} and must be true or false")  # noqa: TRY004 - a file is wrong, not an argument
    return value


def _shown(value: Any) -> str:
    """A value as a message shows it: never long."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and value.bit_length() > 100:
        return "a number of more than 30 digits"
    return f"{json.dumps(value):.40}"
