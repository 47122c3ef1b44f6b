"""Rows cut into batches: each once, in order, within the limits of rows and bytes; and the id that a row bears in its batch."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from holynb import batches
from holynb.batches import Cutter, custom_id, row_of
from holynb.batches.limits import MOST_BYTES

OPENAI = batches.table()["openai"]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 120), max_size=60), st.integers(1, 9), st.integers(130, 400))
def test_every_row_is_in_one_piece_in_order_and_within_the_limits(sizes: list[int], rows: int, most: int) -> None:
    cutter: Cutter[int] = Cutter(replace(OPENAI, rows=rows, bytes=most))
    pieces = []
    for i, size in enumerate(sizes):
        entry = b"x" * size
        assert cutter.fits(entry)
        if cutter.is_full(entry):
            pieces.append(cutter.take())
        cutter.add(i, entry)
    pieces.append(cutter.take())
    assert [i for piece in pieces for i in piece.items] == list(range(len(sizes)))
    for piece in pieces:
        assert len(piece.items) <= rows and sum(len(e) + 1 for e in piece.entries) <= most
    # None is begun before the one before it is full.
    for piece, after in pairwise(pieces):
        assert len(piece.items) == rows or piece.bytes + len(after.entries[0]) + 1 > most


@given(
    st.from_regex(r"[0-9]{4}-[0-9a-f]{4}-[0-9]{1,3}", fullmatch=True),
    st.integers(0, 10**7),
    st.text("0123456789abcdef", min_size=12, max_size=20),
)
@settings(max_examples=40)
def test_an_id_tells_its_row_and_no_other_batchs(key: str, row: int, mark: str) -> None:
    id_ = custom_id(key, row, mark)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id_), "as Anthropic takes it"
    assert row_of(key, id_) == (row, mark[:12])
    assert row_of(f"{key}1", id_) is None and row_of("", "x") is None and row_of(key, f"{key}-²-a") is None


def test_the_limits_of_each_provider() -> None:
    for name, limits in batches.table().items():
        assert 0 < limits.rows <= 100_000 and 0 < limits.bytes <= 256_000_000 and limits.kept_days >= 2, name
        assert limits.carries in ("metadata", "displayName", "")
    assert MOST_BYTES < 10**8
    assert batches.table()["gemini"].bytes < 20_000_000


def test_every_figure_says_on_which_page_it_was_read_or_why_it_is_taken_for_granted() -> None:
    for name, entry in tomllib.loads((files("holynb.batches") / "limits.toml").read_text("utf-8")).items():
        read, unread = entry.pop("read"), entry.pop("unread")
        assert entry.keys() == read.keys() | unread.keys() and not read.keys() & unread.keys(), name
        assert all(r["page"].startswith("https://") and isinstance(r["date"], dt.date) and len(r) == 2 for r in read.values()), name
        assert all(why.strip() for why in unread.values()), name
        assert batches.table()[name].unread == unread.keys()
