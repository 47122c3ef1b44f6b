"""Answers side by side on pages of any width: each word stays whole, whatever has to move."""

from __future__ import annotations

from typing import Any

import pytest
from ui.facts import ok, record

from holynb.ui.output.static import as_html

pytestmark = pytest.mark.browser

#: The words of a table that are on more than one line.
DIVIDED = """() => { const out = [], walk = document.createTreeWalker(document.querySelector('.holynb-rows'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) for (const m of walk.currentNode.data.matchAll(/\\w+/g)) {
    const range = document.createRange(); range.setStart(walk.currentNode, m.index); range.setEnd(walk.currentNode, m.index + m[0].length);
    if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) out.push(m[0]);
  } return out; }"""
LONG = "one two three four five " * 20


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_no_word_is_divided_on_a_page_of_any_width(columns: int, context: Any) -> None:
    words = ["negative", "unenthusiastically", LONG, "positive"][:columns]
    variants = [f"sim/model-{i}" for i in range(columns)] if columns > 1 else []
    report = record([ok(word) for word in words] * 2, [LONG] * 2 * columns, variants=variants)
    page = context.new_page()
    try:
        page.set_content(as_html(report))
        for width in (320, 480, 560, 600, 640, 700, 800, 900, 1200):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(DIVIDED) == [], f"at {width} px"
    finally:
        page.close()
