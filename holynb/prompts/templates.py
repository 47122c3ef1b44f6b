"""Prompt templates: strict, sandboxed Jinja2 that reads values and changes nothing. Knows no rows, no options, no DataFrame.

Beyond Jinja2's sandbox: functions of the notebook are not called, loops, calls and sizes are bounded, and a missing value (None, NaN,
NaT, NA) renders as nothing wherever it occurs, behind a filter too. Comments are `{{# … #}}`, because a prompt may well hold `{#1}`.
"""

from __future__ import annotations

import datetime as dt
import json
import numbers
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jinja2 import ChainableUndefined, StrictUndefined, Template, TemplateSyntaxError, Undefined, UndefinedError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro

from holynb.bounded import BoundedEnvironment
from holynb.bounded.formats import BoundedFormat
from holynb.errors import BadPrompt, closest

__all__ = ["Compiled", "TemplateRow", "compiled", "missing", "plain"]

#: Types whose methods a template may call: those that change a list or a dict are refused by the immutable sandbox.
READABLE_TYPES = (str, bytes, numbers.Number, Decimal, list, tuple, dict, set, frozenset, dt.date, dt.time, dt.timedelta, uuid.UUID)
#: Methods of pandas objects that run code passed to them.
PANDAS_CODE_METHODS = frozenset({"agg", "aggregate", "apply", "applymap", "eval", "map", "pipe", "query", "transform", "assign"})


def missing(value: Any) -> bool:
    """None, NaN, NaT or NA."""
    if value is None:
        return True
    if isinstance(value, float):
        return value != value  # noqa: PLR0124 - NaN is the one value that is not itself
    if isinstance(value, str | int | list | dict):
        return False
    if isinstance(value, Decimal):
        return value.is_nan()
    kind = type(value)
    if kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return bool(value != value)  # noqa: PLR0124
    return kind.__name__ in ("NaTType", "NAType")


class TemplateRow(dict[str, Any]):
    """One row's columns, for names that are no identifiers: `row["unit price"]`."""


class Missing(ChainableUndefined):
    """A missing value: renders empty; is false, none and undefined (so `default` applies); arithmetic with it is missing too."""

    __slots__ = ()

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
        return ""

    __call__ = __neg__ = __pos__ = __abs__ = __round__ = _propagate  # type: ignore[assignment]  # undefined ones raise
    __add__ = __radd__ = _concatenate
    __sub__ = __rsub__ = __mul__ = __rmul__ = _propagate  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _propagate  # type: ignore[assignment]
    __mod__ = __rmod__ = __pow__ = __rpow__ = _propagate  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _false  # type: ignore[assignment]


NOTHING = Missing()


def _value(value: Any) -> Any:
    return NOTHING if missing(value) else value


