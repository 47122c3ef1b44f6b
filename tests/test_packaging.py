"""What is installed and how: the wheel's contents and types, declared dependencies and their licences, the two commands, CI, hooks and Binder."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import pytest
import yaml
from layout import ROOT, modules, under
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Import name → distribution, where they differ.
CALLED = {
    "IPython": "ipython",
    "PIL": "pillow",
    "dotenv": "python-dotenv",
    "yaml": "pyyaml",
    "pynvml": "nvidia-ml-py",
    "google": "google-auth",
    "markdown_it": "markdown-it-py",
}
#: Imported where present, with another way where not.
OPTIONAL = {
    "keyring",
    "orjson",
    "uvloop",
    "msgpack",
    "pynvml",
    "triton",
    "pydantic",
    "pyarrow",
    "genai_prices",
    "sidecar",
    "azure",
    "duckdb",
    "datasets",
    "polars",
}


def commands() -> list[str]:
    """The lines of the README's shell blocks under its set-up headings."""
    return re.findall(r"```sh setup\n(.+?)\n```", README, re.DOTALL)


def test_two_commands_set_everything_up() -> None:
    install, test = commands()
    assert "\n" not in install
    assert "holynb demo" in install
    assert "-c binder/constraints.txt" in install
    assert "[lab,local]" in install
    assert test == "sh tests/run"


def test_without_a_gpu_torch_alone_comes_from_its_own_host() -> None:
    assert "extra-index-url" not in README, "pip would ask both hosts for every package"
    (first,) = re.findall(r"^python.*whl/cpu.*$", README, re.MULTILINE)
    assert all(part in first for part in ("-m venv .venv", "--no-deps", "--index-url", "-c binder/constraints.txt"))
    assert first.endswith(" torch")


def test_ci_runs_exactly_the_readme_command() -> None:
    lines = [s for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if (s := line.strip()) and not s.startswith("#")]
    assert lines == ["set -eu", 'cd "$(dirname "$0")/.."', f"exec {commands()[1]}"]


def workflow_steps() -> list[tuple[str, dict[str, str]]]:
    """Every step of every workflow, with the workflow's name."""
    steps = []
    for path in sorted((ROOT / ".github/workflows").glob("*.y*ml")):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        steps += [(path.stem, step) for job in jobs.values() for step in job["steps"]]
    return steps


def test_workflows_run_single_commands_of_the_repository() -> None:
    """What CI does can be done by hand: each step is a script of ours, but for GitHub's own two, which bring the checkout and Python."""
    runs = [(name, step["run"]) for name, step in workflow_steps() if "run" in step]
    assert {name for name, _ in runs} == {"ci", "models", "packages"}
    for name, command in runs:
        words = shlex.split(command)
        assert len(command.splitlines()) == 1, name
        assert not re.search(r"[;&|<>$`]", command), f"{name}: {command} is more than one command"
        script = ROOT / (words[1] if words[0] == "sh" else words[0])
        assert script.is_file(), f"{name}: {script} is not there"
        assert words[0] == "sh" or os.access(script, os.X_OK), f"{name}: {script} is not executable"


def test_workflows_use_nothing_but_checkout_and_python() -> None:
    used = [step["uses"] for _, step in workflow_steps() if "run" not in step]
    assert used
    assert not [action for action in used if not re.fullmatch(r"actions/(checkout|setup-python)@v\d+", action)]


def test_hooks_call_what_the_tests_install() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        python, flag, tool, *rest = shlex.split(hook["entry"])
        assert (hook["language"], python, flag) == ("system", ".venv/bin/python", "-m")
        assert tool in declared("test", "dev")
        assert all((ROOT / word).exists() for word in rest if "/" in word), hook["entry"]


