"""One server and one browser for all; a page for each test, which must end without an error and without having asked anybody outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook

_numbers = count()

Open = Callable[..., Page]


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


@pytest.fixture
def notebook(lab: Lab, context: Any) -> Iterator[Open]:
    """`notebook(cell, …)` opens a page on a notebook of these cells; the first cell loads the extension. `size` is of the window."""
    pages: list[Page] = []

    def start(*cells: str, size: tuple[int, int] = (1280, 900)) -> Page:
        page = Page(lab, context, write_notebook(lab.root / f"n{next(_numbers)}.ipynb", ["%load_ext holynb", *cells]), size)
        pages.append(page)
        page.run(0)
        return page

    yield start
    for page in pages:
        page.close()
    lab.end_kernels()
    for page in pages:
        assert page.outside == [], "something left the machine"
        assert page.errors == [], "the page reported errors"
