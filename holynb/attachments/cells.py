"""The attachments of a column's cell: what each is by its content, its hash and its measures, read once and in pieces. Sends nothing.

What is wrong with one is kept with it, so that its row alone ends with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, BinaryIO

from holynb.attached import Attachment
from holynb.attachments import kinds, measures, pillow
from holynb.attachments.sources import MAX_BYTES, Drawn, File, Held, Pixels, Url, source_of

__all__ = ["attachments_of", "broken", "known", "renewed"]

#: Attachments of one cell: more than any vendor takes in one request but as pages of a book.
MAX_IN_CELL = 100
_PIECE = 2**18
#: Path, size, time and inode of a file → what it is, so that Run All need not read ten thousand pictures again.
_seen: dict[tuple[str, int, int, int], Attachment] = {}
MAX_SEEN = 50_000


def attachments_of(value: Any, column: str, *, longest: int | None = None, folder: str | None = None) -> list[Attachment]:
    """The attachments that a cell holds: none for a missing value, several for a list. `longest`: pixels that pictures are scaled to."""
    values = list(value) if isinstance(value, list | tuple) or _is_list_of_objects(value) else [value]
    if len(values) > MAX_IN_CELL:
        return [broken(column, f"holds {len(values):,} attachments; a row takes {MAX_IN_CELL} at most")]
    return [replace(_one(v, column, folder), longest=longest) for v in values if not _is_missing(v)]


def broken(name: str, problem: str) -> Attachment:
    """An attachment that cannot be sent."""
    return Attachment("", hashlib.sha256(f"{name}: {problem}".encode("utf-8", "surrogatepass")).hexdigest(), name, problem=problem)


def renewed(attachment: Attachment) -> Attachment:
    """The same, looked at again: what was missing may be there now. As it is where nothing but a file could have changed."""
    if not isinstance(attachment.source, File):
        return attachment
    fresh = _one(attachment.source.path, attachment.name, None)
    return replace(fresh, at=attachment.at, longest=attachment.longest)


def known(attachment: Attachment) -> Attachment:
    """What the run log knows of an attachment, with its source where that is a file or an address."""
    if attachment.source is not None:
        return attachment
    if attachment.name.startswith(("http://", "https://")):
        return replace(attachment, source=Url(attachment.name))
    fresh = (
        replace(_one(attachment.name, attachment.name, None), at=attachment.at, longest=attachment.longest)
        if "/" in attachment.name
        else None
    )
    if fresh is not None and fresh.digest == attachment.digest:
        return fresh
    gone = "has changed since" if fresh is not None and fresh.problem is None else "is not in the run log, which keeps a hash alone"
    return replace(attachment, problem=f"{gone}: run the cell again with --resume, or the same --name")


def _one(value: Any, column: str, folder: str | None) -> Attachment:
    try:
        source = source_of(value, folder)
    except ValueError as exc:
        return broken(_shown(value, column), str(exc))
    name = source.path if isinstance(source, File) else source.url if isinstance(source, Url) else column
    try:
        return _facts(source, name)
    except ValueError as exc:
        return replace(broken(name, str(exc)), source=source)
    except Exception as exc:  # noqa: BLE001 - whatever a value of the notebook raises when it is read
        return replace(broken(name, f"cannot be read ({type(exc).__name__}: {exc})"), source=source)


def _facts(source: Any, name: str) -> Attachment:
    """Raises ValueError for what cannot be sent."""
    if isinstance(source, Url):
        return Attachment("", hashlib.sha256(source.url.encode("utf-8", "surrogatepass")).hexdigest(), name, source=source)
    if isinstance(source, Pixels):
        digest, (height, width) = source.digest(), source.array.shape[:2]
        return Attachment("image/png", digest, name, pixels=(width, height), source=source)
    if isinstance(source, Drawn):
        if source.image.size[0] * source.image.size[1] > pillow.MAX_PIXELS:
            raise ValueError(f"has {source.image.size[0] * source.image.size[1]:,} pixels; {pillow.MAX_PIXELS:,} can be sent at most")
        return Attachment("image/png", source.digest(), name, pixels=source.image.size, source=source)
    if isinstance(source, Held):
        if len(source.data) > MAX_BYTES:
            source.read()  # raises
        with source.open() as file:
            return replace(_measured(file), name=name, source=source)
    file, facts = source.open()
    with file:
        key = source.path, facts.st_size, facts.st_mtime_ns, facts.st_ino
        if (seen := _seen.get(key)) is None:
            if len(_seen) >= MAX_SEEN:
                _seen.clear()
            seen = _seen[key] = _measured(file)
        return replace(seen, name=name, source=source)


def _measured(file: BinaryIO) -> Attachment:
    """Kind, hash and measures. Raises ValueError."""
    head = file.read(kinds.HEAD_BYTES)
    kind = kinds.kind_of(head)
    if kind is None:
        raise ValueError(kinds.unsent(head))
    if kind == "application/pdf":
        data = head + file.read(MAX_BYTES)
        if measures.is_locked(data):
            raise ValueError("is a PDF with a password, which no model can open: save it without one")
        return Attachment(kind, hashlib.sha256(data).hexdigest(), "", size=len(data), pages=measures.pages(data))
    digest, size = hashlib.sha256(head), len(head)
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        if size > MAX_BYTES:  # it grows while it is read
            raise ValueError(f"has more than {MAX_BYTES // 10**6} MB, which an attachment has at most")
    picture = kind.startswith("image/")
    return Attachment(
        kind,
        digest.hexdigest(),
        "",
        size=size,
        pixels=measures.pixels(kind, file) if picture else None,
        seconds=None if picture else measures.seconds(kind, head, size),
    )


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT, NA, and an empty text; an array is none of them."""
    if value is None or isinstance(value, str):
        return not value
    if hasattr(value, "shape"):
        return False
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN


def _is_list_of_objects(value: Any) -> bool:
    """An array of anything but numbers: a list of paths comes as one out of Parquet."""
    return hasattr(value, "dtype") and hasattr(value, "ndim") and value.ndim == 1 and value.dtype.kind == "O"


def _shown(value: Any, column: str) -> str:
    """What to call a value that is no source."""
    return value if isinstance(value, str) and value and len(value) <= 200 else column