def _unless_missing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that leaves missing values alone (Jinja2's `int` would make them 0)."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return NOTHING if any(missing(a) or isinstance(a, Missing) for a in args) else function(*args, **kwargs)

    return wrapped


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON that is not escaped for HTML and keeps non-ASCII characters."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=lambda v: None if isinstance(v, Missing) else str(v))


class Sandbox(BoundedEnvironment):
    """The one environment."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            comment_start_string="{{#",
            comment_end_string="#}}",
        )
        for name in ("int", "float", "format", "round", "filesizeformat"):
            self.filters[name] = _unless_missing(self.filters[name])
        self.offer(tojson=_to_json)
        self.tests["none"] = lambda value: value is None or isinstance(value, Missing)

    def text(self, value: Any) -> str:
        return "" if missing(value) else super().text(value)

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        return map(_value, super().counted(values))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, TemplateRow) and attribute in obj:
            return _value(obj[attribute])
        return _value(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _value(super().getitem(obj, argument))

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:
        """An operation; with a missing value it is missing too."""
        if operator != "+" and (isinstance(left, Missing) or isinstance(right, Missing)):
            return NOTHING
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call methods that only read. Raises SecurityError for functions of the notebook."""
        if isinstance(obj, Undefined) and not isinstance(obj, Missing):
            return super().call(context, obj, *args, **kwargs)  # says which name is undefined, or what is not allowed
        name = getattr(obj, "__name__", type(obj).__name__)
        if not self._only_reads(obj, name, bool(args or kwargs)):
            raise SecurityError(f"a template reads values and calls no functions ({name}). Compute it in a cell above and use the variable")
        return _value(super().call(context, obj, *args, **kwargs))

    def _callable(self, *_: Any) -> bool:
        return True

    def _only_reads(self, obj: Any, name: str, has_arguments: bool) -> bool:
        if isinstance(obj, Macro | Missing | LoopContext | BoundedFormat) or any(obj is g for g in self.globals.values()):
            return True
        owner = getattr(obj, "__self__", None)
        home = type(owner).__module__
        if isinstance(owner, (*READABLE_TYPES, LoopContext)) or home == "jinja2.utils":
            return True
        if home.partition(".")[0] not in ("pandas", "numpy"):
            return False
        return name not in PANDAS_CODE_METHODS and not (has_arguments and name.startswith(("to_", "tofile", "dump", "save")))


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


def plain(text: str) -> bool:
    """Whether `text` has nothing to render."""
    return "{{" not in text and "{%" not in text


class Compiled:
    """A compiled template. `names` are the variables that it reads."""

    def __init__(self, text: str) -> None:
        env = _sandbox()
        try:
            tree = env.parse(text)
            self.names: Collection[str] = meta.find_undeclared_variables(tree)
            self._template: Template = env.from_string(tree)
        except TemplateSyntaxError as exc:
            hint = closest(str(exc.message).rpartition("named '")[2].strip("'."), env.filters) if "No filter" in str(exc.message) else ""
            reason = f"line {exc.lineno}: {str(exc.message).rstrip('.')}"
        except RecursionError:
            reason, hint = "it is nested too deeply", ""
        else:
            return
        raise BadPrompt(f"The template does not parse, {reason}.{hint} --raw sends the body untouched.")

    def render(self, scope: Mapping[str, Any], suggestions: Iterable[str] = (), where: str = "") -> str:
        """The rendered text. `suggestions`: names to propose for an undefined one; `where`: the row, for messages. Raises BadPrompt."""
        try:
            return _sandbox().rendered(self._template, {name: _value(scope[name]) for name in self.names if name in scope})
        except UndefinedError as exc:
            reason = _undefined(str(exc.message), scope, suggestions)
        except SecurityError as exc:
            reason = f"The template cannot be rendered: {exc}"
        except Exception as exc:  # noqa: BLE001 - whatever a value of the notebook raises when it is read
            reason = f"The template failed: {type(exc).__name__}: {exc}"
        raise BadPrompt(f"{reason.rstrip('.')}{where}")


@lru_cache(maxsize=64)
def compiled(text: str) -> Compiled:
    """The compiled template, cached. Raises BadPrompt where it does not parse."""
    return Compiled(text)


def _undefined(message: str, scope: Mapping[str, Any], suggestions: Iterable[str]) -> str:
    """The message for an undefined name or field, with the closest one that exists."""
    head, separator, name = message.rstrip("'").rpartition("' has no attribute '")
    if separator and head.endswith("TemplateRow object"):
        return f"There is no column {name!r}.{closest(name, [str(k) for k in scope['row']])}"
    if separator:
        return f"There is no {name!r} in the {head.strip(chr(39))}."
    if not message.endswith("is undefined"):
        return f"The template failed: {message}"
    name = message.split("'")[1]
    hint = closest(name, [k for k in suggestions if not k.startswith("_")])
    suggestion = hint.removeprefix(" Did you mean ").removesuffix("?")
    if hint and not suggestion.isidentifier():
        hint = f' Did you mean row["{suggestion}"]?'
    return f"There is no column or variable {name!r} for {{{{ {name} }}}}.{hint}"
