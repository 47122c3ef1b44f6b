"""A cell in JupyterLab, as a person sees it: it fills, can be stopped, and leaves something that needs no kernel."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from browser.cells import ASK, HELD, ROWS, STREAM, WHOLE, allow, live

pytestmark = pytest.mark.browser

WIDGET = "application/vnd.jupyter.widget-view+json"


def kinds(saved: dict[str, Any], cell: int) -> list[set[str]]:
    """The mime types of a cell's outputs in the file."""
    return [set(o.get("data", {})) for o in saved["cells"][cell]["outputs"]]


def test_it_fills_row_by_row_and_leaves_something_static(notebook: Any) -> None:
    page = notebook(ROWS % (12, 12) + HELD, STREAM + " -c 4 --max-tokens 30" + ASK)
    page.run(1)
    allow(page, 5)
    began = time.monotonic()
    page.start(2)
    page.until(lambda: page.there(".hn"), 10, "the live view")
    assert time.monotonic() - began > 0.9, "nothing flashes in the first second"  # a slow machine only adds to it
    live(page)
    first = page.until(lambda: page.find(".hn-is-running .hn-said").first.inner_text(), 10, "words")
    allow(page, 10, 4)
    page.until(lambda: page.find(".hn-is-running .hn-said").first.inner_text() not in ("", first), 5, "more words")
    page.until(lambda: "4 of 12" in page.find(".hn-done").inner_text(), 20, "four rows")
    index = page.find(".hn-sizer .hn-row").first.locator(".hn-cell").first
    page.until(lambda: index.inner_text() == "r0", 5, "rows that bear the index of the frame")
    page.until(lambda: page.there(".hn-chart canvas") >= 3, 5, "the charts")
    page.picture("live-light")
    allow(page, WHOLE)
    page.idle(40)
    page.until(lambda: page.there(".hn") == 0, 20, "the live view's end")
    page.until(lambda: page.there(".js-plotly-plot .main-svg"), 20, "plotly charts")
    page.shows(2, "12 rows", "…3")  # without the beginning that all prompts share
    page.picture("end-light")
    saved = page.save()
    outputs = kinds(saved, 2)
    assert not any(WIDGET in o for o in outputs)
    assert {"text/html", "text/plain"} <= outputs[0]
    assert {"application/vnd.plotly.v1+json", "text/html"} <= outputs[1]
    assert page.path.stat().st_size <= 150_000
    assert saved["metadata"].get("widgets") is None
    assert page.say("f = Out[3]; print(type(f).__name__, list(f.index[:2]), set(f.status))") == "DataFrame ['r0', 'r1'] {'ok'}"


def test_a_run_under_a_second_shows_only_its_end(notebook: Any) -> None:
    page = notebook("%%infer sim/echo --no-cache\nhello <b>there</b>")
    page.ask("""() => { window.seen = 0; new MutationObserver(() => { window.seen += document.querySelectorAll('.hn').length; })
        .observe(document.body, {childList: true, subtree: true}); return null; }""")
    page.run(1)
    page.shows(1, "hello <b>there</b>")
    assert page.ask("() => window.seen") == 0


def test_one_prompt_streams_its_answer(notebook: Any) -> None:
    page = notebook(HELD, "%%infer sim/stream --no-cache --max-tokens 30\nTell me a story")
    page.run(1)
    allow(page, 5)
    page.start(2)
    page.until(lambda: page.there(".hn .hn-answer"), 10)
    first = page.until(lambda: page.find(".hn-answer").inner_text(), 10)
    allow(page, 10)
    later = page.until(lambda: (t := page.find(".hn-answer").inner_text()) != first and t, 5)
    assert later.startswith(first)
    allow(page, WHOLE)
    page.idle()
    page.until(lambda: page.text(2).count(later) == 1, 20, "the answer once")


