"""Attachments as a person sees them: a small picture inside a page, and a line of what it is. Fetches nothing; never raises."""

from __future__ import annotations

import base64
from typing import Any

from holynb.attached import Attachment
from holynb.attachments import kinds, pillow
from holynb.attachments.sources import Drawn, File, Held, Pixels

__all__ = ["described", "ready", "thumbnail"]

#: Characters of a thumbnail's address, and pixels of its longest side.
MAX_CHARS, SIDE = 4_000, 96
_MAX_BYTES = MAX_CHARS * 3 // 4 - 40
#: Larger files are not read for it.
_MAX_READ = 20 * 10**6
#: What a page shows without help, where it is no larger than this: a few bytes may claim a hundred million pixels, and each reader of the
#: notebook would have to hold them.
_PLAIN = ("image/png", "image/jpeg", "image/gif", "image/webp")
_MAX_SHOWN = 1_000_000
#: Pixels that are decoded for it; a JPEG is decoded small from the start.
_MAX_DECODED = 25_000_000

#: Hash → address, empty where there is none. An old one may be needed again, so the first are dropped when it is full.
_known: dict[str, str] = {}
_MAX_KNOWN = 2_000


def ready(attachment: Attachment) -> str | None:
    """The thumbnail, where it was made before; None: not yet."""
    return _known.get(attachment.digest)


def thumbnail(attachment: Attachment) -> str:
    """A small picture as a data: address of at most 4,000 characters; empty where there is none: no picture, an address, no Pillow."""
    address = _known.get(attachment.digest)
    if address is None:
        try:
            address = _drawn(attachment)
        except Exception:  # noqa: BLE001 - what cannot be shown small is told in words
            address = ""
        while len(_known) >= _MAX_KNOWN:
            _known.pop(next(iter(_known)), None)
        _known[attachment.digest] = address
    return address


def _drawn(attachment: Attachment) -> str:
    source: Any = attachment.source
    pixels = attachment.pixels[0] * attachment.pixels[1] if attachment.pixels is not None else None
    large = pixels is not None and pixels > (pillow.MAX_PIXELS if attachment.kind == "image/jpeg" else _MAX_DECODED)
    if attachment.problem is not None or attachment.group != "image" or large or not isinstance(source, File | Held | Pixels | Drawn):
        return ""
    if (attachment.size or 0) > (_MAX_READ if pillow.installed() else _MAX_BYTES):
        return ""
    data, kind = source.read(), attachment.kind
    if len(data) > _MAX_BYTES or kind not in _PLAIN or pixels is None or pixels > _MAX_SHOWN:
        small = pillow.thumbnail(data, SIDE, _MAX_BYTES) if pillow.installed() else None
        if small is None:
            return ""
        data, kind = small, "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def described(attachment: Attachment) -> str:
    """`cat.png · PNG picture, 400 × 300, 120 kB`, or what is wrong with it."""
    name = attachment.name
    if not name.startswith(("http://", "https://")):
        name = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    if attachment.problem is not None:
        return f"{name} {attachment.problem}"
    size, pages = attachment.size, attachment.pages
    facts = [
        kinds.name_of(attachment.kind) if attachment.kind else "",
        f"{attachment.pixels[0]:,} × {attachment.pixels[1]:,}" if attachment.pixels is not None else "",
        f"{pages:,} page{'s' if pages != 1 else ''}" if pages is not None else "",
        f"{attachment.seconds:.0f} s" if attachment.seconds is not None else "",
        "" if size is None else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB",
    ]
    line = ", ".join(fact for fact in facts if fact)
    return f"{name} · {line}" if line else name
