"""A view in Korean: of what a person reads or hears there, English is left only where it is data, a command or a unit."""

from __future__ import annotations

from typing import Any

import pytest
from browser.cells import endless, live

pytestmark = pytest.mark.browser

KOREAN = "%env HOLYNB_LANGUAGE=ko"
#: English words of a view, of elements and attributes, hidden ones too; not those of prompts, answers and servers (`dir=auto`) and of a run's name.
ENGLISH = r"""known => { const said = [], own = e => !e.closest('[dir=auto], .hn-run, .hn-by, .hn-sizer, code, option[value=json]');
  for (const view of document.querySelectorAll('.hn')) {
    const walk = document.createTreeWalker(view, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) if (own(walk.currentNode.parentElement)) said.push(walk.currentNode.data);
    for (const e of [view, ...view.querySelectorAll('*')]) if (own(e))
      for (const name of ['title', 'aria-label', 'placeholder', 'aria-valuetext']) said.push(e.getAttribute(name) ?? '');
  }
  const words = said.join('\n').replaceAll(/sim[\/-][\w-]+|pool\/[\w.-]+|Qwen[\w./-]*|%infer.*/g, '').match(/[A-Za-z][a-z]+/g) ?? [];
  return [...new Set(words)].filter(w => !known.includes(w)); }"""
#: Units; kinds of failures, names of columns and of formats, as a cell takes them.
KNOWN = [
    "min",
    "ms",
    "kB",
    "holynb",
    "Markdown",
    "Parquet",
    "rate",
    "limit",
    "timeout",
    "server",
    "connection",
    "malformed",
    "content",
    "filter",
]
KNOWN += [
    "class",
    "precision",
    "recall",
    "labels",
    "answers",
    "macro",
    "average",
    "no",
    "label",
    "accuracy",
    "of",
    "to",
]  # columns of run.quality()
KNOWN += ["stop", "length", "two", "cut"]  # finish reasons, and pools
KNOWN += ["quota", "auth", "tokens", "in", "out", "latency", "cost", "status", "oom", "error", "ok"]


def english(page: Any) -> list[str]:
    return list(page.ask(ENGLISH, KNOWN))


#: Recording → seconds of it: to failures, to answers of one pool on two GPUs, and to a replica that has run out of memory.
SHOWN_S = {"flaky": 14.5, "gpus-tp2": 6.3, "gpus-dp2": 15.3}


@pytest.mark.parametrize("name", SHOWN_S)
def test_a_view_that_goes_on_says_all_in_korean(name: str, notebook: Any, lab: Any) -> None:
    file = endless(lab.root, name, SHOWN_S[name])
    page = notebook(KOREAN, f"%infer show --replay {file} --speed 3", size=(1280, 900))
    page.run(1)
    page.start(2)
    live(page)
    page.until(lambda: page.there(".hn-chart canvas") >= 2 and page.there(".hn .hn-is-ok"), 30, "charts")
    assert page.find(".hn-stop").count() == 1
    assert page.find(".hn-done").inner_text().count("중") == 1
    page.ask("() => document.querySelector('.hn-sizer .hn-is-ok').click()")
    page.until(lambda: page.there(".hn-detail:not([hidden]) h4"), 10, "a row in full")
    for theme in ("Light", "Dark"):
        page.theme(f"JupyterLab {theme}")
        page.picture(f"korean-{name}-{theme.lower()}")
    page.theme("JupyterLab Light")
    assert english(page) == []


SCORED = """import pandas as pd
df = pd.DataFrame({"x": ["a", "b", "c"] * 3, "label": ["a", "b", "a"] * 3})"""


def test_a_run_that_is_shown_again_says_all_in_korean(notebook: Any) -> None:
    page = notebook(KOREAN, SCORED, "%%infer sim/echo --df df --label label --name again\n{{ x }}", "%infer show again", size=(1280, 1100))
    for cell in (1, 2, 3, 4):
        page.run(cell)
    live(page)
    page.find(".hn-sizer .hn-row").first.click()
    page.until(lambda: page.there(".hn-detail:not([hidden]) .hn-attempts"), 10, "a row in full")
    page.picture("korean-again")
    assert english(page) == []
    page.page.get_by_role("button", name="비교", exact=True).click()
    page.until(lambda: "남겨 둡니다" in page.find(".hn-next").inner_text(), 5, "what to do next")
    assert english(page) == []
