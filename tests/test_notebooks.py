"""Every notebook of `notebooks/` runs from top to bottom with no key, and is kept in the repository as a reader without a kernel needs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from layout import ROOT
from leftovers import end_pools
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"

#: Of a notebook that asks the same thing of many rows, what asks it of fewer: the embedded model takes a minute for them. Whole by `-m slow`.
SHORTENED = {
    "01-first-run": ("sources = demo.rows()", "sources = demo.rows(5)"),
    "08-how-good-is-it": ("random_state=3, ignore_index=True)", "random_state=3, ignore_index=True).head(8)"),
    "11-past-one-machine": ("RAY = have_ray()", "RAY = False"),  # pools on Ray have tests of their own
}
#: Notebooks in Korean, whose code is that of the English ones, and then cells of their own: these alone run here, and all of them by `-m slow`.
TWINS = {p: p.with_stem(p.stem.removesuffix("-ko")) for p in NOTEBOOKS if p.stem.endswith("-ko")}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of nbclient and its sockets


def by_name(path: Path) -> str:
    return path.stem


def code(path: Path) -> list[tuple[str, str]]:
    """The id and the source of each code cell."""
    return [(c["id"], "".join(c["source"])) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


def own(twin: Path) -> list[tuple[str, str]]:
    """The code cells that a notebook in Korean has beside those of the English one."""
    return code(twin)[len(code(TWINS[twin])) :]


#: What there is to run in each.
RUNNING = [p for p in NOTEBOOKS if p not in TWINS or own(p)]


def outputs(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [o for cell in book.cells for o in cell.get("outputs", [])]


Books = dict[Path, Future[nbformat.NotebookNode]]


@pytest.fixture(scope="module")
def books(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """The notebooks that this module's chosen tests ask for, by path, as they are run: three at a time, for most of a run is waiting for its servers."""
    mine = [i for i in request.session.items if i.path == request.path and "books" in i.fixturenames]
    chosen = {p for p in RUNNING if any(getattr(i, "callspec", None) is None or i.callspec.params["path"] == p for i in mine)}
    place = tmp_path_factory.mktemp("books")
    with ThreadPoolExecutor(3) as threads:
        yield {p: threads.submit(executed, p, home_in(place / p.stem, models)) for p in RUNNING if p in chosen}
    end_pools(place)


def home_in(folder: Path, models: Path) -> Path:
    """A home as each test has one."""
    (folder / "home").mkdir(mode=0o700, parents=True)
    (folder / "home" / "models").symlink_to(models, target_is_directory=True)
    return folder / "home"


def executed(path: Path, home: Path, *, whole: bool = False) -> nbformat.NotebookNode:
    """The notebook after a run in a kernel and a home of its own, in its own folder."""
    book = nbformat.read(path, as_version=4)
    if path.stem in SHORTENED and not whole:
        long, short = SHORTENED[path.stem]
        assert sum(long in cell.source for cell in book.cells) == 1
        for cell in book.cells:
            cell.source = cell.source.replace(long, short)
    if path in TWINS and not whole:
        kept = {code(path)[0], *own(path)}
        book.cells = [c for c in book.cells if c.cell_type == "code" and (c["id"], c.source) in kept]
    client = NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    done: nbformat.NotebookNode = asyncio.run(client.async_execute(env={**os.environ, "HOLYNB_HOME": str(home)}))
    return done


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RUNNING, ids=by_name)
def test_it_runs(path: Path, books: Books) -> None:
    book = books[path].result()
    assert not [f"{o.ename}: {o.evalue}" for o in outputs(book) if o.output_type == "error"]
    assert all(c.execution_count for c in book.cells if c.cell_type == "code" and c.source.strip())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RUNNING, ids=by_name)
def test_what_it_leaves_reads_without_a_kernel(path: Path, books: Books) -> None:
    book = books[path].result()
    shown = [o.data for o in outputs(book) if "data" in o]
    assert not [d for d in shown if WIDGET in d], "a widget was left in place of the static result"
    assert all("text/plain" in d for d in shown)
    assert not book.metadata.get("widgets"), "widget state was kept"
    assert len(nbformat.writes(book)) < 2_000_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in SHORTENED or p in TWINS], ids=by_name)
