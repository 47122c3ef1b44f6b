"""A run as the value of a cell: whatever its view does, what stays comes; and the main thread does not poll."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

import holynb
from holynb.ui.cell import rundisplay
from holynb.ui.live import timer
from holynb.ui.live import widget as lives


class Page:
    """A live view that fails at its `bad`th paint."""

    interval_s = 0.02

    def __init__(self, bad: int | None) -> None:
        self.bad, self.paints, self.ends = bad, 0, list[dict[str, str]]()

    def paint(self, _run: Any) -> None:
        self.paints += 1
        if self.paints == self.bad:
            raise RuntimeError("the page is gone")

    def end(self, bundle: Any) -> None:
        self.ends.append(dict(bundle))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Page:
    made = Page(getattr(request, "param", None))
    monkeypatch.setattr(lives, "Live", lambda clicks: made)
    monkeypatch.setattr(rundisplay, "detect", lambda _shell: SimpleNamespace(widgets=True))
    return made


def shown_to_its_end(**options: Any) -> holynb.Run:
    run = holynb.infer(["one", "two"], "sim/stream", max_tokens=5, cache=False, **options)

    async def cell() -> None:
        rundisplay.show(run, None)
        end = asyncio.get_running_loop().time() + 20
        while timer._tasks:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.01)

    asyncio.run(cell())
    return run


def test_it_is_painted_in_its_cell_and_then_on_the_loop(page: Page) -> None:
    shown_to_its_end()
    assert page.paints > 3
    assert [("2 rows" in b["text/html"], "could not be shown" in b["text/html"]) for b in page.ends] == [(True, False)]


@pytest.mark.parametrize("page", [1, 3], indirect=True)
def test_a_view_that_fails_does_not_cost_what_stays(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    run = shown_to_its_end()
    assert page.paints == page.bad, "it is not asked again"
    assert len(page.ends) == 1
    assert "Progress could not be shown" in page.ends[0]["text/html"]
    said = capsys.readouterr().out
    assert (f"%infer show {run.id}" in said) == (page.bad == 1), "one that cannot begin is one line until then"


def test_with_nothing_to_show_it_is_one_line(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    run = shown_to_its_end(show="none")
    assert (page.paints, page.ends) == (0, [])
    assert f"%infer stop {run.id}" in capsys.readouterr().out
    run.wait(20)


def test_a_run_that_is_quick_is_waited_for_without_polling(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _s: pytest.fail("the kernel's main thread sleeps"))
    run = holynb.infer("hello", "sim/echo", cache=False)
    monkeypatch.setattr(rundisplay, "GRACE_S", 10.0)
    rundisplay.show(run, None)
    assert run.done
    assert page.paints == 0