def test_the_projects_addresses_name_the_readmes_owner() -> None:
    badge = re.search(r"mybinder\.org/v2/gh/([^/]+/[^/]+)/", README)
    assert badge is not None
    assert set(PROJECT["urls"]) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert not [u for u in PROJECT["urls"].values() if not re.match(rf"https://github\.com/{badge[1]}\b", u)]
    assert f"https://github.com/{badge[1]}/security/advisories/new" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [
        ".ci/run",
        "tests/run",
        "tests/binder_check",
        "tests/build_check",
        "tests/models_check",
        "tests/pythons_check",
        "binder/postBuild",
        "binder/start",
    ],
)
def test_scripts_are_executable_and_parse(path: str) -> None:
    script = ROOT / path
    assert os.access(script, os.X_OK)
    shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!").split("/")[-1]
    if "python" in shell:
        compile(script.read_text(encoding="utf-8"), path, "exec")
    else:
        subprocess.run([shell, "-n", str(script)], check=True, timeout=30)


def test_the_top_level_holds_what_the_plan_says() -> None:
    kept = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    top = {p.split("/")[0] for p in kept if p}
    if not top:
        pytest.skip("not a git checkout")
    pages = "README.md LICENSE CHANGELOG.md CONTRIBUTING.md SECURITY.md ARCHITECTURE.md CITATION.cff"
    plan = (
        f"{pages} pyproject.toml .gitignore .pre-commit-config.yaml .ci .devcontainer .github holynb kernels_support notebooks tests binder"
    )
    assert top <= set(plan.split())


def test_versions_agree() -> None:
    import holynb

    assert holynb.__version__ == PROJECT["version"] == version("holynb")
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# -- dependencies --------------------------------------------------------------------------------------------------------


def declared(*extras: str) -> set[str]:
    return {canonicalize_name(Requirement(r).name) for r in [*PROJECT["dependencies"], *(r for e in extras for r in EXTRAS[e])]}


def test_what_is_imported_is_declared() -> None:
    """Everything the packages import comes with Python, from the project, or from a declared dependency."""
    distributions = declared("lab", "local", "aws", "google", "files", "images", "ray")
    used = {(m.name, i.name.partition(".")[0]) for m in modules() for i in m.imports}
    foreign = {(m, n) for m, n in used if n and n not in sys.stdlib_module_names and n not in ("holynb", "kernels_support", *OPTIONAL)}
    assert not {(m, n) for m, n in foreign if canonicalize_name(CALLED.get(n, n)) not in distributions}


def test_the_core_needs_no_extra() -> None:
    """Outside the pool, modules import at their top only what the core installs."""
    core = declared()
    outside = [m for m in modules() if not under(m.name, "holynb.pool", "kernels_support.cpu", "kernels_support.gpu")]
    eager = {(m.name, i.name.partition(".")[0]) for m in outside for i in m.imports if i.kind == "eager"}
    foreign = {(m, n) for m, n in eager if n and n not in sys.stdlib_module_names and n not in ("holynb", "kernels_support")}
    assert not {(m, n) for m, n in foreign if canonicalize_name(CALLED.get(n, n)) not in core}


def test_pins_cover_what_is_declared() -> None:
    pins = {canonicalize_name(r.name): r for r in constraints()}
    assert str(pins["torch"]) == "torch==2.13.0"
    assert not [n for n in declared(*EXTRAS) if n not in pins]
    for line in [*PROJECT["dependencies"], *(r for e in EXTRAS.values() for r in e)]:
        wanted = Requirement(line)
        pinned = str(pins[canonicalize_name(wanted.name)].specifier).removeprefix("==")
        assert wanted.specifier.contains(pinned), f"{line} excludes the pinned {pinned}"


