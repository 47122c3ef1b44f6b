"""What a file holds: its bytes unpacked, its text decoded. Knows no format of rows."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

__all__ = ["PACKINGS", "Unreadable", "decoded", "inside", "unpacked"]

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


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8, or what its byte order mark says; the mark is no part of it. Raises Unreadable."""
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None and len(data) >= 8 and any(data[:64:2]) != any(data[1:64:2]):
        raise Unreadable("is not UTF-8 text: every second byte is zero, as in UTF-16 without its byte order mark. Save it as UTF-8.")
    encoding = encoding or "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise Unreadable(
            f"is not {name} text (byte 0x{data[exc.start]:02x} in line {line}). Save it as UTF-8, or read it yourself "
            "(pandas takes encoding=…) and use --df."
        ) from None


def unpacked(path: Path, packing: str) -> bytes:
    """The bytes of a file, unpacked where its name ends in one of `PACKINGS`. Raises Unreadable and OSError."""
    data = path.read_bytes()
    if not packing:
        return data
    try:
        return PACKINGS[packing](data)
    except Unreadable:
        raise
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, OSError) as exc:
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


def _zip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(_only(archive))


def _zst(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise Unreadable("needs zstandard: pip install zstandard") from None
    pieces = []
    while data:  # a file may be several frames, one behind the other
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            pieces.append(frame.decompress(data))
        except zstandard.ZstdError as exc:
            raise OSError(str(exc)) from None
        if not frame.eof:
            raise EOFError("it ends too early, like a download that was cut off")
        data = frame.unused_data
    return b"".join(pieces)


PACKINGS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _zst,
    ".zip": _zip,
}
