"""Several routes or samples of one prompt stand beside each other, each with what it took."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import holynb
from holynb.results.frame import cross_index
from holynb.ui.live.source import RunSource
from holynb.ui.output import compared, crossed, report, rows, static
from holynb.ui.output.html import CORNER

pytestmark = pytest.mark.usefixtures("no_project", "ended")


@pytest.mark.parametrize(
    ("routes", "samples", "names"),
    [
        (["a/x", "b/y"], 1, ("a/x", "b/y")),
        (["a/x"], 3, ("sample 0", "sample 1", "sample 2")),
        (["a/x", "b/y"], 2, ("a/x, sample 0", "a/x, sample 1", "b/y, sample 0", "b/y, sample 1")),
        (["a/x"], 1, ()),
    ],
)
def test_what_stands_beside_each_other_is_named_by_what_differs(routes: list[str], samples: int, names: tuple[str, ...]) -> None:
    assert crossed.variants(cross_index(None, 2, routes, samples)) == names


def test_an_index_of_ones_own_is_no_comparison() -> None:
    assert crossed.variants(pd.RangeIndex(3)) == ()
    assert crossed.variants(None) == ()
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"])
    assert crossed.prompt_labels(cross_index(index, 2, ["a/x", "b/y"], 1)) == [("a", 1), ("a", 1), ("b", 2), ("b", 2)]


def test_each_prompt_is_one_line_and_text_is_escaped() -> None:
    df = pd.DataFrame({"word": ["<b>one", "two", "three"]}, index=["r1", "r2", "r3"])
    run = holynb.infer("Say {{ word }} now", df=df, compare="sim/echo,sim/stream", max_tokens=4).wait()
    shown = report.of(run)
    html = static.as_html(shown).partition("</style>")[2].replace(CORNER, "<th>row</th>")
    heads = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", html)
    assert [h.partition("<br>")[0] for h in heads] == ["row", "prompt", "sim/echo", "sim/stream"]
    assert all(re.search(r">3 of 3 · \$0\.\d+ simulated · p50 ", h) for h in heads[2:])
    assert html.count("<tr>") == 4
    assert "Say &lt;b&gt;one now" in html
    assert "<b>" not in html
    assert html.count(" tokens · $") == 6 + 1, "one each, and the sum above"
    text = static.as_text(shown)
    assert "sim/stream: 3 of 3 · $" in text
    assert len([line for line in text.splitlines() if line.startswith("r")]) == 3
    view = RunSource(run).info
    assert [view.label(i) for i in (0, 1)] == ["r1, sim/echo", "r1, sim/stream"]
    assert view.first_routes == view.compared == shown.compared == ("sim/echo", "sim/stream")


def test_a_narrow_page_names_each_answer_by_its_route_and_no_other_runs_columns() -> None:
    run = holynb.infer(["One"], "sim/echo", compare="sim/echo,sim/stream", max_tokens=4).wait()
    html = static.as_html(report.of(run))
    assert re.findall(r'data-of="([^"]*)"', html) == ["sim/echo", "sim/stream"]
    assert "content:attr(data-of)" in html
    assert ">1 token · $" in html, "one is no plural"
    assert '<div class="holynb-rows holynb-compared holynb-of-2" tabindex="0" role="group"' in html
    wide = [int(px) for px in re.findall(r"@container \(max-width:(\d+)px\)", static.as_html(report.of(_four())))]
    assert max(wide) >= 5 * (10 * 12 + 16), "five columns of ten letters M with their padding"
    labels = [line for line in rows.STYLE.splitlines() if "content:" in line and "::before" in line]
    assert labels and all(":not(.holynb-compared)" in line for line in labels), (
        "the style of another cell's rows must not name these columns"
    )


def _four() -> holynb.Run:
    return holynb.infer(["One"], "sim/echo", samples=4, max_tokens=4).wait()


def test_more_than_there_is_room_for_have_a_line_each() -> None:
    run = holynb.infer(["One?", "Two?"], "sim/echo", samples=compared.MAX_COLUMNS + 1).wait()
    html = static.as_html(report.of(run)).partition("</style>")[2]
    assert html.count("<tr>") == 1 + 2 * (compared.MAX_COLUMNS + 1)
    assert ">0, sample 4<" in html