def constraints() -> list[Requirement]:
    lines = (ROOT / "binder/constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(s) for line in lines if (s := line.partition("#")[0].strip())]


#: Words that a licence compatible with Apache-2.0 distribution is known by; weak copyleft of files (MPL) is used, not changed.
FREE = re.compile(
    r"\b(apache|mit|bsd|isc|psf|python software foundation|mpl|mozilla|unlicense|hpnd|zlib|0bsd|cc0|public domain)\b", re.IGNORECASE
)
COPYLEFT = re.compile(r"\b(a?gpl|lgpl|gnu|sspl|busl|proprietary|commercial|non-?commercial)", re.IGNORECASE)


def licence(name: str) -> str:
    """What a distribution says of its licence, from the most exact field it has."""
    meta = distribution(name).metadata
    stated = [meta.get("License-Expression") or "", *[c for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]]
    return " | ".join(s for s in stated if s) or (meta.get("License") or "").replace(
        "Redistribution and use in source and binary forms", "BSD"
    )


def closure(roots: set[str]) -> set[str]:
    """Distributions that installing `roots` brings here."""
    names: set[str] = set()
    pending = [Requirement(r) for r in roots]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in names:
            continue
        try:
            needs = [Requirement(r) for r in requires(name) or []]
        except PackageNotFoundError:
            continue
        names.add(name)
        pending += [n for n in needs if n.marker is None or any(n.marker.evaluate({"extra": e}) for e in requirement.extras or {""})]
    return names


def test_licences_allow_what_we_do() -> None:
    named = {name: licence(name) for name in closure(declared("lab", "local", "aws", "files"))}
    assert {"httpx", "torch", "jupyterlab"} <= named.keys()
    choices = {n: [p for p in re.split(r" OR | \| ", text) if FREE.search(p) and not COPYLEFT.search(p)] for n, text in named.items()}
    assert not {n: named[n] for n, free in choices.items() if not free}


# -- the wheel -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as built from this tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_the_wheel_holds_both_packages_with_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    ours = [p for package in ("holynb", "kernels_support") for p in (ROOT / package).rglob("*") if p.is_file()]
    data = {p.relative_to(ROOT).as_posix() for p in ours if p.suffix in (".py", ".toml", ".js", ".css", ".json", ".html", ".typed")}
    data = {p for p in data if "/node_modules/" not in p and "/." not in p}
    assert data - set(inside) == set()
    assert {"holynb/py.typed", "kernels_support/py.typed"} <= set(inside)
    assert {n.partition("licenses/")[2] for n in inside if "licenses/" in n} == {"LICENSE", "holynb/ui/assets/uplot.LICENSE"}
    assert any(n.endswith(".data/data/share/jupyter/labextensions/holynb/static/remoteEntry.js") for n in inside), "where JupyterLab looks"
    assert not [n for n in inside if n.startswith(("tests/", "notebooks/", "binder/")) or n.endswith((".pyc", ".ipynb"))]


def test_the_console_script_answers() -> None:
    script = Path(sys.executable).with_name("holynb")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "holynb"]
    completed = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert completed.returncode == 0, completed.stderr
    assert all(word in completed.stdout for word in ("demo", "doctor", "pool", "kernel"))


# -- its types -----------------------------------------------------------------------------------------------------------

USE, MISUSE = ROOT / "tests/typed_use.py", ROOT / "tests/typed_misuse.py"