def test_it_runs_over_all_of_its_rows(path: Path, models: Path, tmp_path: Path) -> None:
    book = executed(path, home_in(tmp_path / "whole", models), whole=True)
    assert not [f"{o.ename}: {o.evalue}" for o in outputs(book) if o.output_type == "error"]


@pytest.mark.parametrize("path", TWINS, ids=by_name)
def test_a_notebook_in_korean_has_the_code_of_the_english_one(path: Path) -> None:
    assert code(path)[: len(code(TWINS[path]))] == code(TWINS[path])
    assert all(name.startswith("ko-") for name, _ in own(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_every_chapter_says_who_it_is_for_and_is_in_the_index(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0].source
    assert re.search(
        r"^\*For whoever .*Afterwards you |^\*.*(분을 위한 장입니다|쓸 줄 알면 됩니다)\.\*", first, re.MULTILINE | re.DOTALL
    ), first
    assert f"]({path.name})" in (ROOT / "notebooks" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_the_file_in_the_repository_is_clean(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    text = path.read_text(encoding="utf-8")
    assert WIDGET not in text
    assert not [o for o in outputs(book) if o.output_type == "error"]
    assert not re.findall(r"sk-|Bearer |/(?:home|root|Users)/", text), "a key, or a path of somebody's machine"
    assert all(c.execution_count for c in book.cells if c.cell_type == "code" and c.source.strip()), "kept without its outputs"
    assert json.loads(text)["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_a_cell_that_fails_on_purpose_says_so(path: Path) -> None:
    """By the tag that nbconvert and "Run All" go on at. A magic's refusal is a line on stderr, and its cell has failed all the same."""
    book = nbformat.read(path, as_version=4)
    failing = [c for c in book.cells if any(re.match(r"\w*Error: ", o.text) for o in c.get("outputs", []) if o.get("name") == "stderr")]
    assert failing == [c for c in book.cells if "raises-exception" in c.metadata.get("tags", [])]


@pytest.mark.timeout(600)
def test_what_the_inside_notebook_says_is_so(books: Books) -> None:
    """Its text speaks of exact sums, of a division that is not, and of rows of which none is lost: held against what its cells give."""
    book = books[next(p for p in NOTEBOOKS if p.stem.startswith("10-"))].result()
    text = "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs(book))
    summed = float(re.search(r"^summed +(\S+)", text, re.MULTILINE)[1])  # type: ignore[index]
    divided = float(re.search(r"^summed, then divided +(\S+)", text, re.MULTILINE)[1])  # type: ignore[index]
    assert summed < 1e-4 < 0.1 < divided
    assert "300 of 300 rows are complete; tokens missing or written twice: 0." in text
    assert float(re.search(r"against the whole model's: at most (\S+) apart", text)[1]) < 1e-4  # type: ignore[index]


@pytest.mark.timeout(600)
def test_what_the_failure_lab_says_is_so(books: Books) -> None:
    """Each error is met, and then costs no row; what is left of everything at once is what no attempt cures."""
    book = books[next(p for p in NOTEBOOKS if p.stem == "04-failure-lab")].result()
    text = "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs(book))
    assert "no connection to sim/echo within 0.5 s (--connect-timeout)" in text
    assert re.search(r"^error +1 +12\nok +1 +36$", text, re.MULTILINE) or re.search(r"^ok +1 +36\nerror +1 +12$", text, re.MULTILINE)
    assert len(re.findall(r"^ok +1 +36\n +2 +12$", text, re.MULTILINE)) == 2, "connecting again, and after a 429"
    assert int(re.search(r"(\d+) attempts for 48 rows", text)[1]) < 80, "most rows did not wait for the dead route"  # type: ignore[index]
    assert re.search(r"^sim/echo +ok +48$", text, re.MULTILINE)
    assert float(re.search(r"1 row · .* · (\d+\.\d) s$", text, re.MULTILINE)[1]) >= 2.9, "three seconds of words, a timeout of one"  # type: ignore[index]
    assert "48 rows are ok after 96 attempts\n0 of them hold a piece of the first half" in text
    assert re.search(r"^ok +2 +24$", text, re.MULTILINE), "out of memory"
    errors = re.findall(r"^error +(\w+) +\d+$", text, re.MULTILINE)
    assert errors[-1] == "content_filter"
