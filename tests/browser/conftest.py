"""One server, one browser and one tab for all; a notebook for each test, which must end without an error and without having asked anybody outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook

_numbers = count()
FAILED = pytest.StashKey[bool]()

Open = Callable[..., Page]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that drives a browser is tried once more where it fails, as those of JupyterLab (Galata) are: page, server and kernel share one slow machine.

    A second failure is a fault. `-rR` prints which were tried again, `--rerun-show-tracebacks` why. Each try has the time of a test.
    """
    for item in items:
        if item.get_closest_marker("browser") and config.pluginmanager.hasplugin("rerunfailures"):
            item.add_marker(pytest.mark.flaky(reruns=1))
            item.add_marker(pytest.mark.timeout(float(config.getini("timeout")), func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Notes for `notebook` whether its test has failed: a test that is tried again is counted as failed afterwards, or never."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    server = Lab()
    yield server
    server.close()


@pytest.fixture(scope="session")
def window(lab: Lab) -> Iterator[Any]:
    """The browser. While it is open, its event loop counts as running in this thread: these tests come after all others."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(window: Any) -> Iterator[Any]:
    """One profile for all pages, so that JupyterLab itself is fetched once."""
    profile = window.new_context()
    yield profile
    profile.close()


@pytest.fixture(scope="session")
def tabs() -> Iterator[list[Page]]:
    """At most one, which tests leave to each other: JupyterLab takes longer to load than most of them."""
    left: list[Page] = []
    yield left
    for page in left:
        page.close()


@pytest.fixture
def notebook(request: pytest.FixtureRequest, lab: Lab, context: Any, tabs: list[Page]) -> Iterator[Open]:
    """`notebook(cell, …)` opens a notebook of these cells; the first cell loads the extension. `size` is of the window.

    `fresh`: in a tab of its own and the only one, for who loads it again or weighs it. `loads`: no, where one of the cells loads it. `name` of the file.
    """
    pages, only = list[Page](), list[Page]()

    def start(*cells: str, size: tuple[int, int] = (1280, 900), fresh: bool = False, loads: bool = True, name: str = "") -> Page:
        path = write_notebook(lab.root / f"{name or next(_numbers)}.ipynb", ["%load_ext holynb", *cells] if loads else cells)
        while fresh and tabs:  # two that are open share JupyterLab's memory of what was open
            tabs.pop().close()
        pages.append(page := tabs.pop() if tabs else Page(lab, context, path, size))
        only.extend([page] * fresh)
        if page.path != path:
            page.show(path, size)
        if loads:
            page.run(0)
        return page

    yield start
    outside, errors = ([what for page in pages for what in getattr(page, name)] for name in ("outside", "errors"))
    whole = not request.node.stash.get(FAILED, True) and not errors
    for page in pages:
        if whole and not tabs and page not in only:
            page.put_away()
            tabs.append(page)
        else:
            page.close()
    lab.end_kernels()
    assert outside == [], "something left the machine"
    assert errors == [], "the page reported errors"
