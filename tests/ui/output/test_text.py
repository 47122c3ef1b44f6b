"""Plain text of runs: safe, short, honest about what is not known."""

from __future__ import annotations

from decimal import Decimal

import pytest

from holynb.results.summary import Summary
from holynb.ui.output.text import ago, bar, clean, clip, grid, one_line, percentile, progress, seconds


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("a\x00b\x07c\x9b2Jd", "abcd"),
        ("one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ("tab\tstays", "tab\tstays"),
        ("half \ud800 pair", "half � pair"),
        ("whole \ud83d\ude00 pair", "whole 😀 pair"),
        ("한글 שלום", "한글 שלום"),
        (None, ""),
    ],
)
def test_clean_leaves_only_text(raw: str | None, safe: str) -> None:
    assert clean(raw) == safe
    clean(raw).encode()  # what is left can always be written


def test_one_line_and_clip() -> None:
    assert one_line(" a\n b\t c ") == "a b c"
    assert one_line("\u202egnp.exe\u202c \u2067b\u2069") == "gnp.exe b", "nothing turns the rest of the line around"
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (float("inf"), "?"),
        (0.0, "0 s"),
        (0.00042, "0.4 ms"),
        (0.042, "42 ms"),
        (0.42, "0.42 s"),
        (1.25, "1.2 s"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_ago_and_bar() -> None:
    assert [ago(0, t) for t in (5, 300, 7200, 86400, 200000)] == ["just now", "5 min ago", "2 h ago", "1 day ago", "2 days ago"]
    assert [bar(s, 4) for s in (0, 0.5, 1, 2)] == ["    ", "██  ", "████", "████"]
    assert len(bar(0.123, 20)) == 20


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5


def test_progress_says_how_far_how_fast_how_dear() -> None:
    line = progress(Summary(200, ok=48, error=2, running=150, cost=Decimal("0.42"), elapsed=10.0), 5.0, 120.0, "pool is\nready")
    for part in ("50 of 200", "30 s left", "5 rows/s", "120 tokens/s", "$0.42", "2 failed", "pool is ready"):
        assert part in line
    assert "\n" not in line


def test_progress_claims_nothing_it_does_not_know() -> None:
    line = progress(Summary(10, running=10, elapsed=2.0), None, None)
    assert "left" not in line
    assert "rows/s" not in line
    assert "$" not in line
    assert "unknown" in progress(Summary(10, ok=2, running=8, cost=Decimal(1), unknown_cost=1), 1.0, None)


def test_grid_lines_up_wide_characters() -> None:
    lines = grid(["a", "b"], [["한글", "x"], ["ab", "y" * 60]]).splitlines()
    assert lines == ["a     b", "한글  x", "ab    " + "y" * 39 + "…"]
