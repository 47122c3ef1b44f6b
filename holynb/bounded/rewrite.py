"""A template's syntax tree, so that what Jinja2 compiles to plain Python goes through the environment: loops, `~`, comparisons, slices.

The names of these filters end in a space, so that no template can write one.
"""

from __future__ import annotations

from typing import Any, cast

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

__all__ = ["BUILT", "COMPARED", "CONCATENATED", "COUNTED", "SLICED", "SPAN", "bounded_tree"]

BUILT, COMPARED, CONCATENATED, COUNTED, SLICED, SPAN = "built ", "compared ", "concatenated ", "counted ", "sliced ", "span "


def bounded_tree(tree: nodes.Template) -> nodes.Template:
    """The tree with those expressions as calls of filters. The tree itself is changed."""
    _Rewriter().visit(tree)
    return tree


def _filter(name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, list(args), [], None, None, lineno=node.lineno, environment=node.environment)


def _bounds(span: nodes.Slice) -> list[nodes.Expr]:
    none = nodes.Const(None, lineno=span.lineno, environment=span.environment)
    return [span.start or none, span.stop or none, span.step or none]


class _Rewriter(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        node.iter = _filter(COUNTED, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        return _filter(CONCATENATED, node.nodes[0], *node.nodes[1:])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        """`a < b < c` as `a < b and b < c`."""
        self.generic_visit(node)
        result: nodes.Expr | None = None
        left = node.expr
        for operand in node.ops:
            one = _filter(COMPARED, left, nodes.Const(operand.op, lineno=node.lineno, environment=node.environment), operand.expr)
            result = one if result is None else nodes.And(result, one, lineno=node.lineno, environment=node.environment)
            left = operand.expr
        return result or node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter(SLICED, node.node, *_bounds(node.arg))
        if isinstance(node.arg, nodes.Tuple):  # Jinja2 parses x[1:2, 0], and makes no Python of it
            node.arg.items = [_filter(SPAN, *_bounds(i)) if isinstance(i, nodes.Slice) else i for i in node.arg.items]
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        return node if node.ctx != "load" or any(isinstance(i, nodes.Slice) for i in node.items) else self._built(node, node.items)

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        return self._built(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802 - jinja2 calls it by the node's name
        self.generic_visit(node)
        return self._built(node, [e for pair in node.items for e in (pair.key, pair.value)])

    def _built(self, node: nodes.Expr, items: list[Any]) -> nodes.Expr:
        return node if all(isinstance(i, nodes.Const | nodes.TemplateData) for i in items) else _filter(BUILT, node)
