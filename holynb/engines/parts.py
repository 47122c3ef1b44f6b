"""A turn's text and attachments as parts in their order, and what of them each wire takes. Pure; how one is spelled is the wires' affair.

Limits as their vendors publish them, for one attachment; what is larger in all, a server refuses itself. Pages read 2026-11-29:
Anthropic: a request of 32 MB, so 24 MB before base64 (docs.claude.com/en/docs/build-with-claude/pdf-support); pictures before text
(platform.claude.com/docs/en/build-with-claude/vision). OpenAI: 50 MB of files a request. Bedrock: 3.75 MB a picture, 4.5 MB a document
(docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html). Kinds of audio: openai-python 2.54, botocore 1.44.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from holynb.attached import Attachment
from holynb.attachments.kinds import STILL_GIF
from holynb.types import Message, Request

__all__ = ["AS_URL", "TAKES", "Part", "content", "file_name", "in_order", "takes", "with_parts"]

_MB = 10**6
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SOUNDS = ("audio/wav", "audio/mpeg", "audio/flac", "audio/ogg", "audio/aac", "audio/mp4")


def _all(most: int, *kinds: str) -> dict[str, int]:
    return dict.fromkeys(kinds, most)


# OpenAI takes a "non-animated GIF", by its guide to images and vision.
_OPENAI = _all(50 * _MB, *_PICTURES, STILL_GIF, "application/pdf", "audio/wav", "audio/mpeg")
_RESPONSES = _all(50 * _MB, *_PICTURES, STILL_GIF, "application/pdf")
_GEMINI = _all(50 * _MB, "image/png", "image/jpeg", "image/webp", "image/heic", "application/pdf", *_SOUNDS[:-1])

#: Wire → kinds that it takes → bytes of one at most. A wire that is not here takes text alone.
TAKES: Mapping[str, Mapping[str, int]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "responses": _RESPONSES,
    "azure-responses": _RESPONSES,
    "anthropic": _all(24 * _MB, *_PICTURES, "application/pdf"),
    "gemini": _GEMINI,
    "vertex": _GEMINI,
    "bedrock": {**_all(3_750_000, *_PICTURES), "application/pdf": 4_500_000, **_all(25 * _MB, *_SOUNDS)},
    "sim": _all(50 * _MB, *_PICTURES, "image/heic", "application/pdf", *_SOUNDS),
}

#: Wire → what it takes as an address: pictures, PDFs, sounds. The others are fetched here, and sent as they are.
AS_URL: Mapping[str, tuple[str, ...]] = {
    "openai": ("image",),
    "azure": ("image",),
    "responses": ("image", "pdf"),
    "azure-responses": ("image", "pdf"),
    "anthropic": ("image", "pdf"),
    "gemini": ("image", "pdf", "audio"),
    "vertex": ("image", "pdf", "audio"),
}

#: Kinds by the end of an address, for one that is not read here.
_ENDINGS = {
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
}


class Part(NamedTuple):
    """An attachment as it is sent: its bytes, or its address where the server fetches it. `token`: what stands for them for now."""

    kind: str
    name: str
    data: bytes = b""
    url: str = ""
    token: str = ""

    @property
    def group(self) -> str:
        """`image`, `pdf` or `audio`."""
        return "pdf" if self.kind == "application/pdf" else self.kind.partition("/")[0]

    @property
    def base64(self) -> str:
        return self.token or base64.b64encode(self.data).decode("ascii")

    @property
    def address(self) -> str:
        """Its address, or the bytes as one."""
        return self.url or f"data:{self.kind};base64,{self.base64}"

    @property
    def short(self) -> str:
        """The kind's own name: png, jpeg, pdf, wav, mp3."""
        return {"audio/mpeg": "mp3", "audio/mp4": "m4a"}.get(self.kind, self.kind.rpartition("/")[2])


def takes(wire: str) -> Mapping[str, int]:
    """The kinds that a wire takes → bytes of one at most; empty for one that takes text alone, as those of other packages do."""
    return TAKES.get(wire, {})


def as_address(wire: str, url: str) -> Part | None:
    """The part for an address that the server fetches; None where it has to be fetched here. By the address alone: nothing is read."""
    path = url.partition("?")[0].partition("#")[0].lower()
    part = Part(next((kind for ending, kind in _ENDINGS.items() if path.endswith(ending)), "image/jpeg"), url, url=url)
    return part if part.group in AS_URL.get(wire, ()) else None


def with_parts(request: Request, parts: Mapping[Attachment, Part]) -> Request:
    """The request with each attachment's part in the place of its source."""
    messages = tuple(
        replace(m, attachments=tuple(replace(a, source=parts[a]) for a in m.attachments)) if m.attachments else m for m in request.messages
    )
    return replace(request, messages=messages)


def in_order(message: Message, *, first: Callable[[Part], bool] = lambda part: True) -> Iterator[str | Part]:
    """A turn's pieces of text and parts. Where nobody said where an attachment stands, `first` tells which come before the text."""
    placed = sorted((a for a in message.attachments if a.at is not None), key=lambda a: a.at or 0)
    beside = [a.source for a in message.attachments if a.at is None]
    yield from filter(first, beside)
    end = 0
    for attachment in placed:
        if (text := message.content[end : attachment.at]).strip():
            yield text
        end = attachment.at or 0
        yield attachment.source
    if (text := message.content[end:]).strip():
        yield text
    yield from (part for part in beside if not first(part))


def content(
    message: Message, text: Callable[[str], Any], part: Callable[[Part], Any], *, first: Callable[[Part], bool] = lambda part: True
) -> list[Any]:
    """A turn's content as a wire spells it."""
    return [text(piece) if isinstance(piece, str) else part(piece) for piece in in_order(message, first=first)]


def file_name(part: Part) -> str:
    """A name for a file: its own, without its folders, which are nobody's business."""
    name = part.name.replace("\\", "/").rstrip("/").rpartition("/")[2].partition("?")[0]
    return name if name.lower().endswith(f".{part.short}") else f"{name or 'file'}.{part.short}"
