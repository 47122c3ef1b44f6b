"""The environment that renders prompts: it reads values of the types in `values.py`, calls methods of a list, and changes nothing.

A missing value (None, NaN, NaT, NA) renders as nothing wherever it occurs, behind a filter too. Comments are `{{# … #}}`, because a prompt
may well hold `{#1}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, Undefined, nodes, pass_environment
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.runtime import Context
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from holynb.bounded import CONTAINERS, FILTERS, BoundedEnvironment, check_spec, to_json
from holynb.prompts import array_methods, arrays, reading, shown
from holynb.prompts.missing_values import check_printf, is_gone, of_items, of_numbers
from holynb.prompts.values import SIMPLE, FieldValues, Method, Missing, Refused, admit, instead

__all__ = ["Sandbox"]

_TAGS: Mapping[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.EvalContextModifier: "autoescape",
}
_ARRAYS = frozenset({"array", "frame", "index", "series"})
#: A name that no template can write.
_METHOD = "method "


class _Calls(NodeTransformer):
    """`x.name(…)` asks for the method, `x.name` for what is stored there: a key called items hides no method, nor a method a key."""

    def visit_Call(self, node: nodes.Call) -> nodes.Call:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr):
            name = nodes.Const(node.node.attr, lineno=node.lineno)
            node.node = nodes.Filter(node.node.node, _METHOD, [name], [], None, None, lineno=node.lineno)
        return node


def _read(value: Undefined) -> Any:
    """What a part of an undefined value is: nothing, of a missing one; else its error."""
    return value if isinstance(value, Missing) else str(value)


def _default(value: Any, *args: Any, **kwargs: Any) -> Any:
    """Jinja2's, but a method without its parentheses is no missing value."""
    return str(value) if isinstance(value, Method) else DEFAULT_FILTERS["default"](value, *args, **kwargs)


def _to_json(env: Sandbox, value: Any, indent: Any = None) -> str:
    return to_json(env, shown.as_json(value, env), indent, allow_nan=False)


def _pprint(env: Sandbox, value: Any) -> str:
    return str(FILTERS["pprint"](shown.as_literal(value, env)))


