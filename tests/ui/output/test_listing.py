"""A command's table: aligned in a terminal, cards where it is narrow, and a table for a screen reader either way."""

from __future__ import annotations

import re

from holynb.ui.output import listing
from holynb.ui.output.listing import Listing, Markup, Verbatim
from holynb.ui.output.text import columns

WIDE = Listing(
    ["route", "rows", "cost", ""],
    [["sim/echo", "12", "$0.10", "ends soon"], ["한국어 <b>", "3", "", "👍🏽 " * 30]],
    {1, 2},
    prose={3},
    wide={3},
)


def test_text_is_aligned_under_wide_characters_and_numbers_at_their_ends() -> None:
    head, first, second = listing.as_text([WIDE]).split("\n")
    assert head == "route       rows   cost"
    assert first == "sim/echo      12  $0.10  ends soon"
    assert columns(second.partition("3 ")[0]) == columns(first.partition("12")[0]) + 1


def test_a_table_wider_than_the_terminal_is_written_row_by_row() -> None:
    text = listing.as_text([Listing(["a", "b", "c", ""], [["x", "1" * 20, "", "z" * 20], ["y", "2", "3", "q"]])], 30)
    assert text.split("\n") == ["x", f"  b {'1' * 20}", f"  {'z' * 20}", "y", "  b 2 · c 3 · q"]
    assert listing.as_text([WIDE], 200).startswith("route")


def test_html_escapes_labels_each_figure_and_keeps_the_roles_of_a_table() -> None:
    page = listing.as_html([WIDE, "said <i>", Markup("<hr>")])
    assert "한국어 &lt;b&gt;" in page
    assert "said &lt;i&gt;" in page
    assert "<hr>" in page
    assert re.findall(r'data-label="([^"]*)"', page) == ["rows", "cost", "rows", "cost"], "a head that is empty labels nothing"
    assert [page.count(f'role="{role}"') for role in ("table", "row", "columnheader", "rowheader")] == [1, 3, 3, 2]
    assert ">$0.10<" in page
    assert 'tabindex="0"' in page, "what scrolls can be reached by keys"


def test_rows_are_stacked_below_the_width_that_the_table_needs() -> None:
    narrow, broad = Listing(["a", "b"], [["1", "2"]]), Listing(["a"] * 9, [["words and words"] * 9])
    assert listing.breadth(narrow) < 100 < 900 < listing.breadth(broad)
    assert listing.style([narrow, narrow, broad]).count("@container") == 2


def test_text_stands_left_where_no_style_sheet_is_kept() -> None:
    page = re.sub(r"<style>.*?</style>", "", listing.as_html([WIDE]), flags=re.DOTALL)
    cells = re.findall(r"<t[hd] [^>]*>", page)
    assert ["text-align:left" in c for c in cells] == [True, False, False, True] * 3
    assert all("vertical-align:top" in c for c in cells), "beside the beginning of what is wrapped"


def test_prose_and_what_keeps_its_lines_are_broken_between_words() -> None:
    """JupyterLab breaks plain text within a word."""
    page = listing.as_html(["A long sentence.", Verbatim("a  b\n  c <i>")])
    assert re.findall(r"<(div|pre) dir=\"auto\"[^>]*word-break:normal[^>]*>([^<]*)</", page) == [
        ("div", "A long sentence."),
        ("pre", "a  b\n  c &lt;i&gt;"),
    ]
    assert listing.as_text([Verbatim("a  b\n  c")]) == "a  b\n  c"
