"""What a template may hold: an allow-list of types. Everything else is turned into one of them, or refused. Knows no template.

After `admit` a value is a built-in type itself, never a subclass with methods of its own; of an object with fields there are `FieldValues`;
what cannot be a value (a module, a class, a function, a generator, an object of another kind) is `Refused`: any use of it raises.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import sys
import types
import uuid
import zoneinfo
from collections import OrderedDict, deque
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from jinja2 import ChainableUndefined, StrictUndefined, Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Cycler, Joiner, Namespace

from holynb.bounded import Stream
from holynb.prompts import arrays

__all__ = ["SIMPLE", "FieldValues", "Fields", "Method", "Missing", "Refused", "TemplateRow", "admit", "instead", "lacking", "missing"]


def missing(value: Any) -> bool:
    """None, NaN, NaT or NA."""
    if value is None:
        return True
    kind = type(value)  # an object may say of itself that it is of another class
    if issubclass(kind, float):
        return bool(float.__ne__(value, value))
    if issubclass(kind, str | int | list | dict):
        return False
    if issubclass(kind, Decimal):
        return Decimal.is_nan(value)
    if kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return value.dtype.kind in "fcmM" and bool(value != value)  # noqa: PLR0124 - NaN is the one value that is not itself
    return kind.__name__ in ("NaTType", "NAType")


class TemplateRow(dict[str, Any]):
    """One row's columns, for names that are no identifiers: `row["unit price"]`."""


class Fields(tuple[Any, ...]):  # noqa: SLOT001 - the names differ from one to the next
    """A named tuple: its values, and their names."""

    names: tuple[str, ...] = ()


class FieldValues:
    """The fields of an object, by name. `plain`: what it is as a plain value, None where it has to be read by its fields."""

    __slots__ = ("fields", "kind", "plain")

    def __init__(self, kind: str, fields: Mapping[str, Any], plain: Any = None) -> None:
        self.kind, self.fields, self.plain = kind, fields, plain


def lacking(called: str, by: str) -> str:
    """The reason why a missing value is refused, with what to do. `by`: what would make a text of it."""
    some = called if called.isidentifier() else "x"
    return f"{called} is missing, and {by} takes a value: write {some}|default(…), or {{% if {some} is not none %}}"


class Missing(ChainableUndefined):
    """A missing value: renders empty; is false, none and undefined (so `default` applies); arithmetic with it is missing too.

    `called`: the column or key that it was read from, for a message; "a value" where that is not known.
    """

    __slots__ = ("called",)

    def __init__(self, called: str = "a value") -> None:
        super().__init__()
        self.called = called

    def _propagate(self, *_: Any, **__: Any) -> Missing:
        return self

    def _false(self, _: Any) -> bool:
        return False

    def _concatenate(self, other: Any) -> Any:
        return other if isinstance(other, str) else self

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Missing)

    def __hash__(self) -> int:
        return hash(None)

    def __format__(self, spec: str) -> str:
        if spec:
            raise SecurityError(lacking(self.called, f"{{:{spec}}}"))
        return ""

    __call__ = __neg__ = __pos__ = __abs__ = __round__ = _propagate  # type: ignore[assignment]  # undefined ones raise
    __add__ = __radd__ = _concatenate
    __sub__ = __rsub__ = __mul__ = __rmul__ = _propagate  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _propagate  # type: ignore[assignment]
    __mod__ = __rmod__ = __pow__ = __rpow__ = _propagate  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _false  # type: ignore[assignment]


class Refused(StrictUndefined):
    """What a template may not read. Any use raises the reason; only `is defined` and `default` may ask about it."""

    __slots__ = ()

    def __init__(self, reason: str) -> None:
        super().__init__(reason, exc=SecurityError)


class Method(StrictUndefined):
    """A method of an admitted value, to be called at once. Any other use raises."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(f"{name} is a method: write {{{{ ….{name}() }}}}", exc=SecurityError)
        self.owner, self.name = owner, name


def instead(what: str) -> str:
    """The reason of a refusal, with what to do."""
    return f"{what}: compute it in the cell above, e.g. x = …, and write {{{{ x }}}}"


#: Types that are printed as they are.
SIMPLE: frozenset[type] = frozenset({str, int, float, bool})
_EXACT = SIMPLE | {
    *(bytes, complex, list, tuple, dict, set, frozenset, range, type({}.keys()), type({}.values()), type({}.items())),
    *(dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone, zoneinfo.ZoneInfo, Decimal, Fraction, uuid.UUID),
    *(arrays.Accessor, arrays.Indexer, TemplateRow, Fields, FieldValues, Stream, Missing, Refused, Method),
    *(Namespace, Macro, LoopContext, Cycler, Joiner),
}


def admit(value: Any, name: str = "a value") -> Any:
    """The value as a template may hold it: `Missing` where it is missing, `Refused` where it is no value. `name` is for the reason."""
    kind = type(value)
    if kind in _EXACT:
        return Missing(name) if (kind is float or kind is Decimal) and missing(value) else value
    if issubclass(kind, Undefined):
        return value
    if missing(value):
        return Missing(name)
    admitted = _converted(value)
    return Refused(_reason(name, kind)) if admitted is None else admitted


_KINDS = (
    ("a module", (types.ModuleType,)),
    ("a class", (type,)),
    ("a function", (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType)),
    ("a generator", (types.GeneratorType,)),
)


def _described(kind: type) -> str:
    return next((name for name, kinds in _KINDS if issubclass(kind, kinds)), f"an object ({kind.__name__})")


def _reason(name: str, kind: type) -> str:
    """Why an object is refused. Where it is of a library that gives pandas' objects, these are what to use."""
    room = kind.__module__.partition(".")[0]
    if not hasattr(kind, "to_pandas") or room == "pandas":
        return instead(f"{name} is {_described(kind)}, and a template reads values only")
    x = name if name.isidentifier() else "x"
    return f"{name} is an object ({room}.{kind.__name__}), and a template reads values only: write {x} = {x}.to_pandas() in the cell above"


