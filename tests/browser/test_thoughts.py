"""What a model thinks, in a real page: a row says that it does, one prompt shows it folded, and what stays needs no script."""

from __future__ import annotations

from typing import Any

import pytest
from browser.cells import HELD, ROWS, WHOLE, allow
from browser.colours import contrast

pytestmark = pytest.mark.browser

THINKS = "%%infer sim/stream --stream --no-cache -p thoughts={n}{more}\nSay what you think of it"


@pytest.mark.parametrize(("theme", "width"), [("JupyterLab Light", 1280), ("JupyterLab Dark", 620)])
def test_one_prompt_thinks_and_then_answers(notebook: Any, theme: str, width: int) -> None:
    page = notebook(HELD, THINKS.format(n=20, more=" --max-tokens 25"), size=(width, 900))
    name = theme.rsplit(maxsplit=1)[-1].lower()
    page.theme(theme)
    page.run(1)
    allow(page, 10)
    page.start(2)
    thoughts = page.find(".hn .hn-thoughts:not(.hn-part)")
    page.until(lambda: thoughts.is_visible() and "tokens" in thoughts.inner_text(), 20, "the summary of its thoughts")
    page.until(lambda: thoughts.inner_text().startswith("thinking … "), 10, "that it thinks")
    assert not thoughts.locator("pre").is_visible(), "they are folded"
    thoughts.locator("summary").click()
    page.until(lambda: "a prompt set out" in thoughts.locator("pre").inner_text(), 20, "the thoughts")
    page.picture(f"thinking-{name}-{width}")
    allow(page, 23)
    page.until(lambda: page.find(".hn .hn-answer").inner_text(), 20, "the answer")
    assert thoughts.locator("pre").is_visible(), "they stay open while it answers"
    ink, back = page.ask(
        """() => [getComputedStyle(document.querySelector('.hn-thoughts summary')).color,
        getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]"""
    )
    assert contrast(ink, back) >= 4.5
    allow(page, WHOLE)
    page.idle()
    kept = page.find(".holynb-thoughts")
    page.until(kept.is_visible, 10, "what stays")
    page.until(lambda: kept.locator("summary").inner_text() == "thought · 20 tokens", 10, "how much it thought")
    assert not kept.locator("pre").is_visible()
    page.picture(f"thought-{name}-{width}")
    kept.locator("summary").click()
    page.until(lambda: kept.locator("pre").inner_text().startswith("a prompt set out"), 10, "what it thought")
    page.picture(f"thought-open-{name}-{width}")
    page.shows(2, "(20 thought)")


def test_rows_that_think_say_so_and_one_in_full_shows_it_folded(notebook: Any) -> None:
    cell = THINKS.format(n=30, more=" --max-tokens 32 --df df") + " {{ x }}"
    page = notebook(ROWS % (6, 6) + HELD, cell, size=(620, 900))
    page.theme("JupyterLab Dark")
    page.run(1)
    allow(page, 8)
    page.start(2)
    row = page.find(".hn .hn-is-thinking").first
    page.until(lambda: page.there(".hn .hn-is-thinking") and "tokens" in row.inner_text(), 20, "a row that thinks")
    page.until(lambda: "thinking … " in row.locator(".hn-cell").nth(2).inner_text(), 10, "what the row says")
    page.picture("rows-thinking-dark-620")
    row.click()
    part = page.find(".hn-detail .hn-thoughts")
    page.until(lambda: page.there(".hn-detail .hn-thoughts"), 10, "the row in full")
    assert not part.locator("pre").is_visible()
    part.locator("summary").click()
    before = page.until(part.locator("pre").inner_text, 10, "the beginning of what it thinks")
    allow(page, 20)
    page.until(lambda: part.locator("pre").inner_text() > before, 10, "more of what it thinks")
    assert part.locator("pre").is_visible(), "it stays open while it grows"
    page.picture("row-in-full-dark-620")
    allow(page, WHOLE)
    page.idle()
