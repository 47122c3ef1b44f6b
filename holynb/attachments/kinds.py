"""What a file is, by how it begins: the kinds that can be sent, and those that are known by name to say so. Pure."""

from __future__ import annotations

from holynb.words import an

__all__ = ["HEAD_BYTES", "SENT", "STILL_GIF", "kind_of", "name_of", "unsent"]

#: Bytes at the beginning that tell every kind; a PDF may have something else before its mark.
HEAD_BYTES = 4096
_PDF_WITHIN = 1024

#: Stands among the kinds of a wire that takes a GIF of one picture alone.
STILL_GIF = "image/gif; still"
#: The kinds that some wire takes → what they are called.
SENT = {
    "image/png": "PNG picture",
    "image/jpeg": "JPEG picture",
    "image/gif": "GIF picture",
    "image/webp": "WebP picture",
    "image/heic": "HEIC picture",
    "application/pdf": "PDF",
    "audio/wav": "WAV sound",
    "audio/mpeg": "MP3 sound",
    "audio/flac": "FLAC sound",
    "audio/ogg": "Ogg sound",
    "audio/aac": "AAC sound",
    "audio/mp4": "M4A sound",
}
#: Beginnings of kinds that no wire takes → what they are called.
_OTHERS = (
    (b"BM", "BMP picture"),
    (b"II*\0", "TIFF picture"),
    (b"MM\0*", "TIFF picture"),
    (b"PK\x03\x04", "ZIP or Office file"),
    (b"\xd0\xcf\x11\xe0", "Office file"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"\x1f\x8b", "gzip file"),
)
#: Brands of ISO media files.
_HEIC = (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis")


def kind_of(head: bytes) -> str | None:
    """The MIME type by the first HEAD_BYTES of a content; None for whatever is not in SENT."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return "application/pdf"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head[4:8] == b"ftyp":
        return "image/heic" if head[8:12] in _HEIC else "audio/mp4" if head[8:12] in (b"M4A ", b"M4B ") else None
    if head.startswith(b"ID3"):
        return "audio/mpeg"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return _frame(head)
    return None


def _frame(head: bytes) -> str | None:
    """MP3 or AAC by the header of the first frame: a mark of eleven bits alone would fit any noise."""
    version, layer, rate, frequency = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac" if head[2] >> 2 & 15 < 13 else None
    return "audio/mpeg" if version != 1 and layer == 1 and 0 < rate < 15 and frequency != 3 else None


def name_of(kind: str) -> str:
    """What a kind is called: `PNG picture`."""
    return SENT.get(kind, "file")


def unsent(head: bytes) -> str:
    """What a content is that cannot be sent, as far as its beginning tells."""
    if not head:
        return "is empty"
    known = next((name for mark, name in _OTHERS if head.startswith(mark)), None)
    if known is None and head[4:8] == b"ftyp":
        known = "AVIF picture" if head[8:12] in (b"avif", b"avis") else "video"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if known is None and text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text:
        known = "SVG drawing"
    if known is None and _is_text(head):
        return "is text, which goes into the prompt itself"
    return f"is {an(known)}" if known else "is no picture, PDF or sound that can be sent"


def _is_text(head: bytes) -> bool:
    try:
        head[: len(head) - 4 if len(head) >= HEAD_BYTES else None].decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
