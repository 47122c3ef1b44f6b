"""An answer that tries to run something or to load something, rendered: it is read, and nothing else, in JupyterLab and in exported HTML."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest
from browser.cells import HELD, WHOLE, allow

pytestmark = pytest.mark.browser

#: The words in it are what a person must be able to read; `pwned` is set by none of it.
ANSWER = """## A heading

1. one **strong** thing
2. and `code`

| a | b |
|---|--:|
| x | y |

<script>window.pwned = 1</script> <img src="https://evil.example/a.png" onerror="window.pwned = 1"> <svg/onload="window.pwned=1">

![a picture](https://evil.example/b.png) ![inline](data:image/svg+xml,<svg/onload=window.pwned=1>)

[click](javascript:window.pwned=1) [out](https://evil.example/c) <https://evil.example/d>

<iframe src="https://evil.example/e"></iframe><style>@import url(https://evil.example/f);</style>

$$\\\\href{javascript:window.pwned=1}{formula}$$
"""
SETUP = f'answer = """{ANSWER}"""'
INSIDE = """where => { const box = document.querySelector(where); return {
  tags: [...new Set([...box.querySelectorAll('*')].map(e => e.localName))].sort(),
  hrefs: [...box.querySelectorAll('a')].map(a => a.getAttribute('href')),
  handlers: [...box.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on')),
  pwned: window.pwned ?? null}; }"""
SAFE = {"a", "br", "code", "div", "h4", "li", "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr"}


def looked_at(page: Any, where: str) -> str:
    """What the rendered answer says; it holds what is allowed, and ran nothing."""
    page.wait_for_selector(where)
    found = page.evaluate(INSIDE, where)
    assert set(found["tags"]) <= SAFE
    assert {"h4", "ol", "table", "strong", "code"} <= set(found["tags"])
    assert all(h.startswith("https://evil.example/") for h in found["hrefs"]), found["hrefs"]
    assert len(found["hrefs"]) == 3
    assert (found["handlers"], found["pwned"]) == ([], None)
    return str(page.locator(where).first.inner_text())


def test_a_hostile_answer_is_read_and_nothing_else(notebook: Any, context: Any) -> None:
    page = notebook(
        SETUP,
        "%%infer sim/echo --format markdown --no-cache\n{{ answer }}",
        "%%infer sim/echo --no-cache\n{{ answer }}",
        size=(1100, 1000),
    )
    asked: list[str] = []
    page.page.on("request", lambda r: asked.append(r.url))
    page.run(1)
    page.run(2)
    page.page.wait_for_timeout(500)
    said = looked_at(page.page, ".holynb-markdown")
    assert "<script>window.pwned = 1</script>" in said
    assert "a picture (https://evil.example/b.png)" in said
    assert "click (javascript:window.pwned=1)" in said
    page.picture("markdown-answer")
    page.run(3)
    second = page.find(".holynb-other").nth(1)
    second.locator("summary").click()
    page.until(second.locator("h4").is_visible, 10, "the answer, rendered")
    page.until(lambda: not page.find(".holynb-shown").nth(1).is_visible(), 5, "text and rendered, one at a time")
    page.picture("markdown-switched")
    html = exported(page.save())
    other = context.new_page()
    try:
        other.on("request", lambda r: asked.append(r.url))
        other.route("**", lambda r: r.abort() if r.request.url.startswith("http") else r.fallback())
        other.set_content(html, wait_until="commit")
        other.wait_for_selector(".holynb-markdown")
        other.wait_for_timeout(500)
        assert looked_at(other, ".holynb-markdown") == said
    finally:
        other.close()
    assert [url for url in asked if "evil.example" in url or url.startswith("data:image/svg+xml,<svg")] == []


def exported(notebook: dict[str, Any]) -> str:
    """As nbconvert writes it."""
    from nbconvert import HTMLExporter

    return str(HTMLExporter().from_notebook_node(nbformat.reads(json.dumps(notebook), as_version=4))[0])


def test_a_row_in_full_is_rendered_where_somebody_asks_for_it(notebook: Any) -> None:
    cell = "%%infer kept << sim/echo --df rows --no-cache -c 1\n{{ x }}"
    page = notebook(SETUP + HELD, "import pandas as pd\nrows = pd.DataFrame({'x': [answer, *map(str, range(8))]})", cell, size=(1100, 1000))
    page.run(1)
    page.run(2)
    allow(page, 0, 1)
    page.start(3)
    page.until(lambda: page.there(".hn .hn-is-ok"), 20, "an answer")
    page.find(".hn .hn-is-ok").first.click()
    page.until(lambda: "attempt 1" in page.find(".hn-detail").inner_text(), 10, "the row in full")
    page.until(lambda: "## A heading" in page.find(".hn-detail").inner_text(), 10, "the answer as text")
    page.find(".hn-detail .hn-formats").select_option("markdown")
    page.until(lambda: page.there(".hn-detail .holynb-markdown"), 10, "the answer as Markdown")
    assert "A heading" in looked_at(page.page, ".hn-detail .holynb-markdown")
    page.picture("markdown-row")
    page.find(".hn-detail .hn-formats").select_option("text")
    page.until(lambda: not page.there(".hn-detail .holynb-markdown"), 10, "the answer as text")
    allow(page, WHOLE)
    page.idle()


ONLY = """import holynb
from holynb.ui.live.source import RunSource
from holynb.ui.live.widget import LiveView
view = LiveView(RunSource(holynb.infer(answer, 'sim/echo').wait(20)))
view.widget"""


def test_the_only_answer_of_a_view_that_stayed_can_be_rendered(notebook: Any) -> None:
    page = notebook(SETUP, ONLY, size=(1100, 1000))
    page.run(1)
    page.run(2)
    choice = page.find(".hn-left > .hn-formats")
    page.until(choice.is_visible, 20, "the choice")
    page.until(page.find(".hn-answer").is_visible, 10, "the answer")
    choice.select_option("markdown")
    page.until(lambda: page.there(".hn-rendered .holynb-markdown"), 10, "the answer as Markdown")
    assert "A heading" in looked_at(page.page, ".hn-rendered .holynb-markdown")
    page.until(lambda: not page.find(".hn-answer").is_visible(), 5, "Markdown alone")
    page.picture("markdown-only")
    choice.select_option("text")
    page.until(page.find(".hn-answer").is_visible, 10, "the answer as text")
    page.until(lambda: not page.find(".hn-rendered").is_visible(), 5, "text alone")
