"""How large a picture is, how many pages a PDF has, how long a sound lasts: read from headers, nothing is decoded. Pure."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

__all__ = ["is_animated", "is_locked", "pages", "pixels", "seconds"]

#: Blocks of a GIF that are looked through for a second picture: those of a file made to take long would be tiny.
_MAX_BLOCKS = 400_000
#: Segments of a JPEG that are looked through for its size.
_MAX_SEGMENTS = 1000
#: Markers of a JPEG's frame headers: all of C0 to CF but tables and arithmetic coding.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Of a PDF: where its last trailer may be, and what of its packed objects is looked through for the tree of pages.
_TAIL_BYTES, _MAX_UNPACKED, _MAX_STREAMS = 65_536, 16 * 2**20, 4000
_ENCRYPT = re.compile(rb"/Encrypt\s*(?:\d+\s+\d+\s+R|<<)")
_STARTXREF = re.compile(rb"startxref\s+(\d+)")
_NODE, _COUNT = re.compile(rb"/Type\s{0,16}/Pages\b"), re.compile(rb"/Count\s{1,16}(\d{1,6})(?!\d)")
_PACKED, _STREAM = re.compile(rb"/Type\s{0,16}/ObjStm\b"), re.compile(rb"stream\r?\n")
#: Nodes of the tree that are looked at, and bytes of each before and behind its type; packed bytes of one stream. Files made to take long
#: would have millions of what begins like one.
_MAX_NODES, _NODE_BYTES, _MAX_PACKED = 20_000, 4000, 2**20


# -- pictures ------------------------------------------------------------------------------------------------------------
def pixels(kind: str, file: BinaryIO) -> tuple[int, int] | None:
    """Width and height; None where the header does not tell."""
    file.seek(0)
    try:
        if kind == "image/jpeg":
            return _jpeg(file)
        head = file.read(64)
        if kind == "image/png":
            width, height = struct.unpack(">II", head[16:24])
        elif kind == "image/gif":
            width, height = struct.unpack("<HH", head[6:10])
        elif kind == "image/webp":
            width, height = _webp(head)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return (width, height) if width and height else None


def is_animated(gif: bytes) -> bool:
    """Whether a GIF has more than one picture. One that breaks off has those before that."""
    at, count, left = 13 + _table(gif[10:11]), 0, _MAX_BLOCKS
    while at < len(gif) and count < 2 and left > 0:
        mark, at = gif[at], at + 1
        if mark == 0x2C:  # a picture: where it stands, its own colours, and how its pixels are packed
            count += 1
            at += 9 + _table(gif[at + 8 : at + 9]) + 1
        elif mark == 0x21:
            at += 1
        else:
            break
        while at < len(gif) and gif[at] and left > 0:
            at, left = at + gif[at] + 1, left - 1
        at, left = at + 1, left - 1
    return count > 1


def _table(flags: bytes) -> int:
    """Bytes of the colours that these flags tell of."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        mark = file.read(2)
        if len(mark) < 2 or mark[0] != 0xFF:
            return None
        if mark[1] == 0xFF:
            file.seek(-1, 1)  # filling
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if mark[1] in _FRAMES:
            height, width = struct.unpack(">HH", file.read(5)[1:])
            return (width, height) if width and height else None
        file.seek(length - 2, 1)
    return None


def _webp(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


# -- sounds --------------------------------------------------------------------------------------------------------------
def seconds(kind: str, head: bytes, size: int) -> float | None:
    """How long a sound lasts, for WAV, whose header tells; else None."""
    place = head.find(b"fmt ") if kind == "audio/wav" else -1
    if place < 0 or len(head) < place + 20:
        return None
    (rate,) = struct.unpack("<I", head[place + 16 : place + 20])
    return size / rate if rate else None


# -- PDFs ----------------------------------------------------------------------------------------------------------------
def is_locked(data: bytes) -> bool:
    """Whether a PDF is encrypted: its trailer says so, or the stream that stands in the trailer's place."""
    if _ENCRYPT.search(data, max(0, len(data) - _TAIL_BYTES)):
        return True
    places = [int(m[1]) for m in _STARTXREF.finditer(data, max(0, len(data) - _TAIL_BYTES))]
    return any(_ENCRYPT.search(data, place, place + 4096) for place in places if place < len(data))


def pages(data: bytes) -> int | None:
    """The number of pages, of the root of the tree of pages; None where it is not found."""
    return max((n for text in (data, *_packed(data)) for n in _counts(text) if n), default=None)


def _counts(text: bytes) -> Iterator[int]:
    """How many pages each node of the tree has. What is between two `>` is of one dictionary."""
    for match in islice(_NODE.finditer(text), _MAX_NODES):
        before, behind = max(0, match.start() - _NODE_BYTES), match.end() + _NODE_BYTES
        start, end = text.rfind(b">", before, match.start()), text.find(b">", match.end(), behind)
        count = _COUNT.search(text, max(before, start + 1), end if end >= 0 else behind)
        if count is not None:
            yield int(count[1])


def _packed(data: bytes) -> Iterator[bytes]:
    """The objects of a PDF that are packed in streams, as many as a bounded effort unpacks."""
    left = _MAX_UNPACKED
    for match in islice(_PACKED.finditer(data), _MAX_STREAMS):
        if left <= 0:
            return
        if (begins := _STREAM.search(data, match.end(), match.end() + 400)) is None:
            continue
        # To its end alone: what follows a stream is copied by zlib, which for thousands of them is the whole file each time.
        end = data.find(b"endstream", begins.end(), begins.end() + _MAX_PACKED)
        packed = memoryview(data)[begins.end() : end if end >= 0 else begins.end() + _MAX_PACKED]
        try:
            text = zlib.decompressobj().decompress(packed, left)
        except zlib.error:
            continue
        left -= len(text)
        yield text
