"""A notebook that is loaded again, reopened without a kernel, or run by another reader, as a person sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser.cells import ASK, HELD, ROWS, WHOLE, allow, live
from nbconvert import HTMLExporter

pytestmark = pytest.mark.browser


def test_after_a_reload_the_view_is_back_with_everything(notebook: Any) -> None:
    page = notebook(ROWS % (45, 45) + HELD, "%%infer sim/stream --df df --stream --no-cache -c 10 --max-tokens 12" + ASK, fresh=True)
    page.run(1)
    allow(page, 5, 10)
    page.start(2)
    live(page)
    page.until(lambda: "10 of 45" in page.find(".hn-done").inner_text(), 20, "ten rows")
    page.save()
    page.reload()
    page.until(lambda: page.there(".hn .hn-is-running"), 30, "the view after the reload")
    page.until(lambda: "10 of 45" in page.find(".hn-done").inner_text(), 20, "its count")
    page.until(lambda: page.find(".hn-is-ok").count() >= 1, 30, "rows from before the reload")
    allow(page, WHOLE)
    page.until(lambda: page.find(".hn-head").first.get_attribute("data-state") == "done", 90, "the end")
    page.until(lambda: "45 of 45" in page.find(".hn-done").inner_text(), 20, "all rows")
    page.expect("WebSocket", "Failed to load resource")


def test_it_reopens_without_a_kernel_and_exports_without_a_network(notebook: Any, lab: Any) -> None:
    page = notebook(ROWS % (30, 30), "%%infer sim/flaky --df df --stream --no-cache" + ASK, fresh=True)
    page.run(1)
    page.run(2, 90)
    page.until(lambda: page.there(".js-plotly-plot"), 20)
    page.save()
    lab.end_kernels()
    page.expect("ernel", "404", "WebSocket")
    page.reload()
    page.until(lambda: page.there(".jp-OutputArea-output"), 30, "the output, reopened")
    page.find(".jp-Notebook .jp-Cell").nth(2).evaluate("e => e.scrollIntoView({block: 'end'})")  # what is out of sight is drawn later
    page.until(lambda: page.there(".jp-RenderedPlotly img, .jp-RenderedPlotly .main-svg"), 30, "the charts, reopened")
    page.shows(2, "…3")
    assert "Error displaying widget" not in page.text(2)
    page.picture("reopened")
    body, _ = HTMLExporter().from_filename(str(page.path))
    body = body[body.index("<main") :] if "<main" in body else body[body.index("<body") :]
    assert "…3" in body
    assert body.count("data:image/svg+xml") + body.count("image/png") >= 1
    assert not re.findall(r"<script[^>]+src=", body)


def test_the_korean_notebook_runs_as_its_reader_runs_it(notebook: Any) -> None:
    book = json.loads((Path(__file__).parents[2] / "notebooks/01-first-run-ko.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    code = ["".join(c["source"]) for c in (cells[0], *(c for c in cells if c["id"].startswith("ko-")))]  # the others are in English, too
    page = notebook(*code, name="한국어 시작", loads=False)
    page.say(HELD)  # or the first run ends before anybody has looked
    allow(page, 3)
    for cell in range(len(code)):
        page.start(cell)
    page.ask("() => { window.jupyterapp.shell.currentWidget.content.scrollToItem(0); return null; }")
    page.until(lambda: page.there(".hn .hn-said"), 20, "the live view")
    page.picture("korean")
    allow(page, WHOLE)
    page.idle(90)
    shown = [page.text(cell) for cell in range(len(code))]
    first = next(i for i, c in enumerate(code) if c.startswith("%%infer"))
    page.shows(first, "분산 추론이 무엇인지")
    assert any("holysheep/gemini-2.5-flash" in s and "classification" in s for s in shown), "routed by what it asks"
    page.ask("i => { window.jupyterapp.shell.currentWidget.content.scrollToItem(i); return null; }", len(code) - 1)  # drawn once in sight
    page.until(lambda: "$800 to $1,600" in page.text(len(code) - 1), 10, "the table of prices")
    assert page.say("print(list(답.status), len(분류))") == "['ok', 'ok', 'ok'] 24"
    page.find(".jp-Notebook .jp-Cell").nth(first).evaluate("e => e.scrollIntoView({block: 'start'})")
    page.picture("korean-end")
