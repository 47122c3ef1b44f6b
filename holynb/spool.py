"""Records of bytes, kept in memory while they are few and in a file without a name after that. Knows nothing of what they mean.

What a million rows ask and answer is larger than what a notebook's kernel should hold: it lies on the disk, and is read again where it is
needed. A disk that is full costs memory, and no record.
"""

from __future__ import annotations

import os
import tempfile
import threading
from bisect import bisect_right
from pathlib import Path
from struct import Struct
from typing import IO

__all__ = ["MANY", "Spool"]

#: From so many rows on, what a run holds of each lies in a spool; below, it is an object.
MANY = 5_000
#: Bytes that are written to the file at once, and that stay in memory before there is a file.
BLOCK_BYTES, MEMORY_BYTES = 1 << 17, 1 << 20

_LENGTH = Struct("<I")


class Spool:
    """Written by one thread; read by any. `folder`: where the file lies, of which nothing is left when this object is gone.

    None: in the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._starts: list[int] = []
        """Where each whole block begins."""
        self._kept: dict[int, bytes] = {}
        """Blocks by their number that are in memory: the first ones, and those that the disk did not take."""
        self._current = bytearray()
        self._base = 0
        self._file: IO[bytes] | None = None
        self._failed = False
        self._cached: tuple[int, bytes] = (-1, b"")
        self._pid = os.getpid()

    def put(self, record: bytes | memoryview) -> int:
        """Keep a record. Returns where, for `get`."""
        with self._lock:
            place = self._base + len(self._current)
            self._current += _LENGTH.pack(len(record))
            self._current += record
            if len(self._current) >= BLOCK_BYTES:
                self._close_block()
        return place

    def get(self, place: int) -> bytes:
        """The record that was put there."""
        with self._lock:
            if place >= self._base:
                block, at = self._current, place - self._base
            else:
                number = bisect_right(self._starts, place) - 1
                block, at = self._block(number), place - self._starts[number]  # type: ignore[assignment]
            (length,) = _LENGTH.unpack_from(block, at)
            return bytes(block[at + 4 : at + 4 + length])

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            file.close()

    def _close_block(self) -> None:
        number, block = len(self._starts), self._current
        self._starts.append(self._base)
        if self._base < MEMORY_BYTES or not self._written(block):
            self._kept[number] = bytes(block)
        self._base += len(block)
        self._current = bytearray()

    def _written(self, block: bytearray) -> bool:
        """Whether the disk took a block at its place."""
        if self._failed or self._pid != os.getpid():  # a forked process shares the file with its parent
            return False
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, prefix="holynb-", dir=self._existing())  # noqa: SIM115
            _write(self._file, memoryview(block), self._base)
        except OSError:
            self._failed = True
            return False
        return True

    def _existing(self) -> Path | None:
        return self._folder if self._folder is not None and self._folder.is_dir() else None

    def _block(self, number: int) -> bytes:
        if (kept := self._kept.get(number)) is not None:
            return kept
        if self._cached[0] != number:
            start = self._starts[number]
            end = self._starts[number + 1] if number + 1 < len(self._starts) else self._base
            self._cached = number, self._read(start, end - start)
        return self._cached[1]

    def _read(self, start: int, size: int) -> bytes:
        file = self._file
        if file is None:
            raise OSError("the spool's file is gone")
        parts: list[bytes] = []
        while size:
            if hasattr(os, "pread"):
                part = os.pread(file.fileno(), size, start)
            else:
                file.seek(start)
                part = file.read(size)
            if not part:
                raise OSError("the spool's file is shorter than it was")
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)


def _write(file: IO[bytes], rest: memoryview, at: int) -> None:
    """Write at this place: where it can, in one call, since each may have to wait for the other threads."""
    while rest:
        if hasattr(os, "pwrite"):
            n = os.pwrite(file.fileno(), rest, at)
        else:
            file.seek(at)
            n = file.write(rest)
        rest, at = rest[n:], at + n
