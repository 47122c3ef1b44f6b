"""Frames on a private socket: four bytes of length, then JSON. Knows no meaning of what it carries; never pickle.

JSON, because a decode step of 256 sequences is 5 kB and is written in 50 µs, and because nothing a peer sends can run code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["LONGEST", "Framer", "WireError", "encode", "frames", "read"]

Frame = dict[str, Any]

_LENGTH = struct.Struct(">I")

#: Bytes of the longest frame. A prompt of a million tokens is 7 MB.
LONGEST = 64 * 1024 * 1024


class WireError(Exception):
    """The other side sent something that is no frame."""


def encode(frame: Frame) -> bytes:
    """`frame` as bytes. Raises WireError where it is longer than LONGEST."""
    body = json.dumps(frame, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    if len(body) > LONGEST:
        raise WireError(f"a frame of {len(body):,} bytes; the longest is {LONGEST:,}")
    return _LENGTH.pack(len(body)) + body


class Framer:
    """Bytes in any pieces go in, whole frames come out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises WireError on what is no frame."""
        self._buffer += data
        out: list[Frame] = []
        while (size := _size(self._buffer)) is not None and len(self._buffer) >= 4 + size:
            out.append(_decode(bytes(self._buffer[4 : 4 + size])))
            del self._buffer[: 4 + size]
        return out

    @property
    def empty(self) -> bool:
        """No half of a frame is left: where the stream ends now, nothing was cut."""
        return not self._buffer


def _size(buffer: bytearray) -> int | None:
    """The length that the buffer's head announces; None before all of it came."""
    if len(buffer) < 4:
        return None
    size: int = _LENGTH.unpack_from(buffer)[0]
    if size > LONGEST:
        raise WireError(f"a frame of {size:,} bytes was announced; the longest is {LONGEST:,}")
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
    """Frames of a blocking socket until the other side closes it or dies."""
    framer = Framer()
    while True:
        try:
            data = sock.recv(1 << 16)
        except (ConnectionError, OSError):
            return
        if not data:
            return
        yield from framer.feed(data)


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame of an asyncio stream; None once the other side is gone (a half frame is dropped with it)."""
    import asyncio

    try:
        head = await reader.readexactly(4)
        size = _size(bytearray(head)) or 0
        return _decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
