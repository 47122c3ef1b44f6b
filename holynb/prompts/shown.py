"""How values are shown, as text in a prompt and as JSON: as a person would write them. Numbers of numpy are numbers, arrays are lists,
nothing is shortened or rounded, and no value shows how Python or pandas keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

from holynb.bounded import CONTAINERS, MAX_ITEMS, Allowance, Stream, TooMuch
from holynb.errors import Portable
from holynb.prompts import array_methods, arrays
from holynb.prompts.datetimes import datetime_text
from holynb.prompts.values import SIMPLE, FieldValues, Missing, admit, instead, missing

__all__ = ["MAX_CHARS", "MAX_ROWS", "LongTable", "as_json", "as_literal", "as_text", "json_cell", "text_cell"]

#: Deepest nesting that is shown.
MAX_DEPTH = 100
#: Most rows, and longest text, of a frame, a column or an array that is only named: more is hardly meant, and costs.
MAX_ROWS, MAX_CHARS = 60, 10_000
#: Largest exponent of a Decimal that is written out.
MAX_ZEROS = 30


class Shows(Protocol):
    """The environment that shows a value."""

    @property
    def arrays_are_lists(self) -> bool: ...

    @property
    def allowance(self) -> Allowance: ...

    def text(self, value: Any) -> str: ...


class LongTable(Portable, SecurityError):
    """A frame, column or array that is longer than what goes into a prompt by its name alone."""

    def __init__(self, value: Any, extent: str, most: str) -> None:
        self.value, self.kind = value, str(arrays.kind_of(value)).replace("series", "column")
        self.extent, self.most = extent, most
        super().__init__(self.advice())

    def advice(self, name: str | None = None) -> str:
        """What to write. `name`: what the template calls it."""
        this, what = name or "….", f"{{{{ {name} }}}}" if name else f"The {self.kind}"
        head = f"{what} has {self.extent}, and only up to {self.most} go in by name alone"
        if self.kind == "array":
            ways = f"{{{{ {this}.tolist() }}}} for all of it or {{{{ {this}[:5] }}}} for its first ones (of a frame .to_csv(index=False), .head())"
        else:
            ways = f"{{{{ {this}.to_csv(index=False) }}}} for all of it or {{{{ {this}.head() }}}} for its first rows"
        return f"{head}: write {ways}".replace("….", "…")


class _Bare(str):
    """A number that is written without quotes in a list."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Set(list[Any]):
    """A set's values in an order that is the same in every kernel."""

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}"


# -- text ----------------------------------------------------------------------------------------------------------------
def as_text(value: Any, env: Shows) -> str:
    """The text of an admitted value that is neither a plain text or number nor a list. Raises SecurityError for what is none."""
    if isinstance(value, Undefined):
        return str(value)
    kind = arrays.kind_of(value)
    if kind in ("frame", "series"):
        _check_rows(value)
        return _checked(value, array_methods.printed(value, env.allowance, lambda cell: text_cell(cell, env)))
    if isinstance(value, FieldValues):
        if value.plain is None:
            raise SecurityError(f"{value.kind} is an object: name its fields, for example {{{{ ….{next(iter(value.fields), 'name')} }}}}")
        return env.text(value.plain)
    if isinstance(value, Stream):
        raise SecurityError("a filter gives its values one by one: end it with |list or |join(', ')")
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and abs(value.adjusted()) <= MAX_ZEROS else str(value)
    if kind in ("number", "moment"):
        return datetime_text(value, env.text)
    if not type(value).__module__.startswith(("jinja2", "holynb")):
        return str(value)
    raise SecurityError(instead(f"{type(value).__name__} is no text"))


def text_cell(value: Any, env: Shows) -> Any:
    """A cell of a frame that is printed as text; missing ones are pandas' affair."""
    return value if type(value) in SIMPLE or missing(value) else env.text(value)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise SecurityError(instead("bytes that are not UTF-8 are not text")) from None


def _check_rows(value: Any) -> None:
    if len(value) > MAX_ROWS:
        raise LongTable(value, f"{len(value):,} rows", f"{MAX_ROWS} rows")


def _checked(value: Any, text: str) -> str:
    if len(text) > MAX_CHARS:
        raise LongTable(value, f"{len(text):,} characters", f"{MAX_CHARS:,} characters")
    return text


def as_literal(value: Any, env: Shows) -> Any:
    """A list or dict of plain values, to be printed as Python prints it."""
    return _plain(value, env, _leaf, 0)


def _leaf(value: Any, env: Shows) -> Any:
    if isinstance(value, Missing):
        return None
    if isinstance(value, FieldValues) and value.plain is not None:
        return _plain(value.plain, env, _leaf, 0)
    text = env.text(value)
    return _Bare(text) if isinstance(value, Decimal | complex) else text


# -- JSON ----------------------------------------------------------------------------------------------------------------
def as_json(value: Any, env: Shows) -> Any:
    """A value of which `json` makes its text: missing values are null, the rows of a frame are objects."""
    return _plain(value, env, _json_leaf, 0)


