"""Bars: lengths in proportion, names escaped, unknown said."""

from __future__ import annotations

import re

from holynb.ui.output.bars import Bar, Stack, chart, side_by_side, stacked
from holynb.ui.output.svg import COLOURS


def widths(page: str) -> list[float]:
    return [float(share) for share in re.findall(r"width:([\d.]+)%", page)]


def words(page: str) -> list[str]:
    return [t for t in re.split(r"<[^>]*>", page) if t.strip()]


def test_lengths_are_in_proportion_and_unknown_is_said() -> None:
    drawn = chart("Speed <fast>", [Bar("a/<b>", 10.0), Bar("c", 5.0, 1), Bar("d", None), Bar("e", 0.0)], lambda v: f"{v:g} t/s")
    assert widths(drawn) == [100.0, 50.0, 0.0, 0.0]
    assert words(drawn) == ["Speed &lt;fast&gt;", "a/&lt;b&gt;", "10 t/s", "c", "5 t/s", "d", "?", "e", "0 t/s"]
    assert "<script" not in drawn
    assert [COLOURS[i] in drawn for i in (0, 1, 2)] == [True, True, False]


def test_nothing_known_is_nothing() -> None:
    assert chart("x", [Bar("a", None)], str) == ""
    assert chart("x", [], str) == ""
    assert stacked("x", ["a"], [Stack("d", [0.0])], str) == ""
    assert side_by_side(["", ""]) == ""


def test_long_names_are_cut() -> None:
    assert words(chart("x", [Bar("n" * 90, 1e9)], lambda v: f"{v:,.0f}"))[1].endswith("n…")


def test_stacks_say_their_sum_and_have_a_key() -> None:
    drawn = stacked("A day", ["openai", "sim"], [Stack("Monday", [3.0, 1.0]), Stack("Tuesday", [0.0, 2.0])], lambda v: f"${v:.2f}")
    assert widths(drawn) == [75.0, 25.0, 50.0]
    assert words(drawn) == ["A day", "openai", "sim", "Monday", "$4.00", "Tuesday", "$2.00"]
