"""The architecture, held by tests: which way imports point, what stays where, how large things may get."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest
from layout import ROOT, Function, Module, cycles, modules, read, under

#: From the ground up. A module may import its own storey and those below it. A new module needs a place here.
STOREYS: tuple[tuple[str, ...], ...] = (
    ("holynb.usage", "holynb.faults", "holynb.errors", "holynb.secret", "holynb.words"),
    ("holynb.types",),
    ("holynb.config", "holynb.scheduler", "holynb.pools",
     "holynb.journal", "holynb.pricing", "holynb.prompts", "holynb.schema", "holynb.loop", "holynb.runlog", "holynb.results"),
    ("holynb.engines",),
    ("holynb.run",),
    ("holynb.ui", "holynb.cli", "holynb.demo", "holynb.doctor"),
)  # fmt: skip

#: Package → the only modules that may import it, at any time.
ONLY: dict[str, tuple[str, ...]] = {
    "httpx": ("holynb.engines.http", "holynb.engines.direct"),
    "httpx_aiohttp": ("holynb.engines.http",),
    "pandas": ("holynb.results.frame",),
    "torch": ("holynb.pool", "kernels_support.gpu"),
    "triton": ("kernels_support.gpu",),
    "ipywidgets": ("holynb.ui",),
    "anywidget": ("holynb.ui",),
    "plotly": ("holynb.ui",),
    "IPython": ("holynb.ui",),
    "holynb.pool": ("holynb.pool",),
}

#: Rooms of the pool that decide and serve, and must start without torch.
NO_TORCH = tuple(
    f"holynb.pool.{name}"
    for name in ("fit.plan", "advice", "fit.mesh", "engine.scheduler", "server.__main__", "server.tokenizer", "models.embedded")
)

#: Upward imports that are wanted, each inside a function. Reason beside each.
UPWARD = {
    ("holynb.run.run", "holynb.ui.output.plots"): "run.plot() is in the contract; it only opens the door when somebody asks for charts",
}

HEAVY = ("torch", "transformers", "pandas", "plotly", "httpx", "boto3")


def storey(name: str) -> int | None:
    found = [i for i, names in enumerate(STOREYS) if under(name, *names)]
    return found[0] if found else None


def climbs(module: Module) -> list[str]:
    """Imports of `module` that point up."""
    here = storey(module.name)
    above = [i for i in module.imports if here is not None and (storey(i.name) or 0) > here and (module.name, i.name) not in UPWARD]
    return [f"{module.name}:{i.line} imports {i.name}, which stands above it" for i in above]


def trespasses(module: Module) -> list[str]:
    return [line for package, homes in ONLY.items() if not under(module.name, *homes) for line in module.reaches(package)]


def test_every_module_has_a_place() -> None:
    free = ("holynb", "holynb.__main__", "holynb.pool", "holynb.labextension", "kernels_support")  # the door, and other processes
    lost = [m.name for m in modules() if storey(m.name) is None and m.name not in free and not under(m.name, *free[2:])]
    lost = [name for name in lost if not (ROOT / name.replace(".", "/")).is_dir()]
    assert not lost, f"give {lost} a storey in tests/test_layout.py"


def test_imports_point_one_way() -> None:
    assert not [line for m in modules() for line in climbs(m)]


def test_the_rule_sees_an_import_that_points_up() -> None:
    assert climbs(read("holynb.types", "def f():\n    from holynb import run\n")) == [
        "holynb.types:2 imports holynb.run, which stands above it"
    ]
    assert not climbs(read("holynb.types", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from holynb import run\n"))


def test_libraries_stay_in_their_rooms() -> None:
    assert not [line for m in modules() for line in trespasses(m)]


@pytest.mark.parametrize(
    "line", ["import torch.nn", "def f():\n    import pandas", 'import importlib\nimportlib.import_module("holynb.pool.engine.scheduler")']
)
def test_the_rule_sees_a_library_outside_its_room(line: str) -> None:
    assert trespasses(read("holynb.scheduler.scheduler", line))


def test_what_decides_in_the_pool_needs_no_torch() -> None:
    """Not even through another module of the pool, as far as imports at module level go."""
    edges = eager_edges()
    for name in NO_TORCH:
        seen, ahead = {name}, [name]
        while ahead:
            ahead = [n for here in ahead for n in edges.get(here, set()) - seen if seen.add(n) is None]
        assert not [line for m in modules() if m.name in seen for line in m.reaches("torch", lazy=False)], name


def test_the_pool_stands_on_the_ground() -> None:
    """Its processes share with the rest only the nouns and what starts them: everything else goes through a socket."""
    allowed = ("holynb.pool", "holynb.errors", "holynb.types", "kernels_support")
    inside = [m for m in modules() if under(m.name, "holynb.pool")]
    assert not [
        f"{m.name}:{i.line} imports {i.name}" for m in inside for i in m.imports if under(i.name, "holynb") and not under(i.name, *allowed)
    ]


def test_kernels_support_knows_no_holynb_and_its_halves_not_each_other() -> None:
    halves = {"kernels_support.jupyter": "kernels_support.gpu", "kernels_support.gpu": "kernels_support.jupyter"}
    inside = [m for m in modules() if under(m.name, "kernels_support")]
    assert not [line for m in inside for line in m.reaches("holynb")]
    assert not [line for half, other in halves.items() for m in inside if under(m.name, half) for line in m.reaches(other)]
    assert not next(m for m in inside if m.name == "kernels_support").imports


def test_no_import_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert not cycles(eager_edges())


def eager_edges() -> dict[str, set[str]]:
    """Module → modules of ours that importing it imports."""
    names = {m.name for m in modules()}
    edges = {m.name: {i.name for i in m.imports if not i.lazy and i.name in names and i.name != m.name} for m in modules()}
    for module in modules():  # importing a.b imports a
        edges[module.name] |= {p for i in edges[module.name] if (p := i.rpartition(".")[0]) in names and not under(module.name, p)}
    return edges


# -- how large -----------------------------------------------------------------------------------------------------------


def functions() -> list[tuple[Module, Function]]:
    return [(m, f) for m in modules() for f in m.functions]


def test_modules_stay_small() -> None:
    assert not {m.name: m.lines for m in modules() if m.lines > 310}


def test_modules_say_what_they_are_for() -> None:
    assert not [m.name for m in modules() if m.lines and not m.docstring]


def test_functions_stay_short() -> None:
    sizes = [f.lines for _, f in functions()]
    long = [f"{m.name}.{f.name}: {f.lines}" for m, f in functions() if f.lines > 40]
    assert statistics.median(sizes) <= 8
    assert len(long) <= 0.02 * len(sizes), long


def jitted(function: Function) -> bool:
    return any(d.rpartition(".")[2] == "jit" for d in function.decorators)


#: Functions with more than six parameters. Reason beside each.
WIDE = {"holynb.pool.engine.runner.Runner.__init__": "each setting is a word of a rank's command line, and all but the folder are keywords"}


def test_functions_take_few_parameters() -> None:
    """But for Triton's: a kernel gets each pointer, stride and block size as an argument of its own."""
    wide = {f"{m.name}.{f.name}": len(f.parameters) for m, f in functions() if len(f.parameters) > 6 and not jitted(f)}
    assert not {name: n for name, n in wide.items() if name not in WIDE}


def test_arguments_and_results_are_annotated() -> None:
    assert not [f"{m.name}.{f.name}: {', '.join(f.unannotated)}" for m, f in functions() if f.unannotated]


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XXX", "NotImplementedError")
    assert not [f"{m.name}: {w}" for m in modules() for w in words if w in m.path.read_text(encoding="utf-8")]


# -- what importing costs ------------------------------------------------------------------------------------------------


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh Python after `code`."""
    lines = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT, env=env)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_holynb_is_light() -> None:
    assert loaded_after("import holynb").isdisjoint({*HEAVY, "IPython", "ipywidgets", "anywidget"})


def test_loading_the_extension_is_light() -> None:
    code = "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.instance().run_line_magic('load_ext', 'holynb')"
    assert loaded_after(code).isdisjoint({*HEAVY, "anywidget", "ipywidgets"})


def test_importing_what_starts_processes_is_light() -> None:
    assert loaded_after("import kernels_support.jupyter.supervisor").isdisjoint({*HEAVY, "holynb"})


def test_at_most_twelve_public_names() -> None:
    import holynb

    assert 1 <= len(holynb.__all__) <= 12
    assert all(getattr(holynb, name, None) is not None or name == "last" for name in holynb.__all__)