def _converted(value: Any) -> Any:
    """The value as one of the listed types; None where it is none of them."""
    kind = type(value)
    if issubclass(kind, enum.Enum):
        fields = {n: _stored(value).get(f"_{n}_") for n in ("name", "value")}
        plain = fields["value"]  # as JSON's libraries write it
        return FieldValues(kind.__name__, fields, None if isinstance(admit(plain), Undefined | FieldValues) else plain)
    if (name := arrays.dtype_name(value)) is not None:
        return FieldValues("dtype", {"name": name}, name)
    if (array := arrays.converted(value)) is not None:
        return array if arrays.kind_of(array) else admit(array)
    if issubclass(kind, pathlib.PurePath):
        return _path(value)
    return _builtin(value, kind) if issubclass(kind, _BUILTINS) else _record(value, kind)


_BUILTINS = (str, bytes, int, float, list, tuple, dict, set, frozenset, deque, dt.date, Decimal)


def _builtin(value: Any, kind: type) -> Any:
    """A subclass of a built-in type as that type, read by the type's own methods."""
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, bytes):
        return bytes.__getitem__(value, slice(None))
    if issubclass(kind, int | float):
        return int.__int__(value) if issubclass(kind, int) else float.__float__(value)
    if issubclass(kind, tuple):
        return _tuple(value)
    if issubclass(kind, dict):
        return dict(OrderedDict.items(value) if type(value) is OrderedDict else dict.items(value))
    if issubclass(kind, list | deque):
        return list(list.__iter__(value) if issubclass(kind, list) else deque.__iter__(value))
    if issubclass(kind, set | frozenset):
        return frozenset(set.__iter__(value) if issubclass(kind, set) else frozenset.__iter__(value))
    if issubclass(kind, dt.datetime):
        return dt.datetime.combine(dt.datetime.date(value), dt.datetime.timetz(value))
    return dt.date.fromordinal(dt.date.toordinal(value)) if issubclass(kind, dt.date) else Decimal(value)


def _tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    names = getattr(type(value), "_fields", None)
    if not isinstance(names, tuple):
        return tuple(tuple.__iter__(value))
    fields = Fields(tuple.__iter__(value))
    fields.names = tuple(str(n) for n in names)
    return fields


def _path(value: pathlib.PurePath) -> FieldValues:
    text = pathlib.PurePath.__str__(value)
    path = pathlib.PurePath(text)
    fields = {"name": path.name, "stem": path.stem, "suffix": path.suffix, "suffixes": path.suffixes, "parts": path.parts}
    return FieldValues("path", {**fields, "parent": text if path.parent == path else path.parent}, text)


def _record(value: Any, kind: type) -> FieldValues | None:
    """The fields of a data class, a pydantic model, an attrs class or a SimpleNamespace, read without running code of it."""
    stored = _stored(value)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, (pydantic.BaseModel, *_old_models())):
        names: Any = [n for n in (*stored, *(_slot(value, "__pydantic_extra__") or {})) if not n.startswith("_")]
        stored = {**(_slot(value, "__pydantic_extra__") or {}), **stored}
    elif dataclasses.is_dataclass(kind):
        names = [f.name for f in dataclasses.fields(kind)]
    elif isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
        names = [a.name for a in attributes]
    elif issubclass(kind, types.SimpleNamespace):
        names = list(stored)
    else:
        return None
    return FieldValues(kind.__name__, {n: stored[n] if n in stored else _slot(value, n) for n in names if not n.startswith("_")})


def _old_models() -> tuple[type, ...]:
    """Pydantic's models of version 1, which version 2 still offers."""
    old = sys.modules.get("pydantic.v1")
    return (old.BaseModel,) if old is not None else ()


def _stored(value: Any) -> dict[str, Any]:
    try:
        stored = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return dict(stored) if isinstance(stored, dict) else {}


def _slot(value: Any, name: str) -> Any:
    """What a slot holds; None for anything but a slot, such as a property."""
    slot = next((vars(k)[name] for k in type(value).__mro__ if name in vars(k)), None)
    if not isinstance(slot, types.MemberDescriptorType):
        return None
    try:
        return slot.__get__(value)
    except AttributeError:
        return None
