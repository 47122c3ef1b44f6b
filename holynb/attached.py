"""What goes along with a message: a picture, a PDF, a sound. What is known of it, never its bytes. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = ["Attachment", "Source", "from_json"]


@runtime_checkable
class Source(Protocol):
    """Where the bytes of an attachment are read when it is sent. `read` raises ValueError with words for a person."""

    def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment. `source`: a Source; the address that is sent or fetched; what is sent, once it is read; None: only a log knows it.

    `kind`: its MIME type by content, empty where it is not known before it is fetched. `digest`: SHA-256 of the content, or the address.
    `name`: a path, an address, or its column. `at`: its place in the message's text; None: where the vendor recommends.
    `size` is in bytes, `pages` of a PDF, `seconds` of a sound; `longest`: pixels of the longest side that a picture is scaled down to.
    `problem`: why it cannot be sent.
    """

    kind: str
    digest: str
    name: str
    at: int | None = None
    size: int | None = None
    pixels: tuple[int, int] | None = None
    pages: int | None = None
    seconds: float | None = None
    longest: int | None = None
    problem: str | None = None
    source: Any = field(default=None, compare=False, repr=False)

    @property
    def group(self) -> str:
        """`image`, `pdf` or `audio`; empty where the kind is not known."""
        return "pdf" if self.kind == "application/pdf" else self.kind.partition("/")[0]

    @property
    def identity(self) -> list[Any]:
        """What makes two of them the same to a model: content, place and scale."""
        return [self.digest, self.at, self.longest]

    def to_json(self) -> list[Any]:
        """As the run log keeps it: what is known of it, and never its bytes."""
        return [getattr(self, name) for name in _KEPT]


_KEPT = ("kind", "digest", "name", "at", "size", "pixels", "pages", "seconds", "longest", "problem")


def from_json(values: list[Any]) -> Attachment:
    """An attachment as the run log kept it, without its source."""
    known = dict(zip(_KEPT, values, strict=False))
    pixels = known.get("pixels")
    return Attachment(**{**known, "pixels": None if pixels is None else (pixels[0], pixels[1])})
