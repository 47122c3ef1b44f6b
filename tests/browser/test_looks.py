"""The live view as it looks and as it is reached: narrow, dark, by keyboard, by assistive technology, with ten thousand rows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser.cells import HELD, WHOLE, allow, endless
from browser.colours import contrast
from browser.figures import MANY, many

pytestmark = pytest.mark.browser

REPLAY = "%infer show --replay flaky-endless.jsonl.gz --speed 2"


@pytest.fixture(autouse=True)
def recording(lab: Any) -> None:
    """It goes on until its test has ended."""
    endless(lab.root)


def playing(notebook: Any, **more: Any) -> Any:
    page = notebook(REPLAY, **more)
    page.start(1)
    page.until(lambda: page.there(".hn .hn-is-ok") and page.there(".hn-chart canvas") >= 3, 20, "the view")
    return page


#: Ink and ground of the first of these in the view, nothing where there is none yet: on the notebook's ground, and on what it stands on itself.
ON_THE_PAGE = """s => { const e = document.querySelector('.hn ' + s);
  return e && [getComputedStyle(e).color, getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]; }"""
ON_ITS_OWN = """s => { const e = document.querySelector('.hn ' + s); let b = e; if (!e) return null;
  while (getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentNode;
  return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor]; }"""
#: The axes are drawn on a canvas with the colour that --hn-ink stands for.
AXIS = """() => { const probe = document.createElement('i'); probe.style.color = 'var(--hn-ink)';
  document.querySelector('.hn').append(probe); const c = getComputedStyle(probe).color; probe.remove();
  return [c, getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]; }"""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_words_and_axes_are_legible_in_every_theme(notebook: Any, theme: str) -> None:
    page = notebook(REPLAY)
    page.theme(theme)
    page.start(1)
    page.until(lambda: page.there(".hn .hn-is-error") and page.there(".hn-chart canvas") >= 3, 30, "the view with a failed row")
    page.picture(f"live-{theme.rsplit(maxsplit=1)[-1].lower()}")

    def legible(what: str, colours: str, selector: str) -> None:
        page.until(lambda: (found := page.ask(colours, selector)) and contrast(*found) >= 4.5, 5, f"a legible {what} in {theme}")

    for selector in (
        ".hn-done",
        ".hn-word",
        ".hn-cell",
        ".hn-heads .hn-cell",
        ".hn-note .hn-bad",
        ".hn-chip",
        ".hn-run",
        ".hn-tab",
        ".hn-is-ok .hn-cell:first-child",
        ".hn-is-error .hn-col-status",
    ):
        legible(selector, ON_THE_PAGE, selector)
    for selector in (".hn-tab[aria-pressed=true]", ".hn-stop", ".hn-find", ".hn-heads .hn-cell", ".hn-badge"):
        legible(selector, ON_ITS_OWN, selector)
    legible("axis", AXIS, "")
    page.theme("JupyterLab Light")


CUT_HEADS = """() => [...document.querySelectorAll('.hn-heads .hn-cell')]
  .filter(e => e.clientWidth > 14 && e.scrollWidth > e.clientWidth).length"""


def test_it_is_two_columns_and_one_where_there_is_no_room(notebook: Any) -> None:
    page = playing(notebook, size=(1280, 900))
    assert page.find(".hn-line").inner_text().count("sim/flaky") == 1, "the route is named once"
    box = "s => { const b = document.querySelector('.hn ' + s).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }"

    def beside() -> bool:
        left, right = page.ask(box, ".hn-left"), page.ask(box, ".hn-charts")
        return right[0] >= left[2] and abs(right[1] - left[1]) < 4

    page.until(beside, 10, "the charts beside the table")
    page.page.set_viewport_size({"width": 620, "height": 900})
    page.until(lambda: page.ask(box, ".hn-charts")[1] >= page.ask(box, ".hn-left")[3], 10, "the charts below the table")
    page.picture("live-narrow")
    wide = "() => { const e = document.querySelector('.hn'); return e.scrollWidth - e.clientWidth; }"
    page.until(lambda: page.ask(wide) <= 1, 10, "a view of which nothing sticks out")
    page.page.set_viewport_size({"width": 300, "height": 900})
    page.until(lambda: page.find(".hn-table").get_attribute("data-fit") == "stack", 5, "rows of two lines")
    page.until(lambda: page.ask(CUT_HEADS) == 0, 5, "heads that are whole, or not there")


STYLE = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"


def test_on_a_narrow_page_what_stays_is_legible(notebook: Any) -> None:
    """JupyterLab breaks what is preformatted anywhere, in letters of one width; four charts in 560 pixels lie over each other."""
    one, three = "%%infer sim/stream --max-tokens 15\nOne?", "%%infer sim/stream --max-tokens 40 --lines\nTwo?\nThree?\nFour?"
    page = notebook(one, three, size=(700, 900))
    page.say(HELD)
    allow(page, 5)
    page.start(1)
    page.until(lambda: page.there(".hn pre.hn-answer"), 20, "the answer as it comes")
    assert page.ask(STYLE, [".hn pre.hn-answer", "wordBreak"]) == "normal"
    letters = page.ask(STYLE, [".hn pre.hn-answer", "fontFamily"])
    assert letters == page.ask("() => getComputedStyle(document.documentElement).getPropertyValue('--jp-content-font-family').trim()")
    allow(page, WHOLE)
    page.idle()
    page.until(lambda: page.there("pre.holynb-answer"), 10, "what stays")
    assert page.ask(STYLE, ["pre.holynb-answer", "wordBreak"]) == "normal"
    page.run(2)
    page.shows(2, " simulated · ")
    assert page.ask(STYLE, [".holynb-rows td.k", "whiteSpace"]) == "nowrap", "a status is one word"
    tops = "() => [...document.querySelectorAll('.js-plotly-plot .annotation-text')].map(e => Math.round(e.getBoundingClientRect().top))"
    page.until(lambda: len(found := page.ask(tops)) >= 4 and len(set(found)) == 2, 20, "charts, two beside each other, two below")
    page.picture("end-narrow")


#: Of each chart whether it is as wide as four side by side need, and whether its place scrolls.
SCROLLED = """() => [...document.querySelectorAll('.js-plotly-plot')].map(e =>
  [e._fullLayout.width >= 720, e.parentNode.scrollWidth > e.parentNode.clientWidth])"""
HEIGHTS = "() => [...document.querySelectorAll('.js-plotly-plot')].map(e => [e.offsetHeight, e._fullLayout.width - e.offsetWidth])"


def test_charts_stay_when_the_window_changes_its_size(notebook: Any) -> None:
    """plotly gives a responsive chart a share of its container, which has no height of its own: it was gone after the first change."""
    page = notebook(
        "%%infer sim/stream --lines --no-cache --max-tokens 30\nOne?\nTwo?\nThree?",
        "%infer roi --requests-per-day 10000 --tokens 333..667",
        size=(1280, 900),
    )
    page.run(1)
    page.run(2)
    page.until(lambda: len(page.ask(HEIGHTS)) == 2, 20, "the charts")
    for size in ((1280, 1100), (1100, 900), (1280, 700)):
        page.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        page.page.wait_for_timeout(600)  # plotly waits a tenth of a second after the last change
        page.until(
            lambda: [(h, abs(w) < 3) for h, w in page.ask(HEIGHTS)] == [(250, True), (340, True)],
            10,
            f"charts as wide as a window of {size}, as high as before",
        )
    page.page.set_viewport_size({"width": 600, "height": 900})
    page.until(
        lambda: page.ask(SCROLLED) == [[True, True], [False, False]], 10, "charts side by side that scroll, and one that has become narrow"
    )


def test_every_row_is_reached_without_a_mouse(notebook: Any) -> None:
    page = playing(notebook)
    grid = page.find(".hn-scroll")
    grid.focus()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.until(
        lambda: "Row 2" in page.find(".hn-detail").inner_text() and "attempt 1 sent" in page.find(".hn-detail").inner_text(),
        10,
        "the row in full",
    )
    page.until(lambda: "Classify this review" in page.find(".hn-detail").inner_text(), 10, "its prompt")
    page.picture("detail")
    page.find(".hn-detail pre").first.focus()
    page.page.keyboard.press("Escape")
    page.until(lambda: not page.find(".hn-detail").is_visible(), 5, "the table alone")
    page.page.keyboard.press("End")
    page.until(lambda: page.find(".hn-chosen .hn-cell").first.inner_text() == "99", 5, "the last row")
    assert page.cells() == 2, "no key of ours reached the notebook"


def test_the_failed_ones_are_easy_to_find(notebook: Any) -> None:
    page = playing(notebook)
    page.until(lambda: page.find(".hn-tab-failed .hn-count").inner_text() != "0", 20, "a failed row")
    page.find(".hn-tab-failed").click()
    shown = page.find(".hn-sizer .hn-row:not([hidden])")
    page.until(lambda: shown.count() and all("content_filter" in t for t in shown.all_inner_texts()), 5, "failed rows alone")
    page.find(
        ".hn-tab",
    ).get_by_text("Newest first").click()
    page.find(".hn-tab-all").click()
    page.until(lambda: any("content_filter" not in t for t in shown.all_inner_texts()), 5, "all rows again")


def test_rows_are_found_by_their_words_and_sorted_by_their_figures(notebook: Any) -> None:
    page = playing(notebook)
    shown = page.find(".hn-sizer .hn-row:not([hidden])")
    page.until(lambda: int(page.find(".hn-done").inner_text().split()[0]) >= 40, 30, "forty rows")
    find = page.page.get_by_role("searchbox", name="Find rows")
    find.fill("BATTERY")  # as people type
    page.until(lambda: shown.count() and all("battery" in t.lower() for t in shown.all_inner_texts()), 5, "rows with the word alone")
    assert page.cells() == 2, "no letter of it reached the notebook"
    find.fill("in one sentence. Review 2")
    page.until(lambda: 5 < shown.count() < 15, 5, "words of what all prompts begin with, which no row shows, and of its own")
    find.fill("nobody says this")
    page.until(lambda: "No matching rows" in page.find(".hn-empty").inner_text(), 5, "an empty table")
    find.fill("")
    head = page.page.get_by_role("columnheader", name="latency_s")
    cost = ".hn-sizer .hn-row:not([hidden]) .hn-cell:nth-child(8)"

    def times() -> list[float]:
        """Of rows in sight, from above; those without one come last."""
        rows = page.ask(
            "s => [...document.querySelectorAll(s)].map(e => [e.parentNode.ariaRowIndex * 1, e.textContent]).sort((a, b) => a[0] - b[0])",
            cost,
        )
        return [float(text.split()[0]) for _, text in rows if text]

    for word, turn in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").focus()
        page.page.keyboard.press("Enter")
        page.until(lambda w=word: head.get_attribute("aria-sort") == w, 5, word)
        page.until(lambda t=turn: len(times()) > 5 and times() == sorted(times(), reverse=t < 0), 5, f"times {word}")
    page.picture("sorted")
    page.page.keyboard.press("Enter")
    page.until(lambda: head.get_attribute("aria-sort") == "none", 5, "the input's order")


def test_nothing_moves_where_people_asked_for_less_motion(notebook: Any) -> None:
    page = playing(notebook)
    moves = """() => { const e = document.querySelector('.hn-is-running .hn-glyph');
        return e && [getComputedStyle(e).animationName, getComputedStyle(document.querySelector('.hn-good')).transitionDuration]; }"""
    page.until(lambda: page.ask(moves) == ["hn-pulse", "0.15s"], 20, "a row that runs, and moves")
    page.page.emulate_media(reduced_motion="reduce")
    page.until(lambda: page.ask(moves) == ["none", "0s"], 20, "a row that runs, and stands still")
    page.page.emulate_media(reduced_motion="no-preference")


def test_assistive_technology_is_told_what_is_what(notebook: Any) -> None:
    page = playing(notebook)
    page.until(lambda: page.find("[role=grid]").get_attribute("aria-rowcount") == "101", 10, "the count of rows")
    assert page.find("[role=columnheader]").all_text_contents() == [
        "",
        "prompt",
        "text",
        "status",
        "tokens_in",
        "tokens_out",
        "cost",
        "latency_s",
    ]
    page.until(lambda: int(page.find(".hn-track[role=progressbar]").get_attribute("aria-valuenow")) >= 1, 10, "progress")
    assert page.find(".hn-track[role=progressbar]").get_attribute("aria-valuemax") == "100"
    page.until(lambda: page.find(".hn-chart-latency").get_attribute("aria-label").startswith("Latency: p50 "), 10, "the chart's name")
    spoken = page.find(".hn [role=status]")
    page.until(lambda: re.match(r"\d+ of 100, .*so far", spoken.inner_text()), 10, "what is read aloud, as it is seen")
    unnamed = page.ask("() => [...document.querySelectorAll('.hn button')].filter(b => !b.textContent.trim() && !b.ariaLabel).length")
    assert unnamed == 0


def test_ten_thousand_rows_open_at_once(notebook: Any) -> None:
    page = notebook(*MANY)
    print(f"\n{many(page)}")
    assert page.there(".hn .hn-sizer .hn-row") < 60, "only the rows in sight are in the page"
    page.find(".hn-scroll").evaluate("e => { e.dispatchEvent(new WheelEvent('wheel')); e.scrollTop = 28 * 8000; }")
    page.until(lambda: "8000" in page.find(".hn-sizer").inner_text(), 5, "the rows that were scrolled to")
    page.picture("ten-thousand")
    page.page.set_viewport_size({"width": 600, "height": 900})
    page.until(lambda: page.find(".hn-table").get_attribute("data-fit") == "narrow", 5, "a narrow table")
    assert page.ask(COVERED) is False, "all filters can be pressed, however many rows each counts"
    page.find(".hn-stop").click()
    page.ask("() => { document.querySelector('.hn-stop')?.click(); return null; }")  # at once, where rows are still in flight
    page.idle(30)


#: Whether the search covers the last filter where all count thousands.
COVERED = """() => { document.querySelectorAll('.hn-count').forEach(e => { e.textContent = '10,000'; });
  const [failed, find] = ['.hn-tab-failed', '.hn-find'].map(s => document.querySelector('.hn ' + s).getBoundingClientRect());
  return failed.right > find.left && failed.bottom > find.top; }"""
#: How far below its row's top the first line of each cell stands.
BASELINES = """cells => [...document.querySelectorAll(cells)].map(cell => { if (!cell.textContent || !cell.offsetWidth) return null;
    const probe = document.createElement('span'); probe.style.cssText = 'display:inline-block;width:0;height:0';
    (cell.querySelector('summary > span, .hn-said, .hn-state') ?? cell).prepend(probe);
    const y = probe.getBoundingClientRect().bottom - cell.parentNode.getBoundingClientRect().top; probe.remove();
    return Math.round(y * 10) / 10; }).filter(y => y !== null)"""


def test_rows_of_every_script_share_the_baseline(notebook: Any) -> None:
    """JupyterLab sets the line height of a table's cells to normal: a font that is taller than the others then moves its cell down."""
    mixed = ["배송이 빨라요", "plain latin", "日本語のレビュー", "🎉 great", "שלום"]
    page = notebook(f"mixed = {mixed!r}", "%%infer sim/echo --df mixed --no-cache\n{{ text }}")
    page.run(1)
    page.say(HELD)
    allow(page, 0)
    page.say("import pandas as pd; mixed = pd.DataFrame({'text': mixed})")
    page.start(2)
    page.until(lambda: page.there(".hn .hn-sizer .hn-row"), 20, "the live view")
    page.until(lambda: len(set(page.ask(BASELINES, ".hn-sizer .hn-row:not([hidden]) .hn-cell"))) == 1, 10, "rows of one baseline")
    allow(page, WHOLE)
    page.idle()
    page.until(lambda: len(set(page.ask(BASELINES, ".holynb-rows tbody td"))) == 1, 10, "rows of one baseline, at the end")