class Sandbox(BoundedEnvironment):
    """The environment of prompts."""

    intercepted_unops = frozenset({"+", "-"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            comment_start_string="{{#",
            comment_end_string="#}}",
        )
        known: dict[str, Any] = {**DEFAULT_FILTERS, **FILTERS}
        self.offer(**{n: of_numbers(n, known[n]) for n in ("abs", "filesizeformat", "float", "format", "int", "round")})
        self.offer(**{n: of_items(n, known[n]) for n in ("max", "min", "sort", "sum")})
        self.offer(default=_default, d=_default)
        self.offer(tojson=pass_environment(_to_json), pprint=pass_environment(_pprint))
        self.filters[_METHOD] = self.method
        self.tests["none"] = is_gone
        tests: dict[str, Any] = {**self.tests}
        self.tests.update({n: of_numbers(n, tests[n]) for n in ("divisibleby", "even", "odd")})
        self.tests.pop("callable", None)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The template's tree. Raises TemplateSyntaxError, for a tag that a prompt does not have, too."""
        tree = super()._parse(source, name, filename)
        for kind, tag in _TAGS.items():
            if (node := next(tree.find_all(kind), None)) is not None:
                raise TemplateSyntaxError(f"a prompt is a single template, without {{% {tag} %}}", node.lineno)
        _Calls().visit(tree)
        tree.set_environment(self)
        return tree

    # -- values ----------------------------------------------------------------------------------------------------------
    def admitted(self, value: Any) -> Any:
        value = admit(value)
        return value.plain if isinstance(value, FieldValues) and value.plain is not None else value

    def argument(self, value: Any) -> Any:
        """A value on its way into a filter or a call: a list where it was an array, of items that are admitted."""
        value = self.admitted(value)
        if type(value) in SIMPLE:
            return value
        if arrays.kind_of(value) in ("array", "index", "series"):
            value = array_methods.listed(value, self.allowance)
        if type(value) in (list, tuple) and not all(type(v) in SIMPLE for v in value):
            value = type(value)([v if v is None or isinstance(v, float) else admit(v, "an item") for v in value])
        return super().argument(value)

    def rendered(self, template: Template, scope: Mapping[str, Any], *, arrays_are_lists: bool = False, **limits: Any) -> str:
        """The text. `arrays_are_lists`: no array of the notebook is among the variables, so that each is a list in a row's cell."""
        self._rendering.arrays_are_lists = arrays_are_lists
        return super().rendered(template, scope, **limits)

    @property
    def arrays_are_lists(self) -> bool:
        """Whether an array is shown however long it is."""
        return bool(getattr(self._rendering, "arrays_are_lists", False))

    def text(self, value: Any) -> str:
        """What a prompt shows of a value. Raises SecurityError for what is none."""
        if type(value) in SIMPLE and value == value:  # noqa: PLR0124 - NaN is the one value that is not itself
            return str(value)
        value = admit(value)
        if isinstance(value, (*CONTAINERS, range)) or arrays.kind_of(value) in ("array", "index"):
            return super().text(shown.as_literal(value, self))
        return shown.as_text(value, self)

    # -- what the compiled template calls -----------------------------------------------------------------------------------
    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """What a template loops over."""
        values = admit(values)
        if isinstance(values, FieldValues | Namespace):
            raise TypeError("a loop takes a list, a text or the items of a dict")
        return self.each(values)

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        if arrays.kind_of(values) in ("index", "series"):
            values = array_methods.listed(values, self.allowance)
        for value in super().each(values):
            item = admit(value, "an item")
            yield tuple(v if v is None else admit(v, "an item") for v in item) if type(item) is tuple else item

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What is stored under a name; a method only to say that it is one."""
        obj = admit(obj)
        if isinstance(obj, Undefined):
            return _read(obj)
        entry = reading.attribute(obj, attribute)
        return self._without(obj, attribute) if entry is arrays.ABSENT else admit(entry, attribute)

    def method(self, obj: Any, name: str) -> Any:
        """What `obj.name(…)` calls."""
        obj = admit(obj)
        return Method(obj, name) if not isinstance(obj, Undefined) and name in self._methods(obj) else self.getattr(obj, name)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`."""
        obj, argument = admit(obj), self.admitted(argument)
        if isinstance(argument, Undefined) and not isinstance(argument, Missing):
            return _read(argument)
        if isinstance(obj, Undefined):
            return _read(obj)
        entry = reading.item(obj, argument)
        return (
            self._without(obj, argument)
            if entry is arrays.ABSENT
            else self._array(entry)
            if arrays.kind_of(obj) or isinstance(obj, arrays.Indexer)
            else admit(entry, argument if isinstance(argument, str) else "an item")
        )

    def _without(self, obj: Any, name: Any) -> Any:
        """The undefined value where `obj` has nothing of that name to read."""
        if isinstance(name, str) and not isinstance(obj, dict):
            if name in self._methods(obj):
                return Method(obj, name)
            if name.startswith("__") or (hasattr(type(obj), name) and not isinstance(obj, FieldValues | Namespace)):
                return Refused(instead(f"a template cannot read {name} of a {type(obj).__name__}"))
        if isinstance(obj, FieldValues):
            return self.undefined(f"'{obj.kind} object' has no attribute '{name}'")
        return self.undefined(obj=obj, name=name)

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        value = admit(value)
        if isinstance(value, FieldValues | Namespace | dict):
            raise TypeError("a slice is taken of a text, a list or a column")
        bounds = [None if isinstance(v, Missing) else v for v in (start, stop, step)]
        if isinstance(value, arrays.Indexer) or arrays.kind_of(value) in _ARRAYS:
            self.allowance.spend()
            return admit(arrays.item(value, slice(*bounds)))
        return admit(super().sliced(value, *bounds))

    def compared(self, left: Any, name: str, right: Any) -> Any:
        if type(left) in SIMPLE and type(right) in SIMPLE:
            return self.compare(left, name, right)
        left, right = self.admitted(left), self.admitted(right)
        if arrays.kind_of(left) in _ARRAYS or arrays.kind_of(right) in _ARRAYS:
            arrays.check_operands(name, left, right)
            return self._array(self.compare(left, name, right))
        return super().compared(left, name, right)

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:
        """An operation; with a missing value it is missing too."""
        if type(left) in SIMPLE and type(right) in SIMPLE:
            return admit(super().call_binop(context, operator, left, right))
        left, right = self.admitted(left), self.admitted(right)
        if operator == "%" and isinstance(left, str):
            check_printf(left, right)
            return admit(super().call_binop(context, operator, left, right if arrays.kind_of(right) else self.argument(right)))
        if isinstance(left, Missing) or isinstance(right, Missing):
            return self.binop_table[operator](left, right)
        if arrays.kind_of(left) in _ARRAYS or arrays.kind_of(right) in _ARRAYS:
            arrays.check_operands(operator, left, right)
            return self._array(self.binop_table[operator](left, right))
        return admit(super().call_binop(context, operator, self.argument(left), self.argument(right)))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        arg = self.admitted(arg)
        arrays.check_operands("-", arg, 0)
        return self._array(super().call_unop(context, operator, arg))

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the list, or what a template has of its own: a macro, a loop, `range`."""
        if isinstance(obj, Missing):
            return obj
        if isinstance(obj, Method):
            self.allowance.spend(self.STEPS_PER_CALL)
            return self.invoke(obj.owner, obj.name, args, {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")})
        if isinstance(obj, Undefined):
            return _read(obj)
        if not self._callable(obj, None, ""):
            raise SecurityError(instead("a template cannot call functions"))
        return admit(super().call(context, obj, *args, **kwargs))

    def invoke(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """`owner.name(…)`, a method of the lists."""
        for argument in (*args, *kwargs.values()):
            value = admit(argument)
            if isinstance(value, Undefined) and not isinstance(value, Missing):
                return _read(value)
        if arrays.kind_of(owner):
            convert = shown.json_cell if name == "to_json" else shown.text_cell
            given, named = tuple(map(self.admitted, args)), {k: self.admitted(v) for k, v in kwargs.items()}
            result = array_methods.call(owner, name, given, named, allowance=self.allowance, convert=lambda cell: convert(cell, self))
            return self._array(self._sized(result))
        if name in ("format", "format_map"):
            return super().invoke(owner, name, args, kwargs)
        owner = self.argument(owner) if type(owner) in (list, tuple) else owner
        plain = [None if a is None or isinstance(a, Missing) else self.argument(a) for a in args]
        named = {k: None if v is None or isinstance(v, Missing) else self.argument(v) for k, v in kwargs.items()}
        if type(owner) not in reading.METHODS:
            return self._result(super().invoke(owner, name, tuple(plain), named))
        for spec in plain if name == "strftime" else ():
            check_spec(str(spec))
        return self._result(getattr(owner, name)(*plain, **named))

    def _array(self, value: Any) -> Any:
        """What an operation makes of an array: it is as large as that, and takes its time."""
        self.allowance.spend()
        self.allowance.hold(arrays.size_of(value))
        return admit(value)

    def _result(self, value: Any) -> Any:
        return admit(self._sized(value))

    def _methods(self, owner: Any) -> frozenset[str]:
        kind = arrays.kind_of(owner)
        if kind is not None:
            return array_methods.METHODS.get(kind, frozenset())
        return reading.METHODS.get(type(owner)) or super()._methods(owner)
