"""Lines of help: wrapped at 80 columns of a terminal, which two thirds of a line of Hangul fill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holynb.ui.output.helplines import HELP_WIDTH, entry, wrapped
from holynb.ui.output.text import columns


@given(st.lists(st.text("ab é한가😀", min_size=1, max_size=12), max_size=40))
def test_no_word_is_lost_and_no_line_is_too_long(words: list[str]) -> None:
    text = " ".join(words)
    lines = wrapped(text, "  ", "    ").split("\n")
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert all(columns(line) <= HELP_WIDTH for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


def test_what_a_term_does_stands_beside_it_or_below() -> None:
    assert entry("--x N", "what it does", 12) == "  --x N     what it does"
    assert entry("--longer N", "what it does", 12) == "  --longer N\n            what it does"
    assert entry("한글", "뜻", 10) == "  한글    뜻", "by columns, not by characters"
    assert wrapped("one\ntwo", "- ", "  ") == "- one\n- two"