def without_paths() -> dict[str, str]:
    """The environment without what would lead Python or mypy back to this tree."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "MYPYPATH")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the wheel is installed. Its dependencies are those of this one, behind it on the path.

    A `.pth` adds a folder and reads none of the `.pth` files in it: an editable holynb there stays unseen.
    """
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120, env=without_paths())
    own = Path(ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    ours = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    (own / "zz_dependencies.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    paths = ask(python, "import holynb, kernels_support; print(holynb.__file__, kernels_support.__file__)").split()
    assert all(Path(f).is_relative_to(own) for f in paths), "the wheel's packages, not this tree's"
    return python


def ask(python: Path, code: str) -> str:
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60, env=without_paths(), cwd=python.parent
    ).stdout.strip()


#: Libraries of other people's tables, which no name of ours has in its type: what they import, torch above all, is two fifths of what mypy would read.
UNREAD = "[mypy]\n[mypy-duckdb.*,narwhals.*,polars.*,torch.*]\nfollow_imports = skip\n"


def typed(python: Path, *files: Path) -> str:
    """What mypy --strict says of these files, with the packages of that Python and no configuration of ours but `UNREAD`."""
    settings = python.with_name("mypy.ini")
    settings.write_text(UNREAD, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", f"--config-file={settings}", "--no-error-summary"]
    command += ["--python-executable", str(python), *map(str, files)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=without_paths(), cwd=python.parent)
    assert completed.returncode in (0, 1), completed.stdout + completed.stderr
    return completed.stdout


def test_a_program_that_uses_the_wheel_is_checked_by_its_types(installed: Path) -> None:
    """Every public name is used in one file, which mypy has nothing against; each line of the other is refused, for the reason beside it."""
    import holynb

    tree = ast.parse(USE.read_text(encoding="utf-8"))
    used = {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "holynb" for a in node.names}
    assert used == set(holynb.__all__)
    lines = enumerate(MISUSE.read_text(encoding="utf-8").splitlines(), 1)
    expected = [(number, reason[1]) for number, line in lines if (reason := re.search(r"# refused: ([\w-]+)$", line))]
    assert len(expected) > 5
    report = typed(installed, USE, MISUSE)
    refused = [(int(n), why) for n, why in re.findall(rf"{MISUSE.name}:(\d+): error: .*\[([\w-]+)\]$", report, re.MULTILINE)]
    assert refused == expected, report
    assert USE.name not in report, report


def test_without_its_marker_the_wheel_has_no_types(installed: Path) -> None:
    """That it was the wheel that mypy read, and for its marker: without one its types are not believed."""
    marker = Path(ask(installed, "import holynb; print(holynb.__file__)")).with_name("py.typed")
    marker.unlink()
    try:
        assert 'analyzing "holynb": module is installed, but missing library stubs or py.typed marker' in typed(installed, MISUSE)
    finally:
        marker.touch()


# -- Binder --------------------------------------------------------------------------------------------------------------


def test_binder_installs_the_pinned_package_on_a_cpu_build_of_torch() -> None:
    dependencies = yaml.safe_load((ROOT / "binder/environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert f"python={PROJECT['requires-python'].removeprefix('>=')}" in dependencies
    pip = next(d["pip"] for d in dependencies if isinstance(d, dict))
    assert "-c constraints.txt" in pip
    assert "..[lab,local]" in pip
    assert "torch==2.13.0" in pip
    assert any(line.startswith("--extra-index-url") and line.endswith("/cpu") for line in pip)


def test_a_codespace_installs_what_binder_installs() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    install = container["onCreateCommand"]
    assert all(part in install for part in ("-c binder/constraints.txt", "'.[lab,local]'", "torch==2.13.0", "whl/cpu"))
    assert "extra-index-url" not in install, "torch's host is asked for torch alone"
    assert container["image"].endswith(f":{PROJECT['requires-python'].removeprefix('>=')}")
    assert container["postCreateCommand"] == "bash binder/postBuild"
    assert all((ROOT / path).exists() for path in container["customizations"]["codespaces"]["openFiles"])


def test_the_badge_opens_the_first_notebook() -> None:
    links = re.findall(r"https://mybinder\.org/v2/[^\s)]+", README)
    assert links
    for link in links:
        path = re.search(r"urlpath=lab/tree/([^&)\s]+)", link)
        assert path is not None
        assert (ROOT / path[1]).exists()


# -- the same rules for style, here and in CI -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=["lint", "format", "types"])
def test_code_is_clean(command: list[str]) -> None:
    pytest.importorskip(command[0])
    if command == ["mypy"] and not (ROOT / ".mypy_cache").exists():
        command = ["mypy", f"--cache-dir={os.devnull}"]  # a fresh checkout reads no cache, and writing one takes a fifth of the time
    completed = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert completed.returncode == 0, completed.stdout[-4000:] + completed.stderr[-1000:]
