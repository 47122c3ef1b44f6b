"""Jinja2's sandbox with bounds: what a template makes is sized before it is made, and one rendering ends within a time.

    env = BoundedEnvironment(trim_blocks=True)     # arguments as jinja2.Environment takes them
    env.offer(tojson=my_filter)                    # filters of one's own; plain functions go into env.globals
    template = env.from_string(source)
    text = env.rendered(template, {"messages": messages}, seconds=2)

`rendered` raises TooMuch (a jinja2 SecurityError) where a limit is reached, and whatever the template raises. It is safe to call from
several threads at once, and ends by itself: no step in it is longer than about a second. Values are read as Jinja2 reads them; which
methods may be called is a list by type (`methods.py`).
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import wraps
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from holynb.bounded import filters, rewrite
from holynb.bounded.allowance import ITEM_BYTES, MAX_BYTES, MAX_ITEMS, Allowance, TooMuch
from holynb.bounded.formats import BoundedFormat, printf
from holynb.bounded.methods import METHODS, call_method
from holynb.bounded.sizes import CONTAINERS, check_operation, measure

__all__ = ["SECONDS", "BoundedEnvironment", "Stream"]

#: Longest time for one rendering.
SECONDS = 2.0

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
#: Methods of Jinja2's own objects.
_HELPERS: Mapping[type, frozenset[str]] = {LoopContext: frozenset({"changed", "cycle"}), Cycler: frozenset({"next", "reset"})}


class Stream:
    """Values that a filter makes as they are needed, counted one by one."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterator[Any]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._values)


