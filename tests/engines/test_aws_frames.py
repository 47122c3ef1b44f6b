"""Frames of AWS's event stream against botocore's own reader: the same frames, cut anywhere, or a Fault, whatever the bytes."""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st
from servers.golden import BEDROCK, SAGEMAKER

from holynb.engines.aws_frames import Frame, FrameDecoder
from holynb.errors import Fault

NAMES = st.sampled_from([":event-type", ":message-type", ":exception-type", ":error-code", ":error-message", ":content-type", "x", "ü"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def typed(kind: int, data: bytes) -> bytes:
    return struct.pack("!B", kind) + data


VALUES = st.one_of(
    TEXTS.map(lambda t: typed(7, struct.pack("!H", len(t.encode())) + t.encode())),
    st.binary(max_size=20).map(lambda b: typed(6, struct.pack("!H", len(b)) + b)),
    st.sampled_from([0, 1]).map(lambda k: typed(k, b"")),
    st.sampled_from([(2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)]).map(lambda k: typed(k[0], b"\x01" * k[1])),
)


def built(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
    whole = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return whole + struct.pack("!I", crc32(whole))


def named(name: str, value: bytes) -> bytes:
    return struct.pack("!B", len(name.encode())) + name.encode() + value


FRAMES = st.builds(
    lambda headers, payload: built(b"".join(named(n, v) for n, v in headers.items()), payload),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.binary(max_size=60),
)


def ours(*pieces: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def theirs(data: bytes) -> list[Frame]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    frames = []
    for message in buffer:
        parts = message.to_response_dict()
        h = parts["headers"]
        error = text(h.get(":exception-type")) or text(h.get(":error-code"))
        failed = h.get(":message-type") in ("error", "exception")
        frames.append(Frame(400 if failed else 200, error, parts["body"], text(h.get(":event-type")), text(h.get(":error-message"))))
    return frames


@pytest.mark.parametrize("data", [BEDROCK.stream, SAGEMAKER.stream], ids=["bedrock", "sagemaker"])
def test_golden_frames_are_read_as_botocore_reads_them_byte_by_byte(data: bytes):
    assert ours(data) == theirs(data) == ours(*(data[i : i + 1] for i in range(len(data))))


@given(st.lists(FRAMES, max_size=3).map(b"".join), st.integers(0, 200))
def test_any_frames_are_read_as_botocore_reads_them(data: bytes, cut: int):
    assert ours(data[:cut], data[cut:]) == theirs(data)


@given(FRAMES, st.integers(0, 200), st.integers(1, 255))
def test_a_byte_that_is_wrong_is_never_read_over(frame: bytes, at: int, flip: int):
    at %= len(frame)
    broken = frame[:at] + bytes([frame[at] ^ flip]) + frame[at + 1 :]
    with pytest.raises(Fault, match="the response stream is broken") as caught:
        ours(broken)
    assert (caught.value.kind, caught.value.retry) == ("server", True)


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_headers_that_are_none_are_a_fault_of_the_stream(headers: bytes, payload: bytes):
    """With right checksums: whoever writes them may write anything."""
    try:
        frames = ours(built(headers, payload))
    except Fault as fault:
        assert fault.kind == "server"
    else:
        assert [f.payload for f in frames] == [payload]


@given(st.binary(max_size=100))
def test_bytes_that_are_no_stream_are_a_fault_or_wait_for_more(data: bytes):
    try:
        assert ours(data) == []
    except Fault as fault:
        assert fault.kind == "server"


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (0, 0), (16, 1), (2**32 - 1, 0), (200_016, 131_073)])
def test_a_length_that_cannot_be_is_refused_before_it_is_waited_for(total: int, headers: int):
    prelude = struct.pack("!II", total, headers)
    with pytest.raises(Fault, match="length is impossible"):
        ours(prelude + struct.pack("!I", crc32(prelude)))
