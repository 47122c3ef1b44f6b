"""The bytes of an attachment, read when its row is sent: held against the hash, scaled, within what a wire takes. Sends nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from holynb.attached import Attachment
from holynb.attachments import kinds, measures, pillow
from holynb.attachments.sources import MAX_BYTES, Drawn, File, Held, Pixels
from holynb.words import an

__all__ = ["Loaded", "check_bytes", "loaded", "weight"]

_CHANGED = "has changed since the run began: run the cell again"


#: Bytes of a piece: whole groups of base64.
PIECE_BYTES = 3 * 2**14


class Loaded(NamedTuple):
    """What a part of a request is made of. `pieces`: the content, read as it is asked for. They raise ValueError where it has changed."""

    kind: str
    name: str
    size: int
    pieces: Iterator[bytes]


def loaded(attachment: Attachment, takes: Mapping[str, int], data: bytes | None = None) -> Loaded:
    """An attachment as it is sent. `takes`: kinds that the wire takes → bytes at most. `data`: of an address, once they are fetched.

    A file goes from the disk in pieces; what has to be packed or scaled is in memory as a whole. Raises ValueError, with words that
    follow the attachment's name.
    """
    if attachment.problem is not None:
        raise ValueError(attachment.problem)
    source = attachment.source
    resized = attachment.longest is not None and attachment.group == "image"
    still = attachment.kind == "image/gif" and kinds.STILL_GIF in takes
    if isinstance(source, File) and not resized and attachment.kind in takes and not still:
        file, facts = source.open()
        file.close()
        _check_size(attachment.kind, facts.st_size, takes)
        return Loaded(attachment.kind, attachment.name, facts.st_size, _from_disk(source, facts.st_size, attachment.digest))
    if data is None:
        if not isinstance(source, File | Held | Pixels | Drawn):
            raise ValueError("is not in the run log, which keeps a hash alone: run the cell again with --resume, or the same --name")
        data = source.read()
        digest = source.digest() if isinstance(source, Pixels | Drawn) else hashlib.sha256(data).hexdigest()
        if digest != attachment.digest:
            raise ValueError(_CHANGED)
    kind = check_bytes(data)
    if attachment.longest is not None and kind.startswith("image/"):
        data, kind = pillow.scaled(data, kind, attachment.longest)
    if kind not in takes or (kind == "image/gif" and kinds.STILL_GIF in takes and measures.is_animated(data)):
        # No wire takes all kinds of pictures; where Pillow reads one, it goes as PNG, which all of them take.
        if not kind.startswith("image/") or not pillow.installed():
            moving = "animated " if kind in takes else ""
            raise ValueError(f"is {an(moving + kinds.name_of(kind))}, which this provider does not take")
        data, kind = pillow.as_png(data), "image/png"
    _check_size(kind, len(data), takes)
    view = memoryview(data)
    return Loaded(kind, attachment.name, len(data), (bytes(view[i : i + PIECE_BYTES]) for i in range(0, len(data), PIECE_BYTES)))


def _from_disk(source: File, size: int, expected: str) -> Iterator[bytes]:
    digest, left, (file, _) = hashlib.sha256(), size, source.open()
    with file:
        while left > 0:
            piece = file.read(min(left, PIECE_BYTES))
            if len(piece) < min(left, PIECE_BYTES):
                raise ValueError(_CHANGED)
            digest.update(piece)
            left -= len(piece)
            yield piece
    if digest.hexdigest() != expected:
        raise ValueError(_CHANGED)


def _check_size(kind: str, size: int, takes: Mapping[str, int]) -> None:
    if size > takes[kind]:
        smaller = ": --attach-max 1568 scales pictures down" if kind.startswith("image/") else ": make it smaller"
        raise ValueError(f"has {size / 1e6:.1f} MB, and this provider takes {takes[kind] / 1e6:.3g} MB at most{smaller}")


def check_bytes(data: bytes) -> str:
    """The kind of a content that can be sent. Raises ValueError."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES // 10**6} MB: make it smaller first")
    head = data[: kinds.HEAD_BYTES]
    if (kind := kinds.kind_of(head)) is None:
        raise ValueError(kinds.unsent(head))
    if kind == "application/pdf" and measures.is_locked(data):
        raise ValueError("is a PDF with a password, which no model can open: save it without one")
    return kind


def weight(attachment: Attachment) -> int:
    """Bytes of memory that sending it may take at once: as text in a request, and its pixels where it is scaled or packed."""
    size = attachment.size if attachment.size is not None else MAX_BYTES // 10
    decoded = attachment.longest is not None or attachment.size is None
    area = 4 * attachment.pixels[0] * attachment.pixels[1] if decoded and attachment.pixels is not None else 0
    return size * 4 // 3 + area
