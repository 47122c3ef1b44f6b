"""Frames survive any cutting of the stream, and what is no frame is refused."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels_support.jupyter import wire

FRAMES = [{"t": "step", "e": [[1, [5, 6], None, None]]}, {"text": "안녕 😀"}, {}]


@given(st.lists(st.integers(1, 40), max_size=30))
def test_any_cutting_gives_the_same_frames(cuts: list[int]) -> None:
    data = b"".join(wire.encode(f) for f in FRAMES)
    framer, got, at = wire.Framer(), [], 0
    for size in [*cuts, len(data)]:
        got += framer.feed(data[at : at + size])
        at += size
    assert got == FRAMES
    assert framer.empty


def test_half_a_frame_is_no_frame() -> None:
    framer = wire.Framer()
    assert framer.feed(wire.encode({"a": 1})[:-1]) == []
    assert not framer.empty


@pytest.mark.parametrize("bad", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01{", b"\x00\x00\x00\x02[]", b"GET / HTTP/1.1\r\n"])
def test_what_is_no_frame_is_refused(bad: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Framer().feed(bad)


def test_too_long_a_frame_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 10)
    with pytest.raises(wire.WireError, match="longest is 10"):
        wire.encode({"text": "x" * 20})


def test_blocking_frames_end_with_the_other_side() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            for frame in FRAMES:
                theirs.sendall(wire.encode(frame))
        assert list(wire.frames(ours)) == FRAMES
