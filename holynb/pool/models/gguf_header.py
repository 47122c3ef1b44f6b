"""A GGUF file read: the facts of its header, and where its tensors lie, held against the file's own size. Knows the format; no models.

The package `gguf` has a reader, too; it makes several arrays of each word of a vocabulary, half a minute of them for the largest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["GgufError", "GgufFile", "GgufTensor", "read_gguf"]

#: Numbers, by type; 8 is a text and 9 an array.
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_TEXT, _ARRAY = 8, 9
#: Of tensors: those of plain numbers. All others are rows of bytes.
_PLAIN = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
#: Of the least there can be: a fact without a name, an item, a tensor without a name.
_MIN_FACT_BYTES, _MIN_TENSOR_BYTES = 13, 24
_MAX_NAME_BYTES, _MAX_DIMENSIONS = 65_535, 4
#: Items of all arrays together: five times what the largest vocabularies have. Each becomes an object.
_MAX_ITEMS = 4_000_000


class GgufError(Exception):
    """The file cannot be read; the message says where."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor. `shape`: as GGUF has it, the innermost dimension first. `tensor_type`: a `gguf.GGMLQuantizationType`.

    `data`: its numbers, or of a quantized kind the bytes of its rows, outermost dimension first; read from the file where they are used.
    """

    name: str
    tensor_type: Any
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """`facts`: the header's keys with their values as Python has them."""

    facts: dict[str, Any]
    tensors: list[GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Raises GgufError where the file is none or says more than it can hold, UnicodeDecodeError, OSError."""
    if path.stat().st_size == 0:
        raise GgufError("it is empty")
    return _Reader(np.memmap(path, mode="r", dtype=np.uint8)).read()


class _Reader:
    """Reads on, never further than the file goes."""

    def __init__(self, data: np.memmap[Any, Any]) -> None:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        self._data, self._view, self._size = data, data.data, data.size
        self._at = self._items = 0
        self._kinds = {int(kind): (kind, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType if kind in GGML_QUANT_SIZES}
        """Of each kind of tensor, the numbers in a block of it and its bytes."""

    def read(self) -> GgufFile:
        if bytes(self._bytes(4)) != b"GGUF":
            raise GgufError("it does not begin as one")
        version = self._number("I")
        if version & 0xFFFF == 0:  # the bytes of a number the other way round
            raise GgufError("it is written for big-endian machines; there is one for little-endian ones of most models")
        if version not in (2, 3):
            raise GgufError(f"its version is {version}; known are 2 and 3")
        tensors, facts = self._number("Q"), self._number("Q")
        self._room(tensors * _MIN_TENSOR_BYTES + facts * _MIN_FACT_BYTES, f"{tensors:,} tensors and {facts:,} facts")
        known: dict[str, Any] = {}
        for _ in range(facts):
            name, kind = self._name(), self._number("I")
            known.setdefault(name, self._value(name, kind))
        alignment = known.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise GgufError(f"its alignment is {alignment!r}")
        return GgufFile(known, self._tensors(tensors, alignment))

    def _value(self, name: str, kind: int) -> Any:
        if kind == _TEXT:
            return self._texts(name, 1)[0]
        if kind == _ARRAY:
            kind, count = self._number("I"), self._number("Q")
            self._items += count
            if kind not in _NUMBERS and kind != _TEXT:
                raise GgufError(f"{name} is an array of a kind that is not known ({kind})")
            self._room(count * (8 if kind == _TEXT else np.dtype(_NUMBERS[kind]).itemsize), f"{count:,} items of {name}")
            if self._items > _MAX_ITEMS:
                raise GgufError(f"its arrays have more than {_MAX_ITEMS:,} items")
            return self._texts(name, count) if kind == _TEXT else self._numbers(kind, count)
        if kind in _NUMBERS:
            return self._numbers(kind, 1)[0]
        raise GgufError(f"{name} is of a kind that is not known ({kind})")

    def _tensors(self, count: int, alignment: int) -> list[GgufTensor]:
        """Raises GgufError where tensors share bytes or a name, or lie beyond the end."""
        placed = [self._placed() for _ in range(count)]
        start = -(-self._at // alignment) * alignment
        end = 0
        for offset, size, name, *_ in sorted(placed, key=lambda each: each[:3]):
            if offset < end and size:
                raise GgufError(f"the bytes of {name} are another tensor's, too")
            end = max(end, offset + size)
        if placed and start + end > self._size:
            raise GgufError(f"it is cut off: {self._size:,} of {start + end:,} bytes are there")
        if len({name for _, _, name, *_ in placed}) < count:
            raise GgufError("two of its tensors have one name")
        return [
            GgufTensor(name, kind, shape, self._data[start + offset : start + offset + size].view(dtype).reshape(rows))
            for offset, size, name, kind, shape, dtype, rows in placed
        ]

    def _placed(self) -> tuple[int, int, str, Any, tuple[int, ...], str, tuple[int, ...]]:
        """Where a tensor's bytes begin, how many they are, its name, kind and shape, and what `data` is."""
        name, dimensions = self._name(), self._number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise GgufError(f"{name} has {dimensions:,} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        number, offset = self._number("I"), self._number("Q")
        if number not in self._kinds:
            raise GgufError(f"{name} is quantized in a way that is not known ({number})")
        kind, block, size = self._kinds[number]
        if block > 1 and (not shape or shape[0] % block):
            raise GgufError(
                f"{name} has rows of {shape[0] if shape else 1:,} numbers, no multiple of the {block} that are quantized together"
            )
        dtype, rows = _PLAIN.get(kind.name), tuple(reversed(shape))
        if dtype is None:
            rows = (*rows[:-1], rows[-1] // block * size) if rows else (size,)
        return offset, prod(shape) // block * size, name, kind, shape, dtype or "u1", rows

    def _room(self, size: int, what: str) -> None:
        if size > self._size - self._at:
            raise GgufError(f"{what} do not fit in its {self._size:,} bytes")

    def _name(self) -> str:
        size = self._number("Q")
        if size > _MAX_NAME_BYTES:
            raise GgufError(f"a name in it has {size:,} bytes")
        return ascii(str(self._bytes(size), "utf-8", "replace"))[1:-1][:100]

    def _texts(self, name: str, count: int) -> list[str]:
        """So many in a row. In one loop, for a vocabulary has hundreds of thousands."""
        texts, view, at = [], self._view, self._at
        for _ in range(count):
            begin = at + 8
            at = begin + int.from_bytes(view[begin - 8 : begin], "little")
            if at > self._size or begin > self._size:
                raise GgufError(f"{at - begin:,} bytes of {name} do not fit in its {self._size:,} bytes")
            texts.append(str(view[begin:at], "utf-8"))
        self._at = at
        return texts

    def _numbers(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind])
        numbers: list[Any] = np.frombuffer(self._bytes(count * dtype.itemsize), dtype).tolist()
        return numbers

    def _number(self, kind: str) -> int:
        number: int = struct.unpack(f"<{kind}", self._bytes(4 if kind == "I" else 8))[0]
        return number

    def _bytes(self, size: int) -> memoryview:
        data = self._view[self._at : self._at + size]
        if len(data) < size:
            raise GgufError(f"its header is cut off ({self._size:,} bytes)")
        self._at += size
        return data
