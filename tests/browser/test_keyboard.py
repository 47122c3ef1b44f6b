"""The panel and the live table by keyboard alone, and what assistive technology says on the way."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser.cells import HELD, allow, endless

pytestmark = pytest.mark.browser

PROMPT = "() => document.querySelector('.holynb-prompt textarea').value"
FRAME = 'import pandas as pd\nreviews = pd.DataFrame({"text": [f"film {i}" for i in range(12)], "stars": [5, 1] * 6})'

#: What a mouse may press and Tab does not come to, but for the keys of plotly's charts, which are not ours: `reached` are ids that were put on what had the focus.
OUT_OF_REACH = """where => [...document.querySelectorAll(where + ' *')].filter(e => {
    const box = e.getBoundingClientRect();
    return getComputedStyle(e).cursor === 'pointer' && box.width && box.height && !e.closest('[data-reached], :disabled, .hn-sizer, .hn-heads, .js-plotly-plot');
  }).map(e => e.outerHTML.slice(0, 120))"""
REACHED = "where => { const e = document.activeElement; if (!e.closest(where)) return false; e.dataset.reached = 'yes'; return true; }"


class Reader:
    """Goes through a part of the page with Tab, and notes what is said of each stop: its role and its name."""

    def __init__(self, page: Any, where: str) -> None:
        self.page, self.where = page, where

    def said(self) -> str:
        """What has the focus, as it is read: `button "Run"`."""
        lines = self.page.page.locator(":focus").aria_snapshot().splitlines()
        return re.sub(r"^- '?|'?:?$", "", lines[0]).removesuffix("'") if lines else ""

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.page.keyboard.press(key)

    def enter(self) -> None:
        """From the cell above into the part."""
        for _ in range(12):
            self.press("Tab")
            if self.page.ask(REACHED, self.where):
                return
        raise AssertionError(f"Tab does not lead from the cell into {self.where}")

    def go(self, to: str) -> str:
        """Tab until this is said, and no further than the end of the part."""
        said = self.said()
        for _ in range(80):
            if to in said:
                return said
            self.press("Tab")
            assert self.page.ask(REACHED, self.where), f"Tab came to the end of {self.where} without {to}; the last was {said}"
            said = self.said()
        raise AssertionError(to)

    def through(self) -> list[str]:
        """Tab to the end of the part; what was said."""
        told = [self.said()]
        for _ in range(80):
            self.press("Tab")
            if not self.page.ask(REACHED, self.where):
                return told
            told.append(self.said())
        raise AssertionError("there is no end")


def reader(page: Any, cell: int, where: str) -> Reader:
    """In front of the output of a cell, as after Shift+Enter and Escape."""
    page.until(lambda: page.find(where).first.is_visible(), 20, f"{where} on the page")
    page.ask(
        "i => { const nb = window.jupyterapp.shell.currentWidget.content; nb.activeCellIndex = i; nb.mode = 'command'; return null; }", cell
    )
    page.ask("() => { window.jupyterapp.shell.currentWidget.content.activeCell.node.focus(); return null; }")
    it = Reader(page, where)
    it.enter()
    return it


def nameless(told: list[str]) -> list[str]:
    """Stops of which nothing is said; of a part that scrolls it is its text."""
    return [line for line in told if not re.search(r'"[^"]*\w|^text: .*\w', line)]


def test_the_panel_is_filled_in_run_and_stopped_by_keyboard(notebook: Any) -> None:
    page = notebook(FRAME + HELD, "%infer panel --df reviews")
    page.run(1)
    allow(page, 0)
    page.run(2)
    keys = reader(page, 2, ".widget-tab")
    keys.go('"Route"')
    page.page.keyboard.type("sim/stream")
    keys.go("text }}")
    keys.press("Enter")
    page.until(lambda: page.ask(PROMPT) == "{{ text }}", 5, "the column in the prompt")
    keys.go('"Prompt"')
    page.page.keyboard.type(" good?")
    keys.go("More: ")
    keys.press("Enter")
    page.until(lambda: page.find(".widget-tab .holynb-more").is_visible(), 20, "the options")
    keys.go("concurrency")
    page.page.keyboard.type("1")
    keys.go('"Run"')
    keys.press("Enter")
    page.until(lambda: page.there(".hn .hn-is-running"), 20, "the live view")
    keys = reader(page, 2, ".widget-tab")
    keys.go('"Stop"')
    keys.press("Enter")
    run = page.find(".widget-tab").get_by_role("button", name="Run", exact=True)
    page.until(lambda: run.is_enabled() and "stopped" in page.text(2), 30, "the end")
    page.idle()
    assert page.cells() == 3, "no key of ours reached the notebook"
    keys = reader(page, 2, ".widget-tab")
    told = keys.through()
    print("\n".join(["", *told]))
    assert not nameless(told)
    assert page.ask(OUT_OF_REACH, ".widget-tab") == []
    keys = reader(page, 2, ".widget-tab")
    keys.press("ArrowRight", "Enter")
    page.until(lambda: page.page.get_by_role("tab", name="Pools").get_attribute("aria-selected") == "true", 10, "the form of pools")
    told = keys.through()
    print("\n".join(["", *told]))
    assert not nameless(told)
    assert page.ask(OUT_OF_REACH, ".widget-tab") == []


def test_the_live_table_is_sorted_opened_and_stopped_by_keyboard(notebook: Any, lab: Any) -> None:
    page = notebook(f"%infer show --replay {endless(lab.root)} --speed 2")
    page.start(1)
    page.until(lambda: page.there(".hn .hn-is-ok") and page.find(".hn-tab-failed .hn-count").inner_text() != "0", 30, "a failed row")
    keys = reader(page, 1, ".hn")
    told = keys.through()
    print("\n".join(["", *told]))
    assert not nameless(told)
    assert page.ask(OUT_OF_REACH, ".hn") == []
    keys = reader(page, 1, ".hn")
    keys.go("Failed")
    keys.press("Enter")
    keys.go('grid "')
    keys.press("Home", "Enter")
    page.until(lambda: "attempt 1" in page.find(".hn-detail").inner_text(), 10, "the row in full")
    keys.go("Close the row")
    keys.press("Enter")
    page.until(lambda: not page.find(".hn-detail").is_visible(), 5, "the table alone")
    page.until(lambda: keys.said().startswith("grid"), 5, "the focus where it came from")
    keys.go("latency_s")
    keys.press("Enter")
    page.until(lambda: page.there(".hn [aria-sort=descending]") == 1, 5, "a sorted table")
    keys = reader(page, 1, ".hn")
    keys.go('"Stop')
    keys.press("Enter")
    page.until(lambda: page.ask("() => document.querySelector('.hn-head')?.dataset.state ?? 'gone'") != "running", 10, "the end")
    assert page.cells() == 2, "no key of ours reached the notebook"
