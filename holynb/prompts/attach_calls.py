"""`{{ attach(column) }}` in a template's tree: a mark is rendered in its place. Knows no rows."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from holynb.prompts.attaching import mark

__all__ = ["find_marks"]


class _Marks(NodeTransformer):
    """`attach(column)` becomes a mark; `names` are the columns, in the order of their numbers."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802 - jinja2 calls it by the node's name
        node.nodes = [nodes.TemplateData(self._mark(n), lineno=n.lineno) if _is_attach(n) else self.visit(n) for n in node.nodes]
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return nodes.Const(self._mark(node), lineno=node.lineno) if _is_attach(node) else node

    def _mark(self, node: Any) -> str:
        name = _column(node.args[0]) if len(node.args) == 1 and not (node.kwargs or node.dyn_args or node.dyn_kwargs) else None
        if name is None:
            raise TemplateSyntaxError("attach takes the name of one column, as in {{ attach(photo) }}", node.lineno)
        if name not in self.names:
            self.names.append(name)
        return mark(self.names.index(name))


def _is_attach(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "attach"


def _column(node: nodes.Node) -> str | None:
    """The column of `photo`, `"photo"`, `row["photo"]` and `row.photo`."""
    if isinstance(node, nodes.Name):
        return str(node.name)
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return node.value
    if isinstance(node, nodes.Getitem | nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "row":
        return str(node.attr) if isinstance(node, nodes.Getattr) else _column(node.arg) if isinstance(node.arg, nodes.Const) else None
    return None


def find_marks(tree: nodes.Template) -> tuple[str, ...]:
    """Put a mark in the place of each `attach(…)` of a template; the columns that they name."""
    marks = _Marks()
    marks.visit(tree)
    return tuple(marks.names)
