"""What converts the value of an option: each takes what was typed or given, and raises ValueError with what it should be.

Standard library only. The name of a converter is what an error says the option takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from holynb.errors import BadOption
from holynb.types import THINK_LEVELS

__all__ = [
    "chunk_size",
    "dollars",
    "duration",
    "duration_text",
    "integer",
    "key_value",
    "names",
    "number",
    "one_of",
    "several_of",
    "texts",
    "think",
    "whole_number",
]

#: More tokens than any model thinks: above it, a number is a slip of the pen.
MAX_THINK_TOKENS = 100_000_000
#: What `--think` takes.
THINK_VALUES = f"{', '.join(THINK_LEVELS)}, or a number of tokens from 1"
#: The units of a duration, in seconds.
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}


def whole_number(value: Any) -> int:
    """`50000`, `50_000` or `50,000`. Raises ValueError, also for `5,0`: nobody groups so, and 50 may not be what was meant."""
    text = str(value).strip()
    return int(text.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+", text) else text)


def integer(low: int) -> Callable[[Any], int]:
    """A converter for integers of at least `low`."""

    def convert(value: Any) -> int:
        parsed = whole_number(value) if not isinstance(value, bool) else low - 1
        if parsed < low:
            raise ValueError(f"a whole number from {low}")
        return parsed

    convert.__name__ = f"a whole number from {low}"
    return convert


def number(low: float, high: float = math.inf, *, open_low: bool = False) -> Callable[[Any], float]:
    """A converter for finite numbers between `low` and `high`."""
    expected = f"a number {'above' if open_low else 'from'} {low:g}" + (f" to {high:g}" if high < math.inf else "")

    def convert(value: Any) -> float:
        parsed = float(value) if not isinstance(value, bool) else math.nan
        if not math.isfinite(parsed) or parsed < low or parsed > high or (open_low and parsed == low):
            raise ValueError(expected)
        return parsed

    convert.__name__ = expected
    return convert


def dollars(value: Any) -> float:
    """Dollars from 0, also as `$0.50`."""
    return number(0)(value.strip().removeprefix("$") if isinstance(value, str) else value)


dollars.__name__ = "a number from 0"


def duration(value: Any) -> float:
    """Seconds from `90`, `90s`, `15m`, `2h`, `1h30m` or `1d`."""
    text = str(value).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", "", text).strip():
        raise ValueError("a duration such as 90, 90s, 15m or 1h30m")
    seconds = sum(float(n) * _UNITS[u] for n, u in parts)
    if not 0 < seconds < math.inf:
        raise ValueError("a duration above zero")
    return seconds


def duration_text(seconds: float) -> str:
    """`30d`, `90s`, `0.5s`: what `duration` reads as exactly these seconds, which are finite and above zero."""
    for unit in ("d", "h", "m"):
        if not seconds % _UNITS[unit] and float(count := int(seconds // _UNITS[unit])) * _UNITS[unit] == seconds:
            return f"{count}{unit}"
    # Never in scientific notation, which nobody types as a duration.
    return f"{int(seconds) if seconds == int(seconds) else f'{Decimal(repr(float(seconds))):f}'}s"


def key_value(values: Any) -> dict[str, Any]:
    """`["k=v", …]` or a mapping. Values are JSON where they parse as JSON, else text."""
    import json

    if isinstance(values, Mapping):
        return dict(values)
    pairs: dict[str, Any] = {}
    for item in _several(values, "KEY=VALUE"):
        name, equals, value = str(item).partition("=")
        if not equals or not name.strip():
            raise BadOption(f"-p takes KEY=VALUE, such as -p top_k=20, not {item!r}.")
        try:
            pairs[name.strip()] = json.loads(value)
        except ValueError:
            pairs[name.strip()] = value
    return pairs


def names(value: Any) -> tuple[str, ...]:
    """`a,b` or a sequence of names."""
    parts = value.split(",") if isinstance(value, str) else _several(value, "names, a,b or a list of them")
    return tuple(s for p in parts if (s := str(p).strip()))


def texts(value: Any) -> tuple[str, ...]:
    """One text or several, unchanged."""
    return tuple(str(v) for v in _several(value, "one text, or a list of texts"))


def _several(value: Any, expected: str) -> Iterable[Any]:
    """A text as a list of one, an iterable as it is. Raises ValueError(expected) for anything else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise ValueError(expected)  # noqa: TRY004 - converters raise ValueError for any invalid value
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    """A converter for a closed set of words."""

    def convert(value: Any) -> str:
        if str(value) not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    convert.__name__ = f"one of {', '.join(words)}"
    return convert


def several_of(*words: str) -> Callable[[Any], tuple[str, ...]]:
    """A converter for some of a closed set of words, in the order given, each once."""

    def convert(value: Any) -> tuple[str, ...]:
        given = names(value) if isinstance(value, str | list | tuple) else ()
        if not given or len(set(given)) != len(given) or not set(given) <= set(words):
            raise ValueError(convert.__name__)
        return given

    convert.__name__ = f"{', '.join(words)}, or several of them in order such as {','.join(words[:2])}"
    return convert


def chunk_size(value: Any) -> str:
    """`auto`, or a number of tokens."""
    text = str(value).strip()
    if text == "auto":
        return text
    try:
        tokens = whole_number(text) if text.isascii() else 0
    except ValueError:
        tokens = 0
    if tokens < 64:
        raise ValueError("auto, or a number of tokens from 64")
    return str(tokens)


def think(value: Any) -> str | int:
    """A level of thinking, or a number of tokens."""
    if isinstance(value, str) and value.strip() in THINK_LEVELS:
        return value.strip()
    try:
        tokens = integer(1)(value)
    except ValueError:
        tokens = 0
    if not 0 < tokens <= MAX_THINK_TOKENS:
        raise ValueError(THINK_VALUES)
    return tokens


think.__name__ = THINK_VALUES
