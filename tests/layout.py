"""The packages as a test sees them: modules, what each imports and when, functions and their sizes. Read with `ast`; nothing is imported.

`python tests/layout.py` prints the figures: rooms, floors, circles, and arrows that go back up.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("holynb", "kernels_support")

#: Functions that import what they are given. A module whose source names none of them imports by statements alone.
IMPORTING = ("import_module", "__import__")

Children = Callable[[ast.AST], Iterable[ast.AST]]


@dataclass(frozen=True)
class Import:
    """One imported module. kind: `eager` when the module loads, `lazy` inside a function, `types` for type checkers alone."""

    name: str
    kind: str
    line: int


@dataclass(frozen=True)
class Function:
    name: str
    lines: int
    parameters: tuple[str, ...]
    unannotated: tuple[str, ...]
    decorators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    lines: int
    docstring: str | None
    imports: tuple[Import, ...]
    functions: tuple[Function, ...]
    tree: ast.Module
    names: tuple[tuple[str, str], ...] = ()
    """What `from module import name` takes: (module, name)."""

    def __str__(self) -> str:
        return self.name

    def reaches(self, *packages: str, kinds: tuple[str, ...] = ("eager", "lazy")) -> list[str]:
        """What this module imports of these packages, with line numbers."""
        return [f"{self.name}:{i.line} imports {i.name}" for i in self.imports if under(i.name, *packages) and i.kind in kinds]


def under(name: str, *packages: str) -> bool:
    """Whether a module is one of these packages or inside one."""
    return any(name == p or name.startswith(p + ".") for p in packages)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of both packages."""
    paths = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
    collects = gc.isenabled()
    gc.disable()  # a million nodes that stay: looking through them for garbage again and again takes three quarters of the time
    try:
        return tuple(read(name_of(p), p.read_text(encoding="utf-8"), p) for p in paths)
    finally:
        if collects:
            gc.enable()


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(name: str, source: str, path: Path = Path("x.py")) -> Module:
    """The module as its source says."""
    tree = ast.parse(source)
    known = tuple(_functions(tree))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    children = ast.iter_child_nodes if any(f in source for f in IMPORTING) else _statements_in
    imports = tuple(_imports(tree, package, children))
    return Module(name, path, len(source.splitlines()), ast.get_docstring(tree), imports, known, tree, tuple(_taken(tree)))


