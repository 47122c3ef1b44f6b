"""How values are shown: as text in a prompt, and as JSON. Numbers of numpy are numbers, arrays are lists, nothing is shortened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

from holynb.bounded import CONTAINERS, Allowance, Stream
from holynb.prompts import array_methods, arrays
from holynb.prompts.values import SIMPLE, FieldValues, Missing, admit, instead, missing

__all__ = ["as_json", "as_literal", "as_text", "json_cell", "text_cell"]

#: Deepest nesting that is shown.
MAX_DEPTH = 100


class Shows(Protocol):
    """The environment that shows a value."""

    @property
    def allowance(self) -> Allowance: ...

    def text(self, value: Any) -> str: ...


def as_text(value: Any, env: Shows) -> str:
    """The text of an admitted value that is neither a plain text or number nor a list. Raises SecurityError for what is none."""
    if isinstance(value, Undefined):
        return str(value)
    kind = arrays.kind_of(value)
    if kind in ("frame", "series"):
        return array_methods.printed(value, env.allowance, lambda cell: text_cell(cell, env))
    if isinstance(value, FieldValues):
        if value.plain is None:
            raise SecurityError(f"{value.kind} is an object: write its fields, for example {{{{ ….{next(iter(value.fields), 'name')} }}}}")
        return str(value.plain)
    if isinstance(value, Stream):
        raise SecurityError("a filter gives its values one by one: end it with |list or |join(', ')")
    if kind in ("number", "moment") or not type(value).__module__.startswith(("jinja2", "holynb")):
        return str(value)
    raise SecurityError(instead(f"{type(value).__name__} is no text"))


def text_cell(value: Any, env: Shows) -> Any:
    """A cell of a frame that is printed as text; missing ones are pandas' affair."""
    return value if type(value) in SIMPLE or missing(value) else env.text(value)


def json_cell(value: Any, env: Shows) -> Any:
    """A cell of a frame that is printed as JSON."""
    return value if type(value) in SIMPLE or missing(value) else as_json(value, env)


def as_literal(value: Any, env: Shows) -> Any:
    """A list or dict of plain values, to be printed as Python prints it."""
    return _plain(value, env, _leaf, 0)


def _leaf(value: Any, env: Shows) -> Any:
    if isinstance(value, Undefined):
        return None if isinstance(value, Missing) else str(value)
    if isinstance(value, FieldValues):
        return env.text(value) if value.plain is None else value.plain
    return env.text(value) if arrays.kind_of(value) in ("frame", "moment", "number") or isinstance(value, Stream) else value


def as_json(value: Any, env: Shows) -> Any:
    """A value of which `json` makes its text: missing values are null, the rows of a frame are objects."""
    return _plain(value, env, _json_leaf, 0)


def _json_leaf(value: Any, env: Shows) -> Any:
    if isinstance(value, Undefined):
        return None if isinstance(value, Missing) else str(value)
    if isinstance(value, FieldValues):
        return as_json(value.fields, env) if value.plain is None else value.plain
    if arrays.kind_of(value) == "frame":
        arrays.check_size(value)
        return as_json(value.to_dict("records"), env)
    return as_json(list(value), env) if isinstance(value, Stream) else env.text(value)


def _plain(value: Any, env: Shows, leaf: Callable[[Any, Shows], Any], depth: int) -> Any:
    """The value with every part admitted, arrays as lists and numpy's numbers as numbers; `leaf` shows all others."""
    kind = type(value)
    if kind in SIMPLE and value == value:  # noqa: PLR0124 - NaN is the one value that is not itself
        return value
    if missing(value):
        return None if leaf is _json_leaf else value
    env.allowance.spend()
    if depth > MAX_DEPTH:
        raise SecurityError(f"a value is nested more than {MAX_DEPTH} levels deep")
    value = admit(value, "an item")
    array = arrays.kind_of(value)
    if array in ("series", "index", "array"):
        value = array_methods.listed(value, env.allowance)
    elif array == "number" and value.dtype.kind in "iuf":
        return float(str(value)) if value.dtype.kind == "f" else int(value)
    if isinstance(value, dict):
        return {_key(k, env, leaf): _plain(v, env, leaf, depth + 1) for k, v in value.items()}
    if isinstance(value, CONTAINERS):
        plain = [_plain(v, env, leaf, depth + 1) for v in value]
        kept = leaf is _leaf and isinstance(value, tuple | set | frozenset)
        return (tuple(plain) if isinstance(value, tuple) else type(value)(plain)) if kept else plain
    return leaf(value, env)


def _key(key: Any, env: Shows, leaf: Callable[[Any, Shows], Any]) -> Any:
    if type(key) in SIMPLE or (leaf is _leaf and isinstance(key, tuple)):
        return key
    return None if missing(key) else env.text(key)