def test_stop_keeps_what_is_there(notebook: Any) -> None:
    """The click is handled while the cell runs: its other rows would never end."""
    page = notebook(
        ROWS % (40, 40) + HELD,
        "%%infer kept << sim/stream --df df --stream --no-cache -c 8 --max-tokens 25" + ASK,
    )
    page.run(1)
    allow(page, 5, 8)
    page.start(2)
    live(page)
    page.until(lambda: "8 of 40" in page.find(".hn-done").inner_text(), 20, "eight rows")
    page.find(".hn-stop").click()
    page.idle(20)
    page.shows(2, "stopped")
    assert page.say("print((kept.status == 'ok').sum())") == "8"


def test_an_interrupt_keeps_what_is_there_and_ends_the_cell(notebook: Any) -> None:
    page = notebook(ROWS % (40, 40) + HELD, "%%infer kept << sim/stream --df df --stream --no-cache -c 8" + ASK, "print('must not run')")
    page.run(1)
    allow(page, 5)
    page.start(2)
    live(page)
    page.start(3)
    page.interrupt()
    page.idle(20)
    assert "Traceback" not in page.shows(2, "Interrupted")
    page.until(lambda: page.there(".hn") == 0, 20, "the live view's end")
    assert "must not run" not in page.text(3)
    assert page.say("print(len(kept))") == "40"


def test_a_second_interrupt_ends_at_once(notebook: Any) -> None:
    patient = "\nfrom functools import partial\nimport holynb.run.run\nholynb.run.run.Policy = partial(holynb.run.run.Policy, grace=3600.0)"
    page = notebook(ROWS % (8, 8) + patient, "%%infer sim/echo --df df --no-cache -p fault=stall" + ASK)
    page.run(1)
    page.start(2)
    live(page)
    page.interrupt()
    page.until(lambda: page.find(".hn-head").get_attribute("data-state") == "stopping", 10, "the first one's effect")
    page.interrupt()
    page.idle(20)  # the first one would have waited an hour for the rows in flight
    page.shows(2, "Interrupted")


def test_what_models_say_is_text(notebook: Any) -> None:
    hostile = [
        "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>",
        "\x1b[31mred\x1b[0m",
        "שלום עולם",
        "한국어 텍스트",
        "it cost $5, not $6",
        "\ud83d half",
    ]
    rows = f"import pandas as pd, json\ndf = pd.DataFrame({{'x': [*json.loads({json.dumps(json.dumps(hostile))}), 'x' * 1_000_000]}}, dtype=object)"
    page = notebook(rows + HELD, "%%infer sim/echo --df df --no-cache --max-tokens 5000000\n{{ x }}")
    page.run(1)
    allow(page, 0)
    page.start(2)
    live(page)
    texts = ("<script>window.pwned", "שלום עולם", "한국어 텍스트")
    page.until(lambda: all(text in page.find(".hn-sizer").inner_text() for text in texts), 20, "the prompts")
    hebrew = page.find(".hn-sizer .hn-row").nth(2).locator(".hn-cell").nth(1)
    page.until(lambda: hebrew.evaluate("e => getComputedStyle(e.dir ? e : e.firstChild).direction") == "rtl", 5, "its direction")
    page.picture("hostile")
    allow(page, WHOLE)
    page.idle(30)
    page.shows(2, "<script>window.pwned", "it cost $5, not $6")  # dollars are no formula
    assert page.ask("() => window.pwned ?? null") is None
    assert "\x1b" not in page.text(2)
    page.save()
    assert page.path.stat().st_size < 150_000


@pytest.mark.parametrize(
    ("cell", "says"),
    [("%%infer sim/echo --no-cache -p fault=401\nhi", "no row could be answered"), ("%%infer sim/echo --df empty\nhi", "no rows")],
)
def test_runs_of_which_nothing_comes_say_so(notebook: Any, cell: str, says: str) -> None:
    page = notebook("import pandas as pd; empty = pd.DataFrame({'x': []})", cell)
    page.run(1)
    page.run(2)
    page.shows(2, says)
