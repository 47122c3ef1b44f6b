"""The frames of AWS's binary event stream (application/vnd.amazon.eventstream). Knows no engine and no JSON.

The format: https://smithy.io/2.0/aws/amazon-eventstream.html. botocore's reader is the test's oracle, and not used: a bearer token needs no
botocore, and of a frame whose checksum is right it lets other errors out than its own.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterator
from typing import NamedTuple

from holynb.errors import Fault

__all__ = ["CONTENT_TYPE", "Frame", "FrameDecoder"]

CONTENT_TYPE = "application/vnd.amazon.eventstream"

#: Of the protocol: https://smithy.io/2.0/aws/amazon-eventstream.html
MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES = 128 * 2**10, 24 * 2**20
#: Two lengths and their checksum; and the checksum at the end.
_PRELUDE = struct.Struct("!III")
_CRC_BYTES = 4
#: Type of a header's value → its bytes; the two that tell their length (6: bytes, 7: text) are read apart.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_COUNTED, _TEXT = (6, 7), 7


class Frame(NamedTuple):
    """One frame. `error`: AWS's name of the exception that it reports, "" for none; `status`: 200 for a part of the answer.

    `event`: the name of the event; `message`: what an error says outside of its payload.
    """

    status: int
    error: str
    payload: bytes
    event: str = ""
    message: str = ""


class FrameDecoder:
    """Fed with bytes, yields the frames that they complete."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end within `data`. Raises Fault for a broken frame."""
        self._rest += data
        while (size := self._size()) and len(self._rest) >= size:
            whole = bytes(self._rest[:size])
            del self._rest[:size]
            yield _frame(whole)

    def _size(self) -> int:
        """The bytes of the frame that begins here; 0 where too little of it has come. Raises Fault."""
        if len(self._rest) < _PRELUDE.size:
            return 0
        size, headers, checksum = _PRELUDE.unpack_from(self._rest)
        if crc32(self._rest[: _PRELUDE.size - _CRC_BYTES]) != checksum:
            raise _broken("a checksum is wrong")
        payload = size - headers - _PRELUDE.size - _CRC_BYTES
        if headers > MAX_HEADER_BYTES or not 0 <= payload <= MAX_PAYLOAD_BYTES:
            raise _broken("a frame's length is impossible")
        return int(size)


def _frame(whole: bytes) -> Frame:
    if crc32(whole[:-_CRC_BYTES]) != int.from_bytes(whole[-_CRC_BYTES:], "big"):
        raise _broken("a checksum is wrong")
    start, length = _PRELUDE.size, int.from_bytes(whole[4:8], "big")
    try:
        headers = dict(_headers(whole[start : start + length]))
    except (IndexError, KeyError, UnicodeDecodeError) as exc:
        raise _broken("a frame's headers cannot be read") from exc
    error = headers.get(":exception-type") or headers.get(":error-code") or ""
    failed = headers.get(":message-type") in ("error", "exception")
    payload = whole[start + length : -_CRC_BYTES]
    return Frame(400 if failed else 200, error, payload, headers.get(":event-type", ""), headers.get(":error-message", ""))


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    """The headers whose values are text; the others say nothing of an answer. Raises IndexError, KeyError, UnicodeDecodeError."""
    at = 0
    while at < len(data):
        name, at = _part(data, at + 1, data[at])
        kind, at = data[at], at + 1
        if kind in _COUNTED:
            prefix, at = _part(data, at, 2)
            value, at = _part(data, at, int.from_bytes(prefix, "big"))
        else:
            value, at = _part(data, at, _FIXED[kind])
        if kind == _TEXT:
            yield name.decode(), value.decode()


def _part(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    """So many bytes from `at` on, and where they end. Raises IndexError."""
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _broken(why: str) -> Fault:
    return Fault("server", f"the response stream is broken: {why}")
