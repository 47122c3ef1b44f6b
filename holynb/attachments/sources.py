"""What a cell of a column holds → where its bytes are read: a path, an address, bytes, a picture of some library. Reads no network."""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from holynb.attachments import pillow, png
from holynb.words import an

__all__ = ["MAX_BYTES", "Drawn", "File", "Held", "Pixels", "Url", "source_of"]

#: Of one attachment: what OpenAI's files and Gemini's PDFs may have at most.
MAX_BYTES = 50 * 10**6
#: Characters of an address: what servers take, and an error can show.
_MAX_ADDRESS = 8192

_TOO_LARGE = f"{{}}; an attachment has {MAX_BYTES // 10**6} MB at most: make it smaller first"


@dataclass(frozen=True, slots=True)
class File:
    """A file of this machine."""

    path: str

    def open(self) -> tuple[BinaryIO, os.stat_result]:
        """The file and its facts. Raises ValueError: not there, no plain file, too large."""
        try:
            # A pipe would wait here for somebody to write into it.
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError) as exc:
            raise ValueError(f"cannot be read: {(getattr(exc, 'strerror', None) or str(exc)).lower()}") from exc
        facts = os.fstat(handle)
        if stat.S_ISREG(facts.st_mode) and facts.st_size <= MAX_BYTES:
            return os.fdopen(handle, "rb"), facts
        os.close(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"is {'a folder' if stat.S_ISDIR(facts.st_mode) else 'no plain file'}")
        raise ValueError(_too_large(facts.st_size))

    def read(self) -> bytes:
        file, _ = self.open()
        with file:
            return _bounded(file)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that the notebook holds."""

    data: bytes | bytearray | memoryview

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)

    def read(self) -> bytes:
        if len(self.data) > MAX_BYTES:
            raise ValueError(_too_large(len(self.data)))
        return bytes(self.data)


@dataclass(frozen=True, slots=True)
class Pixels:
    """An array of numpy, whose bytes are packed when they are sent."""

    array: Any

    def digest(self) -> str:
        return png.fingerprint(png.plane(self.array))

    def read(self) -> bytes:
        return png.encode(png.plane(self.array))


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image of Pillow."""

    image: Any

    def digest(self) -> str:
        return pillow.fingerprint(self.image)

    def read(self) -> bytes:
        return pillow.packed(self.image)


@dataclass(frozen=True, slots=True)
class Url:
    """An address, which is sent as it is or fetched when its row is sent."""

    url: str


Found = File | Held | Pixels | Drawn | Url


def source_of(value: Any, folder: str | None = None) -> Found:
    """Where the bytes of a cell's value are. `folder`: where a relative path is looked for that is not there. Raises ValueError."""
    if isinstance(value, str):
        return _named(value.strip(), folder)
    if isinstance(value, os.PathLike):
        return _path(os.fsdecode(value), folder)
    if isinstance(value, bytes | bytearray | memoryview):
        return Held(value)
    if isinstance(value, Mapping):
        return _struct(value, folder)
    if pillow.is_image(value):
        return Drawn(value)
    if hasattr(value, "savefig") or hasattr(getattr(value, "figure", None), "savefig"):
        return Held(_figure(value))
    if hasattr(value, "dtype") and hasattr(value, "ndim") and hasattr(value, "shape"):
        return Pixels(value)
    raise ValueError(f"is {an(type(value).__name__)}; an attachment is a path, an address, bytes, a picture or a figure")


def _named(text: str, folder: str | None) -> Found:
    try:
        scheme = urlsplit(text).scheme.lower() if "://" in text[:64] else ""
    except ValueError as exc:
        raise ValueError("is no address that can be asked") from exc
    if scheme in ("http", "https"):
        if len(text) > _MAX_ADDRESS:
            raise ValueError(f"is an address of {len(text):,} characters; {_MAX_ADDRESS:,} are asked for at most")
        return Url(text)
    if text[:5].lower() == "data:":
        return Held(_inline(text))
    if scheme == "file":
        from urllib.request import url2pathname

        if (host := urlsplit(text).netloc.lower()) not in ("", "localhost"):
            raise ValueError(f"is a file of {host}, another machine: give the path under which this one reaches it")
        return _path(url2pathname(urlsplit(text).path), folder)
    if scheme:
        raise ValueError(f"is an address of {scheme}://, which is not read: download it, or give an https address")
    if not text:
        raise ValueError("is an empty text; an attachment is a path, an address, bytes, a picture or a figure")
    return _path(text, folder)


def _path(text: str, folder: str | None) -> File:
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as exc:
        raise ValueError("is in the home of a user whom this machine does not have") from exc
    if folder is not None and not path.is_absolute() and not path.exists() and (beside := Path(folder) / path).exists():
        path = beside
    return File(str(path.absolute()))


def _inline(text: str) -> bytes:
    head, comma, data = text.partition(",")
    if not comma or not head.lower().endswith(";base64") or len(data) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError("is a data: address that is not base64, or too long")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("is a data: address whose base64 is broken") from exc


def _struct(value: Mapping[str, Any], folder: str | None) -> Found:
    """A picture or a sound as Hugging Face's datasets hold it undecoded: `bytes`, or the `path` of a file; or an `url`."""
    data, path, url = (value.get(name) for name in ("bytes", "path", "url"))
    if isinstance(data, bytes | bytearray | memoryview):
        return Held(data)
    if isinstance(path, str) and path:
        return _named(path, folder)
    if isinstance(url, str) and url:
        return _named(url, folder)
    names = ", ".join(map(str, list(value)[:8])) or "nothing"
    raise ValueError(f"is a struct of {names}; an attachment in a struct stands in bytes, path or url")


def _figure(value: Any) -> bytes:
    """A figure of matplotlib, or the one of its axes, as PNG: now, since what is drawn next would change it."""
    figure = value if hasattr(value, "savefig") else value.figure
    out = io.BytesIO()
    try:
        figure.savefig(out, format="png")
    except Exception as exc:
        raise ValueError(f"is a figure that cannot be drawn ({type(exc).__name__}: {exc})") from exc
    return out.getvalue()


def _bounded(file: BinaryIO) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(_too_large(len(data)))
    return data


def _too_large(size: int) -> str:
    return _TOO_LARGE.format(f"has {size / 1e6:,.0f} MB" if size >= 1e6 * 60 else f"has more than {MAX_BYTES // 10**6} MB")
