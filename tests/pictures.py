"""Small files of every kind that goes along with a prompt, made here: pictures, PDFs and sounds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from holynb.attached import Attachment
from holynb.attachments import attachments_of, png
from holynb.types import Message

__all__ = ["GIF", "JPEG", "MP3", "OTHERS", "PDF", "PNG", "WAV", "WEBP", "attached", "noise", "pdf", "said_with"]


def noise(width: int = 40, height: int = 30, seed: int = 0) -> bytes:
    """A PNG that hardly packs: its size is that of its pixels."""
    return png.encode(np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8))


def pdf(pages: int = 3, trailer: bytes = b"", *, packed: bool = False) -> bytes:
    """A PDF whose tree of pages says so many; `packed`: in a stream of objects, as newer writers put it."""
    tree = b"1 0 obj<</Type /Pages /Kids [] /Count %d>>endobj" % pages
    if packed:
        stream = zlib.compress(tree)
        tree = b"4 0 obj<</Type /ObjStm /Length %d /Filter /FlateDecode>>stream\n%s\nendstream endobj" % (len(stream), stream)
    return b"%PDF-1.7\n" + tree + b"\ntrailer<</Root 2 0 R" + trailer + b">>\nstartxref\n9\n%%EOF\n"


PNG, PDF = noise(), pdf()
#: Headers of a picture of 40 × 30 pixels.
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x1e\x00\x28\x01\x01\x11\x00\xff\xd9"
GIF = b"GIF89a\x28\x00\x1e\x00\x00\x00\x00;"
WEBP = b"RIFF\x20\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x27\x00\x00\x1d\x00\x00"
#: Two seconds of silence.
WAV = (
    b"RIFF\x00\x00\x00\x00WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    + b"data"
    + struct.pack("<I", 16000)
    + bytes(16000)
)
MP3 = b"\xff\xfb\x90\x00" + bytes(413)
OTHERS = {
    b"": "is empty",
    b"BM" + bytes(60): "BMP",
    b"II*\0" + bytes(60): "TIFF",
    b"PK\x03\x04": "ZIP",
    b"\0\0\0\x20ftypisom": "video",
    b"\0\0\0\x20ftypavif": "is an AVIF picture",
    b"<svg xmlns='http://www.w3.org/2000/svg'>": "is an SVG drawing",
    b"\xef\xbb\xbf<!-- drawn -->\n<svg/>": "is an SVG drawing",
    b"dear model": "is text",
    bytes(range(256)): "no picture",
}


def attached(value: object, name: str = "photo", at: int | None = None, longest: int | None = None) -> Attachment:
    """The one attachment of a cell."""
    from dataclasses import replace

    (one,) = attachments_of(value, name, longest=longest)
    return replace(one, at=at)


def said_with(*attachments: Attachment, text: str = "What is it?") -> Message:
    """A user's turn with these."""
    return Message("user", text, attachments)


def written(folder: Path, **files: bytes) -> dict[str, str]:
    """Files of these contents, name → path; a name's last `_` is its dot."""
    paths = {}
    for name, data in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        path.write_bytes(data)
        paths[name] = str(path)
    return paths