def json_cell(value: Any, env: Shows) -> Any:
    """A cell of a frame that is printed as JSON."""
    return value if type(value) in SIMPLE or missing(value) else as_json(value, env)


def _json_leaf(value: Any, env: Shows) -> Any:
    if isinstance(value, Missing):
        return None
    if isinstance(value, FieldValues):
        return as_json(value.fields if value.plain is None else value.plain, env)
    if isinstance(value, Decimal):
        return _json_number(value, env)
    if arrays.kind_of(value) == "frame":
        return _records(value, env)
    return as_json(list(value), env) if isinstance(value, Stream) else env.text(value)


def _json_number(value: Decimal, env: Shows) -> Any:
    """A Decimal as a number, or as its digits where a number of JSON would lose some of them."""
    if not value.is_finite() or abs(value.adjusted()) > MAX_ZEROS:
        return env.text(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else env.text(value)


def _records(frame: Any, env: Shows) -> list[dict[Any, Any]]:
    """The rows of a frame by column: pandas' own would give what it keeps, and of two columns of a name one."""
    arrays.check_size(frame)
    names = array_methods.listed(frame.columns, env.allowance)
    columns = [array_methods.listed(frame.iloc[:, place], env.allowance) for place in range(len(names))]
    if len(set(names)) < len(names):
        raise SecurityError(instead("two columns of the frame have the same name"))
    return [as_json(dict(zip(names, row, strict=True)), env) for row in zip(*columns, strict=True)]


# -- both ----------------------------------------------------------------------------------------------------------------
def _plain(value: Any, env: Shows, leaf: Callable[[Any, Shows], Any], depth: int) -> Any:
    """The value with every part admitted, arrays as lists and numpy's numbers as numbers; `leaf` shows all others."""
    kind = type(value)
    if kind in SIMPLE and value == value:  # noqa: PLR0124 - NaN is the one value that is not itself
        endless = kind is float and leaf is _json_leaf and math.isinf(value)  # JSON has no such number
        return ("Infinity" if value > 0 else "-Infinity") if endless else value
    if missing(value):
        return None
    env.allowance.spend()
    if depth > MAX_DEPTH:
        raise SecurityError(f"a value is nested more than {MAX_DEPTH} levels deep")
    value = admit(value, "an item")
    if type(value) in SIMPLE and kind not in SIMPLE:  # a bool of numpy, a number of a type of its own
        return _plain(value, env, leaf, depth)
    array = arrays.kind_of(value)
    if array in ("series", "index", "array"):
        return _listed(value, env, leaf, depth)
    if array == "number" and value.dtype.kind in "iuf":
        return _plain(float(str(value)) if value.dtype.kind == "f" else int(value), env, leaf, depth)
    if isinstance(value, dict):
        return _dict(value, env, leaf, depth)
    if isinstance(value, range) and len(value) > MAX_ITEMS:
        raise TooMuch(f"a range in it has more than {MAX_ITEMS:,} numbers")
    if isinstance(value, (*CONTAINERS, range)):
        return _items(value, env, leaf, depth)
    return leaf(value, env)


def _items(value: Any, env: Shows, leaf: Callable[[Any, Shows], Any], depth: int) -> Any:
    plain: list[Any] = [_plain(v, env, leaf, depth + 1) for v in value]
    if isinstance(value, set | frozenset):
        # Texts are hashed otherwise in each kernel, and the run log would not know the prompt again.
        plain = sorted(plain, key=lambda v: (isinstance(v, str), v if isinstance(v, int | float) else 0, type(v).__name__, str(v)))
        return plain if leaf is _json_leaf else _Set(plain)
    return tuple(plain) if leaf is _leaf and isinstance(value, tuple) else plain


def _listed(value: Any, env: Shows, leaf: Callable[[Any, Shows], Any], depth: int) -> Any:
    """An array or a column as a list. What is only named, and not made a list or JSON in the template, is shown where it is short."""
    bounded = leaf is _leaf and arrays.kind_of(value) != "index" and not env.arrays_are_lists
    if bounded:
        _check_rows(value)
    plain = _plain(array_methods.listed(value, env.allowance), env, leaf, depth)
    if bounded:
        _checked(value, str(plain))
    return plain


def _dict(value: dict[Any, Any], env: Shows, leaf: Callable[[Any, Shows], Any], depth: int) -> dict[Any, Any]:
    plain = {_key(k, env, leaf): _plain(v, env, leaf, depth + 1) for k, v in value.items()}
    if len(plain) < len(value):
        raise SecurityError(instead("two keys of a dict are written in the same way"))
    return plain


def _key(key: Any, env: Shows, leaf: Callable[[Any, Shows], Any]) -> Any:
    """A dict's key, for JSON as the text that `json` makes of it."""
    kind = type(key)
    if leaf is _leaf:
        if kind in SIMPLE and key == key:  # noqa: PLR0124 - NaN is the one value that is not itself
            return key
        return _plain(key, env, leaf, 1) if isinstance(key, tuple) or missing(key) else env.text(key)
    if kind is str:
        return key
    if missing(key):
        return "null"
    return str(key).lower() if kind is bool else env.text(key)
