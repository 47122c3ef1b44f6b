"""What a file holds: its bytes unpacked, its text decoded, each a part at a time. Knows no format of rows."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePath
from typing import IO, Any, TextIO

__all__ = ["PACKINGS", "Unreadable", "inside", "opened"]

#: Bytes that are read at once, and by which it is seen how a text is encoded.
PART_BYTES, HEAD_BYTES = 1 << 17, 64

#: UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(ValueError):
    """Why a file cannot be read and what to do, as words that go on from its name."""


@contextmanager
def opened(path: Path, packing: str, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file, read a part at a time: unpacked where its name ends in one of `PACKINGS`; UTF-8, or what its byte order mark
    says, which is no part of it. `newline`: as `open` takes it. Raises Unreadable and OSError, also later, while it is read.
    """
    with path.open("rb") as file:
        parts = _unpacked(file, packing)
        head = b""
        while len(head) < HEAD_BYTES and (part := next(parts, b"")):
            head += part
        encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        if encoding is None and len(head) >= 8 and any(head[:HEAD_BYTES:2]) != any(head[1:HEAD_BYTES:2]):
            raise Unreadable("is not UTF-8 text: every second byte is zero, as in UTF-16 without its byte order mark. Save it as UTF-8.")
        encoding = encoding or "utf-8"
        raw = io.BufferedReader(_Parts(chain([head], parts)), PART_BYTES)
        try:
            with io.TextIOWrapper(raw, encoding, newline=newline) as text:
                yield text
        except UnicodeDecodeError:
            file.seek(0)
            raise _undecodable(_unpacked(file, packing), encoding) from None


class _Parts(io.RawIOBase):
    """Bytes that come in parts, as a file that is read once."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest and (part := next(self._parts, None)) is not None:
            self._rest = memoryview(part)
        n = min(len(self._rest), len(into := memoryview(buffer)))
        into[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


def _undecodable(parts: Iterator[bytes], encoding: str) -> Unreadable:
    """Which byte in which line is no text."""
    decoder, lines, held, byte = codecs.getincrementaldecoder(encoding)(), 1, 0, 0
    for part in chain(parts, [b""]):
        try:
            decoder.decode(part, final=not part)
        except UnicodeDecodeError as exc:
            lines += exc.object.count(b"\n", 0, exc.start) - held
            byte = exc.object[exc.start]
            break
        held = decoder.getstate()[0].count(b"\n")  # what is decoded with the next part
        lines += part.count(b"\n")
    return Unreadable(
        f"is not {encoding.removesuffix('-sig').upper()} text (byte 0x{byte:02x} in line {lines}). Save it as UTF-8, or read it yourself "
        "(pandas takes encoding=…) and use --df."
    )


def _unpacked(file: IO[bytes], packing: str) -> Iterator[bytes]:
    try:
        yield from PACKINGS[packing](file) if packing else _parts(file)
    except Unreadable:
        raise
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, OSError) as exc:
        if not packing:
            raise
        raise Unreadable(f"cannot be unpacked as {packing}: {exc}. Unpack it yourself, and name the file that comes out.") from exc


def inside(path: Path) -> str:
    """The name of the one file in a .zip. Raises Unreadable where there is none, or more than one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _only(archive).filename
    except zipfile.BadZipFile as exc:
        raise Unreadable(f"cannot be unpacked as .zip: {exc}.") from exc


def _only(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    # A Mac puts a second file beside each.
    files = [f for f in archive.infolist() if not f.is_dir() and "__MACOSX" not in PurePath(f.filename).parts]
    if len(files) != 1:
        names = ", ".join(f.filename for f in files[:5]) or "none"
        raise Unreadable(f"holds {len(files)} files ({names}), and rows come from one. Unpack it, and name that one.")
    return files[0]


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(PART_BYTES):
        yield part


def _gz(file: IO[bytes]) -> Iterator[bytes]:
    return _parts(gzip.GzipFile(fileobj=file))  # type: ignore[arg-type]


def _bz2(file: IO[bytes]) -> Iterator[bytes]:
    return _parts(bz2.BZ2File(file))


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    return _parts(lzma.LZMAFile(file))


def _zip(file: IO[bytes]) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as archive, archive.open(_only(archive)) as inner:
        yield from _parts(inner)


def _zst(file: IO[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise Unreadable("needs zstandard: pip install zstandard") from None
    frame = None
    for part in _parts(file):
        rest = part
        while rest:  # a file may be several frames, one behind the other
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(rest)
            except zstandard.ZstdError as exc:
                raise OSError(str(exc)) from None
            frame, rest = (None, frame.unused_data) if frame.eof else (frame, b"")
    if frame is not None:
        raise EOFError("it ends too early, like a download that was cut off")


PACKINGS: Mapping[str, Callable[[IO[bytes]], Iterator[bytes]]] = {".gz": _gz, ".bz2": _bz2, ".xz": _xz, ".zst": _zst, ".zip": _zip}