def _statements_in(node: ast.AST) -> Iterator[ast.AST]:
    """The statements directly in a node, and what holds some, as `except` does: nine nodes in ten are expressions."""
    return (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement of a module, however deep."""
    for node in _statements_in(tree):
        yield node
        yield from statements(node)


def _taken(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, a.name) for a in node.names)


def _imports(tree: ast.AST, package: str, children: Children, kind: str = "eager") -> Iterator[Import]:
    """All imports, `import_module("x")` with a plain string too."""
    for node in children(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            guarded, other = (node.orelse, node.body) if ast.unparse(node.test).startswith("not ") else (node.body, node.orelse)
            yield from _imports(ast.Module(guarded, []), package, children, "types")
            yield from _imports(ast.Module(other, []), package, children, kind)
            continue
        yield from (Import(n, kind, node.lineno) for n in _names(node, package))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(node, package, children, "lazy" if inside and kind == "eager" else kind)


def _names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
        # `from package import module` imports the module: the longer name is kept where it is one.
        return [
            f"{base}.{a.name}" if (ROOT / base.replace(".", "/") / f"{a.name}.py").exists() or is_package(f"{base}.{a.name}") else base
            for a in node.names
        ]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTING:
        return [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return []


def is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/") / "__init__.py").exists()


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[Function]:
    for node in _statements_in(tree):
        inner = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}."
            yield _function(node, f"{prefix}{node.name}")
        elif isinstance(node, ast.ClassDef):
            inner = f"{prefix}{node.name}."
        yield from _functions(node, inner)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Function:
    a = node.args
    known = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    known = [p for i, p in enumerate(known) if not (i == 0 and p.arg in ("self", "cls"))]
    bare = tuple(p.arg for p in known if p.annotation is None)
    if node.returns is None:
        bare += ("return",)
    return Function(
        name,
        (node.end_lineno or node.lineno) - node.lineno + 1,
        tuple(p.arg for p in known),
        bare,
        tuple(ast.unparse(d).partition("(")[0] for d in node.decorator_list),
    )


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components of more than one, or a self loop)."""
    reach = {name: _reachable(name, edges) for name in edges}
    groups = {tuple(sorted(m for m in reach[n] if n in reach.get(m, ()))) for n in edges if n in reach[n]}
    return [list(g) for g in sorted(groups)]


def _reachable(name: str, edges: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = list(edges.get(name, ()))
    while ahead:
        if (next_one := ahead.pop()) not in reached:
            reached.add(next_one)
            ahead += edges.get(next_one, ())
    return reached


def siblings(container: str) -> dict[str, list[tuple[Module, Import, str]]]:
    """Each module or room directly in a package → what it imports of its siblings, by any kind of import: (module, import, sibling)."""
    inside = [m for m in modules() if m.name.startswith(container + ".")]
    names = {m.name.removeprefix(container + ".").partition(".")[0] for m in inside}
    out: dict[str, list[tuple[Module, Import, str]]] = {name: [] for name in names}
    for module in inside:
        mine = module.name.removeprefix(container + ".").partition(".")[0]
        for i in module.imports:
            other = i.name.removeprefix(container + ".").partition(".")[0] if i.name.startswith(container + ".") else mine
            if other != mine and other in names:
                out[mine].append((module, i, other))
    return out


def containers() -> list[str]:
    """The packages that hold more than one module or room."""
    parents = {m.name.rpartition(".")[0] for m in modules()} - {""}
    return sorted(c for c in parents if len(siblings(c)) > 1)


def rooms() -> dict[str, set[str]]:
    """Each room → the rooms it imports. A room is a folder of modules; a module that lies flat in holynb/ is one of its own."""
    known = {m.name for m in modules()}
    home = {m.name: _room(m.name) for m in modules()}
    out: dict[str, set[str]] = {room: set() for room in home.values()}
    for m in modules():
        for i in m.imports:
            target = i.name if i.name in known else i.name.rpartition(".")[0]
            if target in home and home[target] != home[m.name]:
                out[home[m.name]].add(home[target])
    return out


def _room(name: str) -> str:
    if is_package(name):
        return name
    parent = name.rpartition(".")[0]
    return name if parent == "holynb" else parent


def floors(edges: dict[str, set[str]]) -> int:
    """The longest way up, in rooms. What imports each other stands on one floor."""
    groups = {name: min([name, *(g for c in cycles(edges) if name in c for g in c)]) for name in edges}
    merged: dict[str, set[str]] = {g: set() for g in groups.values()}
    for name, others in edges.items():
        merged[groups[name]] |= {groups[o] for o in others} - {groups[name]}

    @cache
    def height(name: str) -> int:
        return 1 + max((height(o) for o in merged[name]), default=0)

    return max(height(name) for name in merged)


def imports_of_all_kinds() -> dict[str, set[str]]:
    """Module → modules of ours that it imports, at load, inside functions, or for types."""
    known = {m.name for m in modules()}
    return {m.name: {i.name for i in m.imports if i.name in known} - {m.name} for m in modules()}


if __name__ == "__main__":
    wanted = {("holynb.run.run", "holynb.ui")}  # run.plot(), as tests/test_layout.py lists it
    every = {name: {o for o in others if (name, o) != ("holynb.run", "holynb.ui")} for name, others in rooms().items()}
    edges = {name: {o for o in others if (name, o) not in wanted} for name, others in imports_of_all_kinds().items()}
    print(f"{len(modules())} modules in {len(every)} rooms on {floors(every)} floors, {len(wanted)} arrow up that is wanted apart")
    print("circles of modules, counting imports at load, inside functions and for types:", cycles(edges) or 0)
    print("circles of rooms:", cycles(every) or 0)
