"""Bars: lengths in proportion, names escaped, unknown said."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from holynb.ui.output.bars import Bar, chart


def test_lengths_are_in_proportion_and_unknown_is_said() -> None:
    drawn = chart("Speed <fast>", [Bar("a/<b>", 10.0), Bar("c", 5.0, 1), Bar("d", None), Bar("e", 0.0)], lambda v: f"{v:g} t/s")
    tree = ET.fromstring(drawn)
    rects = tree.findall("{http://www.w3.org/2000/svg}rect")
    lengths = [float(r.get("width") or "nan") for r in rects]
    assert lengths[0] == 2 * lengths[1] > 0
    assert lengths[2:] == [0.0, 0.0]
    texts = ["".join(t.itertext()) for t in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["Speed <fast>", "a/<b>", "10 t/s", "c", "5 t/s", "d", "?", "e", "0 t/s"]
    assert "<script" not in drawn
    assert len({re.search(r"fill:(.*)", r.get("style") or "").group(1) for r in rects}) == 2


def test_nothing_known_is_nothing() -> None:
    assert chart("x", [Bar("a", None)], str) == ""
    assert chart("x", [], str) == ""


def test_long_names_are_cut_and_the_longest_bar_ends_inside() -> None:
    tree = ET.fromstring(chart("x", [Bar("n" * 90, 1e9)], lambda v: f"{v:,.0f}"))
    rect = tree.find("{http://www.w3.org/2000/svg}rect")
    assert float(rect.get("x")) + float(rect.get("width")) < float(tree.get("width"))
    assert "…" in "".join(tree.itertext())
