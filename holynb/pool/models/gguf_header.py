"""The header of a GGUF file, held against the file's own size before its reader makes anything of it. Knows the format; no models."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import BinaryIO

__all__ = ["GgufError", "check_header"]

#: Bytes of a value, by type; 8 is a text and 9 an array.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9
#: Of the least there can be: a fact without a name, an item, a tensor without a name.
_MIN_FACT_BYTES, _MIN_TENSOR_BYTES = 13, 24
_MAX_NAME_BYTES, _MAX_DIMENSIONS = 65_535, 4
#: Items of all arrays together: five times what the largest vocabularies have. A reader makes an object of each.
_MAX_ITEMS = 4_000_000


class GgufError(Exception):
    """The file cannot be read; the message says where."""


def check_header(path: Path) -> None:
    """Raises GgufError where the header says more than the file can hold, OSError."""
    with path.open("rb") as file:
        _Header(file, path.stat().st_size).check()


class _Header:
    """Reads on, never further than the file goes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        from gguf.constants import GGML_QUANT_SIZES

        self._file, self._size = file, size
        self._items = 0
        self._alignment = 32
        self._blocks = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
        """Numbers in a block of each kind of tensor, and its bytes."""

    def check(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise GgufError("it does not begin as one")
        version = self._number("I")
        if version & 0xFFFF == 0:  # the bytes of a number the other way round
            raise GgufError("it is written for big-endian machines; there is one for little-endian ones of most models")
        if version not in (2, 3):
            raise GgufError(f"its version is {version}; known are 2 and 3")
        tensors, facts = self._number("Q"), self._number("Q")
        self._room(tensors * _MIN_TENSOR_BYTES + facts * _MIN_FACT_BYTES, f"{tensors:,} tensors and {facts:,} facts")
        for _ in range(facts):
            self._fact()
        self._check_tensors([self._tensor() for _ in range(tensors)])

    def _fact(self) -> None:
        name, kind = self._name(), self._number("I")
        if name == "general.alignment" and kind == 4:
            self._alignment = self._number("I")
            if not 1 <= self._alignment <= 1 << 20:
                raise GgufError(f"its alignment is {self._alignment:,}")
        else:
            self._value(name, kind)

    def _value(self, name: str, kind: int) -> None:
        if kind == _TEXT:
            self._skip(self._number("Q"), name)
        elif kind == _ARRAY:
            kind, count = self._number("I"), self._number("Q")
            self._items += count
            if kind not in _SIZES and kind != _TEXT:
                raise GgufError(f"{name} is an array of a kind that is not known ({kind})")
            self._room(count * _SIZES.get(kind, 8), f"{count:,} items of {name}")
            if self._items > _MAX_ITEMS:
                raise GgufError(f"its arrays have more than {_MAX_ITEMS:,} items")
            if kind in _SIZES:
                self._skip(count * _SIZES[kind], name)
            else:
                for _ in range(count):
                    self._skip(self._number("Q"), name)
        elif kind in _SIZES:
            self._skip(_SIZES[kind], name)
        else:
            raise GgufError(f"{name} is of a kind that is not known ({kind})")

    def _tensor(self) -> tuple[int, int, str]:
        """Where its bytes begin and how many they are."""
        name, dimensions = self._name(), self._number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise GgufError(f"{name} has {dimensions:,} dimensions")
        items = prod(self._number("Q") for _ in range(dimensions))
        kind, offset = self._number("I"), self._number("Q")
        if kind not in self._blocks:
            raise GgufError(f"{name} is quantized in a way that is not known ({kind})")
        block, size = self._blocks[kind]
        return offset, -(-items // block) * size, name

    def _check_tensors(self, tensors: list[tuple[int, int, str]]) -> None:
        """Raises GgufError where tensors share bytes, or lie beyond the end."""
        start = -(-self._file.tell() // self._alignment) * self._alignment
        end = 0
        for offset, size, name in sorted(tensors):
            if offset < end and size:
                raise GgufError(f"the bytes of {name} are another tensor's, too")
            end = max(end, offset + size)
        if tensors and start + end > self._size:
            raise GgufError(f"it is cut off: {self._size:,} of {start + end:,} bytes are there")

    def _room(self, size: int, what: str) -> None:
        if size > self._size - self._file.tell():
            raise GgufError(f"{what} do not fit in its {self._size:,} bytes")

    def _skip(self, size: int, name: str) -> None:
        self._room(size, f"{size:,} bytes of {name}")
        self._file.seek(size, 1)

    def _name(self) -> str:
        size = self._number("Q")
        if size > _MAX_NAME_BYTES:
            raise GgufError(f"a name in it has {size:,} bytes")
        return ascii(self._bytes(size).decode("utf-8", "replace"))[1:-1][:100]

    def _number(self, kind: str) -> int:
        number: int = struct.unpack(f"<{kind}", self._bytes(struct.calcsize(f"<{kind}")))[0]
        return number

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise GgufError(f"its header is cut off ({self._size:,} bytes)")
        return data
