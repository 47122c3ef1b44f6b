"""A run that is shown again, as a person uses it: sorted, searched, two rows side by side, taken out; and its notebook, reopened."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from browser.cells import ROWS

pytestmark = pytest.mark.browser

CELL = "%%infer kept << sim/echo --df df --name shown --no-cache\n={{ x }}"
CLIPBOARD = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); document.addEventListener('copy', () => {"
CLIPBOARD += " window.copied = document.activeElement.value; }); return null; }"


def test_it_is_sorted_compared_copied_and_written(notebook: Any, lab: Any) -> None:
    page = notebook(ROWS % (30, 30), CELL, "%infer show shown", fresh=True)
    for cell in (1, 2, 3):
        page.run(cell)
    rows = page.find(".hn .hn-sizer .hn-row:not([hidden])")
    page.until(lambda: rows.count() >= 10, 20, "the table")
    head = page.find(".hn-head").first
    page.until(lambda: " in all" in head.inner_text(), 10, "how long it took")
    assert "so far" not in head.inner_text()
    by_tokens = page.find(".hn [role=columnheader]").filter(has_text="latency_s")
    by_tokens.get_by_role("button").click()
    page.until(lambda: by_tokens.get_attribute("aria-sort") == "descending", 5, "the order")
    page.find(".hn-find").fill("review 2")
    page.until(lambda: page.find(".hn-scroll").get_attribute("aria-rowcount") == "12", 5, "2 and 20 to 29")
    rows.nth(1).click()
    compare = page.find(".hn").get_by_role("button", name="Compare")
    page.until(lambda: compare.count() == 1, 10, "the row in full")
    compare.press("Enter")
    page.until(lambda: "stays. Open another row" in page.find(".hn-next").inner_text(), 5, "what to do next")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    both = page.find(".hn").get_by_role("region", name="Details of row")
    page.until(lambda: both.count() == 2 and all("Attempts" in t for t in both.all_inner_texts()), 10, "two rows in full")

    def side_by_side() -> bool:
        left, right = (both.nth(i).bounding_box() for i in (0, 1))
        return left["y"] == right["y"] and left["x"] + left["width"] <= right["x"] and len(set(both.all_inner_texts())) == 2

    page.until(side_by_side, 10, "two rows side by side")
    bar = page.find(".hn").get_by_role("toolbar", name="Export the rows")
    said = bar.get_by_role("status")
    bar.get_by_role("button", name="CSV").click()
    page.until(lambda: said.inner_text() == "Written: holynb-shown.csv", 10, "the file")
    assert pd.read_csv(lab.root / "holynb-shown.csv", index_col=0)["text"].tolist() == [f"=review {i}" for i in range(30)]
    bar.get_by_role("checkbox", name="Safe for spreadsheets").check()
    page.ask(CLIPBOARD)
    bar.get_by_role("button", name="Copy").click()
    page.until(lambda: said.inner_text() == "Copied: 11 rows.", 10, "the copy")
    copied = page.ask("() => window.copied").splitlines()
    assert len(copied) == 12, "what the search leaves, and a head"
    assert all("\t'=review 2" in line for line in copied[1:])
    page.picture("shown-again")
    page.until(lambda: page.there(".holynb-standin"), 10, "what stays, hidden below the table")
    saved = page.save()
    kept = saved["cells"][3]["outputs"][1]["data"]
    assert "30 rows" in "".join(kept["text/plain"]), "a reader without widgets sees it, too"
    lab.end_kernels()
    page.expect("ernel", "404", "WebSocket")
    page.reload()
    page.until(lambda: page.there(".jp-OutputArea-output"), 30, "the output, reopened")
    page.find(".jp-Notebook .jp-Cell").nth(3).evaluate("e => e.scrollIntoView({block: 'end'})")  # what is out of sight is drawn later
    page.until(lambda: "30 rows" in page.text(3), 30, "what stays")
    page.expect("widget model not found")
    page.until(lambda: page.there(".hn") == 0, 10, "a page without a live view")
    assert "Error displaying widget" not in page.text(3)
    assert "model not found" not in page.text(3).lower()
    page.until(page.find(".holynb-standin").last.is_visible, 10, "what stays, in sight")
    page.picture("shown-again-reopened")
