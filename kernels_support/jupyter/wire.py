"""Frames on a private socket: four bytes of length, then JSON.

JSON and not pickle: a decode step of 256 sequences is 5 kB and is encoded in 50 µs, and nothing a peer sends can run code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

__all__ = ["MAX_FRAME_BYTES", "Framer", "WireError", "encode", "frames"]

Frame = dict[str, Any]

_LENGTH = struct.Struct(">I")

#: A prompt of a million tokens is 7 MB.
MAX_FRAME_BYTES = 64 * 1024 * 1024


class WireError(Exception):
    """The peer sent something that is not a frame."""


def encode(frame: Frame) -> bytes:
    """`frame` as bytes. Raises WireError where it is longer than MAX_FRAME_BYTES."""
    body = json.dumps(frame, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body):,} bytes; the longest is {MAX_FRAME_BYTES:,}")
    return _LENGTH.pack(len(body)) + body


class Framer:
    """Splits a byte stream, fed in chunks of any size, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises WireError on invalid data."""
        self._buffer += data
        out: list[Frame] = []
        while (size := _size(self._buffer)) is not None and len(self._buffer) >= 4 + size:
            out.append(_decode(bytes(self._buffer[4 : 4 + size])))
            del self._buffer[: 4 + size]
        return out

    @property
    def empty(self) -> bool:
        """No partial frame is buffered: a stream that ends now is complete."""
        return not self._buffer


def _size(buffer: bytearray) -> int | None:
    """The length that the buffer's head announces; None while the head is incomplete."""
    if len(buffer) < 4:
        return None
    size: int = _LENGTH.unpack_from(buffer)[0]
    if size > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {size:,} bytes was announced; the longest is {MAX_FRAME_BYTES:,}")
    return size


def _decode(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except ValueError as exc:
        raise WireError(f"a frame that is not JSON: {body[:60]!r}") from exc
    if not isinstance(frame, dict):
        raise WireError(f"a frame that is not an object: {body[:60]!r}")
    return frame


def frames(sock: socket.socket) -> Iterator[Frame]:
    """Frames of a blocking socket until the peer closes it or dies."""
    framer = Framer()
    while True:
        try:
            data = sock.recv(1 << 16)
        except (ConnectionError, OSError):
            return
        if not data:
            return
        yield from framer.feed(data)
