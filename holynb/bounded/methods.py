"""The methods that a template may call on plain values, and what bounds each one that can grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holynb.bounded.allowance import ITEM_BYTES, MAX_ITEMS, Allowance, TooMuch
from holynb.bounded.sizes import measure, whole

__all__ = ["METHODS", "call_method", "check_join"]

_TEXT = """
capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha isascii isdecimal isdigit isidentifier
islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex
rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill
"""

#: Methods by type; none of them changes the value.
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_TEXT.split()),
    bytes: frozenset({"count", "endswith", "find", "hex", "startswith"}),
    bool: frozenset(),
    int: frozenset({"as_integer_ratio", "bit_count", "bit_length", "is_integer"}),
    float: frozenset({"as_integer_ratio", "hex", "is_integer"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    range: frozenset({"count", "index"}),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    set: frozenset({"copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "symmetric_difference", "union"}),
    frozenset: frozenset({"copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "symmetric_difference", "union"}),
}

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"

#: Longest text to search from the right, or set of characters to strip: these take the product of both lengths.
MAX_PRODUCT = 100_000_000

Arguments = tuple[Any, ...]


def call_method(owner: Any, name: str, args: Arguments, kwargs: Mapping[str, Any], allowance: Allowance) -> Any:
    """`owner.name(…)`, an allowed method of a plain value. Raises TooMuch before the result grows beyond what a step may make."""
    for argument in (*args, *kwargs.values()):
        allowance.spend(measure(argument).items // 100)
    if name == "join" and isinstance(owner, str) and args and not isinstance(args[0], str):
        args = (list(args[0]), *args[1:])
    grow = _GROWTH.get(name)
    if grow is not None and isinstance(owner, str | bytes):
        grow(owner, args, kwargs, allowance)
    if name in ("split", "rsplit", "splitlines") and isinstance(owner, str):
        return _split(owner, name, args, kwargs, allowance)
    result = getattr(owner, name)(*args, **kwargs)
    if isinstance(result, str | bytes):
        allowance.make(len(result), len(owner) if isinstance(owner, str | bytes) else 0, item=1 if name not in _GROWTH else 0)
    elif isinstance(result, list | dict | set | frozenset):
        allowance.make(len(result), len(owner), item=ITEM_BYTES)
    return result


def _argument(args: Arguments, kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _padded(text: Any, args: Arguments, kwargs: Mapping[str, Any], allowance: Allowance) -> None:
    allowance.make(max(len(text), whole(_argument(args, kwargs, 0, "width", 0))), len(text))


def _expanded(text: Any, args: Arguments, kwargs: Mapping[str, Any], allowance: Allowance) -> None:
    tabs = whole(_argument(args, kwargs, 0, "tabsize", 8))
    allowance.make(len(text) + text.count("\t") * max(tabs, 0), len(text))


def _replaced(text: Any, args: Arguments, kwargs: Mapping[str, Any], allowance: Allowance) -> None:
    if len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        times = text.count(args[0])
        limit = _argument(args, kwargs, 2, "count", -1)
        times = times if limit < 0 else min(times, limit)
        allowance.make(len(text) + times * (len(args[1]) - len(args[0])), len(text))


def _joined(text: Any, args: Arguments, _: Mapping[str, Any], allowance: Allowance) -> None:
    check_join(text, args[0] if args else (), allowance)


def check_join(separator: str, values: Iterable[Any], allowance: Allowance) -> None:
    """Refuse a join of texts whose result would be too large."""
    if isinstance(values, str):
        allowance.make(len(values) * (len(separator) + 1), len(values))
        return
    lengths = [len(v) for v in values if isinstance(v, str)]
    allowance.make(sum(lengths) + len(separator) * max(len(lengths) - 1, 0), max(lengths, default=0))


def _searched(text: Any, args: Arguments, _: Mapping[str, Any], __: Allowance) -> None:
    if args and isinstance(args[0], str) and len(text) * len(args[0]) > MAX_PRODUCT:
        raise TooMuch("it searches a long text for a long one")


def _split(text: str, name: str, args: Arguments, kwargs: Mapping[str, Any], allowance: Allowance) -> list[str]:
    """`split`, `rsplit` or `splitlines` into at most MAX_ITEMS parts."""
    if name == "splitlines":
        if len(text) > MAX_ITEMS:
            allowance.make(sum(map(text.count, _LINE_ENDS)), item=0)
        parts = text.splitlines(*args, **kwargs)
    else:
        separator, limit = _argument(args, kwargs, 0, "sep", None), _argument(args, kwargs, 1, "maxsplit", -1)
        parts = getattr(text, name)(separator, limit if 0 <= limit <= MAX_ITEMS else MAX_ITEMS)
    allowance.make(len(parts), item=ITEM_BYTES)
    return parts


_GROWTH: Mapping[str, Callable[[Any, Arguments, Mapping[str, Any], Allowance], None]] = {
    "center": _padded,
    "expandtabs": _expanded,
    "join": _joined,
    "ljust": _padded,
    "lstrip": _searched,
    "replace": _replaced,
    "rfind": _searched,
    "rindex": _searched,
    "rjust": _padded,
    "rpartition": _searched,
    "rsplit": _searched,
    "rstrip": _searched,
    "strip": _searched,
    "zfill": _padded,
}
