"""The packages as a test sees them: modules, what each imports and when, functions and their sizes. Read with `ast`; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("holynb", "kernels_support")


@dataclass(frozen=True)
class Import:
    """One imported module. `lazy`: inside a function, so it costs nothing until called."""

    name: str
    lazy: bool
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

    def __str__(self) -> str:
        return self.name

    def reaches(self, *packages: str, lazy: bool = True) -> list[str]:
        """What this module imports of these packages, with line numbers."""
        return [f"{self.name}:{i.line} imports {i.name}" for i in self.imports if under(i.name, *packages) and (lazy or not i.lazy)]


def under(name: str, *packages: str) -> bool:
    """Whether a module is one of these packages or inside one."""
    return any(name == p or name.startswith(p + ".") for p in packages)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of both packages."""
    paths = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
    return tuple(read(name_of(p), p.read_text(encoding="utf-8"), p) for p in paths)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(name: str, source: str, path: Path = Path("x.py")) -> Module:
    """The module as its source says."""
    tree = ast.parse(source)
    known = tuple(_functions(tree))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return Module(name, path, len(source.splitlines()), ast.get_docstring(tree), tuple(_imports(tree, package)), known)


def _imports(tree: ast.AST, package: str, *, lazy: bool = False) -> Iterator[Import]:
    """Imports that happen: those for type checking alone are left out, `import_module("x")` with a plain string is counted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _imports(ast.Module([other], []), package, lazy=lazy)
            continue
        yield from (Import(n, lazy, node.lineno) for n in _names(node, package))
        yield from _imports(node, package, lazy=lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def _names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
        # `from package import module` imports the module: the longer name is kept where it is one.
        return [f"{base}.{a.name}" if (ROOT / base.replace(".", "/") / f"{a.name}.py").exists() or is_package(f"{base}.{a.name}") else base
                for a in node.names]  # fmt: skip
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
        return [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return []


def is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/") / "__init__.py").exists()


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[Function]:
    for node in ast.iter_child_nodes(tree):
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
    return Function(name, (node.end_lineno or node.lineno) - node.lineno + 1, tuple(p.arg for p in known), bare,
                    tuple(ast.unparse(d).partition("(")[0] for d in node.decorator_list))  # fmt: skip


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components of more than one, or a self loop)."""
    reach = {name: _reachable(name, edges) for name in edges}
    groups = {tuple(sorted(m for m in reach[n] if n in reach.get(m, ()))) for n in edges if n in reach[n]}
    return [list(g) for g in sorted(groups)]


def _reachable(name: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(edges.get(name, ()))
    while ahead:
        if (next_one := ahead.pop()) not in found:
            found.add(next_one)
            ahead += edges.get(next_one, ())
    return found
