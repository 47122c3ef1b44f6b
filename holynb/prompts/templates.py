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

from jinja2 import ChainableUndefined, StrictUndefined, Template, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holynb.errors import BadPrompt, closest

__all__ = ["MAX_CHARS", "Compiled", "TemplateRow", "compiled", "missing", "plain"]

#: Limits of one rendering, about a second of work. A step is one iteration of a loop; a call counts as STEPS_PER_CALL.
MAX_CHARS = 20_000_000
MAX_STEPS = 1_000_000
STEPS_PER_CALL = 10
#: Largest result of a power, in bits.
MAX_POWER_BITS = 100_000

#: Types whose methods a template may call: those that change a list or a dict are refused by the immutable sandbox.
READABLE_TYPES = (str, bytes, numbers.Number, Decimal, list, tuple, dict, set, frozenset, dt.date, dt.time, dt.timedelta, uuid.UUID)
#: Methods of pandas objects that run code passed to them.
PANDAS_CODE_METHODS = frozenset({"agg", "aggregate", "apply", "applymap", "eval", "map", "pipe", "query", "transform", "assign"})
PADDING_METHODS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})


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


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose size arguments are bounded, so that it cannot fill the memory."""

    def wrapped(value: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_sizes(args, kwargs)
        return function(value, *args, **kwargs)

    return wrapped


def _refuse_sizes(args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    if any(isinstance(a, int) and a > MAX_CHARS for a in (*args, *kwargs.values())):
        raise SecurityError(f"the text is longer than {MAX_CHARS:,} characters")


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON that is not escaped for HTML and keeps non-ASCII characters."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=lambda v: None if isinstance(v, Missing) else str(v))


class Sandbox(ImmutableSandboxedEnvironment):
    """The one environment. `steps_left` is the number of steps that the current rendering may still take."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            comment_start_string="{{#",
            comment_end_string="#}}",
            finalize=lambda value: "" if missing(value) else value,
        )
        self.steps_left = MAX_STEPS
        del self.globals["lipsum"]
        for name in ("int", "float", "format", "round"):
            self.filters[name] = _unless_missing(self.filters[name])
        for name in ("center", "indent", "batch", "slice"):
            self.filters[name] = _bounded(self.filters[name])
        self.filters.update(tojson=_to_json, counted=self.counted)
        self.tests["none"] = lambda value: value is None or isinstance(value, Missing)

    def spend(self, cost: int = 1) -> None:
        self.steps_left -= cost
        if self.steps_left < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} steps. Is there a loop that never ends?")

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values`, one step each; every `for` of a template iterates over this."""
        for value in values:
            self.spend()
            yield _value(value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, TemplateRow) and attribute in obj:
            return _value(obj[attribute])
        return _value(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _value(super().getitem(obj, argument))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*` and `**`, with bounded results."""
        if isinstance(left, Missing) or isinstance(right, Missing):
            return NOTHING
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_POWER_BITS:
            raise SecurityError("the number is too large")
        for sequence, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(times, int) and hasattr(sequence, "__len__") and len(sequence) * times > MAX_CHARS:
                raise SecurityError(f"the text is longer than {MAX_CHARS:,} characters")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call methods that only read. Raises SecurityError for functions of the notebook."""
        self.spend(STEPS_PER_CALL)
        if isinstance(obj, Undefined) and not isinstance(obj, Missing):
            return super().call(context, obj, *args, **kwargs)  # says which name is undefined, or what is not allowed
        name = getattr(obj, "__name__", type(obj).__name__)
        if not self._only_reads(obj, name, bool(args or kwargs)):
            raise SecurityError(f"a template reads values and calls no functions ({name}). Compute it in a cell above and use the variable")
        if name in PADDING_METHODS:
            _refuse_sizes(args, kwargs)
        return _value(super().call(context, obj, *args, **kwargs))

    def _only_reads(self, obj: Any, name: str, has_arguments: bool) -> bool:
        if isinstance(obj, Macro | Missing | LoopContext) or any(obj is g for g in self.globals.values()):
            return True
        # The sandbox wraps str.format to check its fields.
        owner = getattr(obj, "__self__", getattr(getattr(obj, "__wrapped__", None), "__self__", None))
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
            for loop in list(tree.find_all(nodes.For)):
                loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None, lineno=loop.lineno)
            tree.set_environment(env)
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
        _sandbox().steps_left = MAX_STEPS
        try:
            return "".join(self._pieces({name: _value(scope[name]) for name in self.names if name in scope}))
        except UndefinedError as exc:
            reason = _undefined(str(exc.message), scope, suggestions)
        except RecursionError:
            reason = "The template calls itself too deeply"
        except SecurityError as exc:
            reason = f"The template cannot be rendered: {exc}"
        except Exception as exc:  # noqa: BLE001 - whatever a value of the notebook raises when it is read
            reason = f"The template failed: {type(exc).__name__}: {exc}"
        raise BadPrompt(f"{reason.rstrip('.')}{where}")

    def _pieces(self, scope: Mapping[str, Any]) -> Iterator[str]:
        size = 0
        for piece in self._template.generate(scope):
            yield piece
            size += len(piece)
            if size > MAX_CHARS:
                raise SecurityError(f"it makes more than {MAX_CHARS:,} characters. Is there a loop that never ends?")


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
