"""Charts: well-formed, bounded, escaped, legible without a stylesheet."""

from __future__ import annotations

import base64
import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

from layout import ROOT

from holynb.ui.output.glosses import GLOSSES
from holynb.ui.output.svg import HEIGHT, MAX_POINTS, WIDTH, Series, chart, picture, thin


def draw(*series: Series) -> ET.Element:
    return ET.fromstring(chart("Latency", series, lambda y: f"{y:.2f} s", lambda x: f"{x:.0f} s"))


def places(root: ET.Element) -> list[list[tuple[float, float]]]:
    lines = [e.attrib["points"] for e in root.iter() if e.tag.endswith("polyline")]
    return [[(float(p.split(",")[0]), float(p.split(",")[1])) for p in line.split()] for line in lines]


def test_lines_rise_from_zero_and_stay_inside() -> None:
    (line,) = places(draw(Series("p50", [(0, 0.0), (5, 1.0), (10, 2.0)])))
    assert line[0][1] > line[1][1] > line[2][1]
    assert math.isclose(line[1][1] - line[2][1], line[0][1] - line[1][1], abs_tol=0.2)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


def test_it_says_what_it_shows_to_those_who_do_not_see_it() -> None:
    root = draw(Series("p50", [(0, 1.0), (1, 2.0)]), Series("p95", [(0, 3.0), (1, 4.0)]))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Latency: p50 2.00 s, p95 4.00 s"


def test_names_are_escaped_and_there_is_no_script() -> None:
    drawn = chart("<script>", [Series("<b>&", [(0, 1.0), (1, 1.0)])], str, str)
    assert "<script" not in drawn
    assert "<b>" not in drawn
    ET.fromstring(drawn)


def test_colours_follow_the_page_and_have_a_fallback_without_css() -> None:
    drawn = chart("t", [Series("a", [(0, 1.0), (1, 1.0)])], str, str)
    assert "var(--jp-brand-color1,#" in drawn
    assert 'stroke="#2a7fd4"' in drawn


def test_nothing_to_draw_is_nothing() -> None:
    assert chart("t", [], str, str) == ""
    assert chart("t", [Series("a", [])], str, str) == ""


def test_one_point_all_zero_and_equal_ends_do_not_divide_by_zero() -> None:
    assert any(e.tag.endswith("circle") for e in draw(Series("a", [(3, 0.0)])).iter())
    draw(Series("a", [(3, 0.0), (3, 0.0)]))


def test_labels_of_lines_that_end_together_do_not_lie_on_each_other() -> None:
    root = draw(*(Series(f"d{i}", [(0, 1.0), (1, 1.0)]) for i in range(4)))
    ends = sorted(float(e.attrib["y"]) for e in root.iter() if e.tag.endswith("text") and (e.text or "").startswith("d"))
    assert len(ends) == 4
    assert all(b - a >= 10.9 for a, b in pairwise(ends))


def test_many_points_are_thinned_and_peaks_stay() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[5_000] = (5_000.0, 99.0)
    few = thin(points)
    assert len(few) <= MAX_POINTS
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert (5_000.0, 99.0) in few
    assert [x for x, _ in few] == sorted(x for x, _ in few)


def test_a_picture_is_the_drawing_in_plain_colours_and_says_what_it_shows() -> None:
    drawing = chart("Cost <b>", [Series("$1", [(0, 0.0), (1, 1.0)])], str, str)
    html = picture(drawing)
    assert (label := re.search('alt="([^"]*)"', html)) and label[1] == "Cost &lt;b&gt;: $1 1.0"
    inside = base64.b64decode(html.partition("base64,")[2].partition('"')[0]).decode()
    assert "var(" not in inside
    lines = [e for e in ET.fromstring(inside).iter() if e.tag.endswith("polyline")]
    assert [e.attrib["stroke"] for e in lines] == ["#2a7fd4"]
    assert picture("") == ""


def test_an_abbreviation_is_explained_to_whoever_points_at_it() -> None:
    image = picture(chart("Latency", [Series("p50", [(0, 1.0), (5, 2.0)]), Series("TTFT", [(0, 1.0), (5, 2.0)])], str, str))
    assert "&#10;p50: half took no longer&#10;TTFT: time to first token" in image
    assert "&#10;" not in picture(chart("Cost", [Series("", [(0, 1.0), (5, 2.0)])], str, str))
    script = (ROOT / "holynb" / "ui" / "assets" / "charts.js").read_text(encoding="utf-8")
    glosses = script.partition("const GLOSSES")[2].partition("};")[0]
    said = dict(re.findall(r'^  (\w+): "(.*)",$', glosses, re.MULTILINE))
    assert said == {word.lower(): meaning for word, meaning in GLOSSES.items()}, "the live charts say the same"
