"""The splitter: every line end, every cut, and the shapes that real servers send."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.engines.sse import Event, Splitter, TooLong

STREAM = (
    "\ufeff: a comment first\n\n"
    'data: {"text":"안녕"}\n\n'
    "event: error\r\ndata: bad\r\n\r\n"
    "data:no space\rdata:  two spaces\r\r"
    ": keep-alive\n\n\n"
    "id: 7\nretry: 10\nunknown: x\ndata\n\n"
    "event: only a name\n\n"
    "data: 🍵 tea\ndata: \n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event("message", '{"text":"안녕"}'.encode()),
    Event("error", b"bad"),
    Event("message", b"no space\n two spaces"),
    Event("message", b""),
    Event("message", "🍵 tea\n".encode()),
    Event("message", b"[DONE]"),
]


def split(*pieces: bytes, max_bytes: int = 2**20) -> list[Event]:
    splitter = Splitter(max_bytes)
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.end()


def test_whole():
    assert split(STREAM) == EVENTS


def test_byte_by_byte():
    assert split(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


def test_cut_at_every_position():
    for i in range(len(STREAM) + 1):
        assert split(STREAM[:i], STREAM[i:]) == EVENTS, i


def test_cut_twice_around_every_line_end():
    for i in range(len(STREAM) - 2):
        assert split(STREAM[:i], STREAM[i : i + 1], b"", STREAM[i + 1 : i + 2], STREAM[i + 2 :]) == EVENTS, i


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_what_is_written_is_read(lines: list[str], end: str, data: st.DataObject):
    """Any text in any number of data lines, any line end, cut anywhere."""
    stream = "".join(f"data: {line}{end}" for line in lines).encode() + end.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(*pieces) == [Event("message", "\n".join(lines).encode())]


@given(st.lists(st.binary(max_size=12)))
def test_any_bytes_in_any_pieces_give_the_same(pieces: list[bytes]):
    assert split(*pieces) == split(b"".join(pieces))


def test_each_event_comes_as_soon_as_it_ends():
    splitter = Splitter()
    assert splitter.feed(b"data: 1\n") == []
    assert splitter.feed(b"\ndata: 2") == [Event("message", b"1")]
    assert splitter.feed(b"\r") == []
    assert splitter.feed(b"\r") == [Event("message", b"2")]
    assert splitter.end() == []


def test_an_event_without_its_empty_line_is_not_lost():
    assert split(b"data: [DONE]") == split(b"data: [DONE]\n") == [Event("message", b"[DONE]")]


def test_a_bom_inside_is_text():
    assert split(b"\n\xef\xbb\xbfdata: 1\n\ndata: 2\n\n") == [Event("message", b"2")]


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: " + b"x" * 100, b"data: xxxxxxxx\n" * 10, b"data: " + b"x" * 100 + b"\n\n"])
def test_what_is_too_long_is_refused(piece: bytes):
    with pytest.raises(TooLong):
        split(piece, max_bytes=64)


def test_a_long_line_in_small_pieces_costs_no_more_than_its_length():
    start = time.process_time()
    events = split(b"data: ", *[b"x" * 16] * 60_000, b"\n\n")
    assert len(events[0].data) == 960_000
    assert time.process_time() - start < 2.0