def bounded_range(*args: int) -> range:
    """`range` of at most MAX_ITEMS numbers."""
    numbers = range(*args)
    if len(numbers) > MAX_ITEMS:
        raise TooMuch(f"one step of it makes more than {MAX_ITEMS:,} characters or items")
    return numbers


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An environment whose templates are rendered by `rendered`."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    STEPS_PER_CALL = 10

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"finalize": self.text, **options, "optimized": False})
        self._rendering = threading.local()
        self.globals["range"] = bounded_range
        self.globals.pop("lipsum", None)
        for name in filters.LEFT_OUT:
            self.filters.pop(name, None)
        self.offer(**{**self.filters, **filters.FILTERS})
        tests: dict[str, Any] = {**self.tests, **filters.TESTS}
        self.tests.update({name: self._counted(test) for name, test in tests.items()})
        self.filters.update(
            {
                rewrite.BUILT: self.built,
                rewrite.COMPARED: self.compared,
                rewrite.CONCATENATED: self.concatenated,
                rewrite.COUNTED: self.counted,
                rewrite.SLICED: self.sliced,
                rewrite.SPAN: slice,
            }
        )

    # -- rendering -----------------------------------------------------------------------------------------------------
    def rendered(self, template: Template, scope: Mapping[str, Any], *, seconds: float = SECONDS) -> str:
        """The template's text for these variables. Raises TooMuch beyond a limit, and what the template itself raises."""
        before = getattr(self._rendering, "allowance", None)
        self._rendering.allowance = Allowance(seconds)
        try:
            return self.concat(template.generate(scope))
        except RecursionError:
            raise TooMuch("it calls itself too often") from None
        finally:
            self._rendering.allowance = before

    @property
    def allowance(self) -> Allowance:
        """The limits of the rendering that this thread is in."""
        allowance: Allowance | None = getattr(self._rendering, "allowance", None)
        if allowance is None:
            raise SecurityError("a template is rendered by BoundedEnvironment.rendered")
        return allowance

    def offer(self, **named: Callable[..., Any]) -> None:
        """Add filters, with their steps counted and the results that they yield one by one, too."""
        self.filters.update({name: self._counted(function, name) for name, function in named.items()})

    def admitted(self, value: Any) -> Any:
        """A value that a template came by. Here every value is as good as another; an environment may turn some away."""
        return value

    def argument(self, value: Any) -> Any:
        """A value on its way into a filter, a comparison or a call."""
        if isinstance(value, CONTAINERS):
            self.allowance.spend(measure(value).items // 100)
        return value

    def text(self, value: Any) -> str:
        """What a template prints of a value."""
        if isinstance(value, str):
            return value
        if isinstance(value, CONTAINERS):
            size = measure(value)
            self.allowance.make(size.chars + 2 * size.items, size.longest)
        return str(value)

    def concat(self, pieces: Iterable[str]) -> str:
        """The joined pieces of a template, a macro or a block. They are sized as they come."""
        size, parts = 0, []
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                raise TooMuch(f"it makes more than {MAX_BYTES:,} characters")
        text = "".join(parts)
        if size > MAX_BYTES // 4 and len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise TooMuch(f"it makes more than {MAX_BYTES:,} bytes")
        self.allowance.make(size, size)
        return text

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """One dict for all templates: Jinja2's chain of two is read anew for each rendering, a fifth of its time."""
        return self.globals if d is None else super().make_globals(d)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return rewrite.bounded_tree(super()._parse(source, name, filename))

    # -- what the compiled template calls ---------------------------------------------------------------------------------
    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """What a template loops over."""
        return self.each(values)

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values`, one step each."""
        allowance = self.allowance
        for value in values:
            allowance.spend()
            yield value

    def compared(self, left: Any, name: str, right: Any) -> Any:
        """A comparison, of values that are not larger than can be compared."""
        return self.compare(self.argument(left), name, self.argument(right))

    @staticmethod
    def compare(left: Any, name: str, right: Any) -> Any:
        """The comparison itself."""
        return _COMPARE[name](left, right)

    def concatenated(self, *values: Any) -> str:
        """`a ~ b`."""
        texts = [self.text(value) for value in values]
        lengths = [len(t) for t in texts]
        self.allowance.make(sum(lengths), *lengths)
        return "".join(texts)

    def built(self, value: Any) -> Any:
        """A list, tuple or dict that the template writes: nested ones grow in themselves."""
        items = measure(value).items
        self.allowance.spend(items // 100)
        self.allowance.make(items, item=0)
        return value

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        part = value[start:stop:step]
        if isinstance(part, str | bytes | list | tuple):
            self.allowance.make(len(part), len(value), item=1 if isinstance(part, str | bytes) else ITEM_BYTES)
        return part

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - jinja2's hook
        """An operation whose result is bounded."""
        if operator == "%" and isinstance(left, str):
            return printf(left, right, self.allowance, self.text)
        check_operation(operator, left, right, self.allowance)
        return self.binop_table[operator](left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        owner, name = getattr(value, "__self__", None), getattr(value, "__name__", "")
        if not isinstance(owner, str) or name not in ("format", "format_map"):
            return None
        return BoundedFormat(self, owner, mapping=name == "format_map")

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the list, a function of `globals`, a macro, or what belongs to a loop. Raises SecurityError for others."""
        self.allowance.spend(self.STEPS_PER_CALL)
        if isinstance(obj, LoopContext) and args:
            args = (self.counted(args[0]), *args[1:])
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", type(obj).__name__)
        if self._methods(owner) and not isinstance(obj, Undefined):
            return self.invoke(owner, name, args, {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")})
        if not self._callable(obj, owner, name):
            raise SecurityError(f"a template cannot call such a function ({name})")
        return self._sized(super().call(context, obj, *args, **kwargs))

    def invoke(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """`owner.name(…)` for a plain value. Raises SecurityError where the method is not allowed."""
        if name not in self._methods(owner):
            raise SecurityError(f"a template cannot call {name} of a {type(owner).__name__}")
        if name in ("format", "format_map"):
            return BoundedFormat(self, owner, mapping=name == "format_map")(*args, **kwargs)
        return call_method(owner, name, args, kwargs, self.allowance)

    def _methods(self, owner: Any) -> frozenset[str]:
        """The methods that may be called on a value."""
        kind = type(owner)
        return METHODS.get(kind) or next((METHODS[base] for base in kind.__mro__ if base in METHODS), frozenset())

    def _callable(self, obj: Any, owner: Any, name: str) -> bool:
        if isinstance(obj, Macro | LoopContext | Joiner | BoundedFormat | Undefined) or any(obj is g for g in self.globals.values()):
            return True
        return name in _HELPERS.get(type(owner), ())

    def _counted(self, function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        """A filter or test: a step, with arguments and a result that are sized."""
        reads_text = name in filters.TEXT_FILTERS
        first = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @wraps(function)
        def counting(*args: Any, **kwargs: Any) -> Any:
            self.allowance.spend()
            read = self.text if reads_text else self.argument
            value = [read(v) for v in args[first : first + 1]]
            rest = [self.argument(a) for a in args[first + 1 :]]
            return self._sized(function(*args[:first], *value, *rest, **{k: self.argument(v) for k, v in kwargs.items()}))

        return counting

    def _sized(self, result: Any) -> Any:
        """A result, counted; what is made one by one is counted as it is taken."""
        if isinstance(result, str | bytes):
            self.allowance.make(len(result), len(result))
        elif isinstance(result, CONTAINERS):
            self.allowance.make(measure(result).items, item=ITEM_BYTES)
        elif isinstance(result, Iterator) and not isinstance(result, Stream | LoopContext | Namespace):
            return Stream(self.each(result))
        return result
