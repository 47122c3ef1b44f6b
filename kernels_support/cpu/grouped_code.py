"""The instructions of x · Wᵀ in float32, W in whole numbers of four or eight bits, a scale for each group of columns: nothing is rounded.

A block is 16 rows of W. For each group of its columns lie together the numbers, 16 scales and, where there are some, 16 zeros. Four bits:
each row has a word of eight columns, the first lowest; words of 16 rows are neighbours, and four times 16 words are a group of 32 columns.
Eight bits: 16 bytes a column. A register holds a number of each row; a number of x meets all of them.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from kernels_support.cpu.assembler import RAX, RBX, RCX, RDI, RDX, RSI, Assembler, At
from kernels_support.cpu.machine_code import MachineCode, openmp

__all__ = ["BLOCK", "FIELDS", "Layout", "Writer"]

#: Rows of W that lie together.
BLOCK = 16

#: What the function is given, eight bytes each: x, the output, W, how many blocks of it, how often so many rows of x, bytes of a row of the
#: output, room for what is made of x (`Writer.scratch` bytes), and nothing.
FIELDS = 8
_X, _OUT, _W, _BLOCKS, _TIMES, _STRIDE, _SCRATCH = (At(RDI, 8 * place) for place in range(7))

#: r8 to r11: a place in x, in the output and in W, and blocks that are left.
_AT_X, _AT_OUT, _AT_W, _LEFT = 8, 9, 10, 11


@dataclass(frozen=True, slots=True)
class Layout:
    """How W lies. `group`: columns that share a scale. `half`: scales and zeros are float16, else float32. `zero`: none; own (W = scale ·
    number + zero); or middle (of four bits: W = scale · (number - 8)).
    """

    bits: int
    group: int
    half: bool
    zero: str

    @property
    def numbers(self) -> int:
        """Bytes of the numbers of a block's group."""
        return BLOCK * self.group * self.bits // 8

    @property
    def factors(self) -> int:
        """Bytes of its scales."""
        return BLOCK * (2 if self.half else 4)

    @property
    def record(self) -> int:
        """Bytes of all of it."""
        return self.numbers + self.factors * (2 if self.zero == "own" else 1)


class Writer:
    """Writes one function, for W of so many columns, so many rows of x and registers of so many numbers."""

    def __init__(self, layout: Layout, columns: int, rows: int, width: int) -> None:
        self.layout, self.columns, self.rows, self.width = layout, columns, rows, width
        self.groups, self.asm = columns // layout.group, Assembler(width)
        registers = 32 if width == 16 else 16
        # From the last: the table or mask, words of W, numbers, and one of x (AVX2) or a scale.
        self.table, self.words, self.number, self.other = (registers - i for i in (1, 2, 3, 4))
        self.sums = min(4, (registers - 4) // rows - 1)
        self.totals = range(rows * self.sums, rows * (self.sums + 1))
        # Of a row's sums of x; each is stored with what follows it.
        self.row_scratch = 4 * self.groups + 4 * width if layout.zero != "none" else 0

    @property
    def scratch(self) -> int:
        """Bytes of room for what is made of x, a multiple of eight."""
        return -(-self.rows * self.row_scratch // 8) * 8

    def written(self) -> tuple[MachineCode, int]:
        """The function, and where it begins for one thread; at the first byte it begins for OpenMP."""
        constants = self._constants()
        kept = ctypes.create_string_buffer(constants, len(constants))
        start = self._entry(ctypes.addressof(kept))
        return MachineCode(bytes(self.asm.code), kept), start

    def _constants(self) -> bytes:
        """The table of 0 to 15 (or a mask of four bits); which lanes are added to which; and what a sum is multiplied by."""
        each = f"{self.width}"
        first = struct.pack("<16f", *range(16)) if self.width == 16 else struct.pack("<8i", *[15] * 8)
        steps = [1 << i for i in range(self.width.bit_length() - 1)]
        turned = b"".join(struct.pack(f"<{each}i", *(lane ^ step for lane in range(self.width))) for step in steps)
        return first + turned + struct.pack(f"<{each}f", *[-8.0 if self.layout.zero == "middle" else 1.0] * self.width)

    def _entry(self, constants: int) -> int:
        """All of it. Returns where it begins for one thread."""
        asm = self.asm
        if (library := openmp()) is not None:
            asm.push(RBX)
            asm.copy(RBX, RDI)
            asm.constant(RAX, library.thread_number)
            asm.call(RAX)
            asm.times(RAX, 8 * FIELDS)
            asm.add_register(RAX, RBX)
            asm.copy(RDI, RAX)
            asm.pop(RBX)
        start = len(asm.code)
        asm.push(RBX)
        asm.load(RSI, _TIMES)
        asm.load(_AT_X, _X)
        asm.load(RBX, _OUT)
        again = len(asm.code)
        asm.constant(RAX, constants)
        self._begin()
        asm.vector("vmovups", self.table, None, At(RAX))
        asm.copy(_AT_OUT, RBX)
        asm.load(_AT_W, _W)
        asm.load(_LEFT, _BLOCKS)
        block = len(asm.code)
        parts = BLOCK // self.width
        for part in range(parts):
            self._part(part)
            asm.add(_AT_X, -4 * self.columns)
            if part + 1 < parts:
                asm.add(_AT_W, -self.groups * self.layout.record)
        asm.add(_AT_OUT, 4 * BLOCK)
        asm.again(_LEFT, block)
        asm.add(_AT_X, 4 * self.columns * self.rows)
        for _ in range(self.rows):
            asm.add_at(RBX, _STRIDE)
        asm.again(RSI, again)
        asm.pop(RBX)
        asm.ret()
        return start

    def _begin(self) -> None:
        """The sum of each group of x, which a zero is multiplied by, into the scratch; RAX is where the constants lie."""
        if self.layout.zero == "none":
            return
        asm, width = self.asm, self.width
        steps = width.bit_length() - 1
        for i in range(steps + 1):  # the last: the factor
            asm.vector("vmovups", 4 + i, None, At(RAX, 4 * width * (1 + i)))
        asm.load(RDX, _SCRATCH)
        asm.constant(RCX, self.groups)
        group = len(asm.code)
        for row in range(self.rows):
            at = 4 * self.columns * row
            asm.vector("vmovups", 0, None, At(_AT_X, at))
            for piece in range(width, self.layout.group, width):
                asm.vector("vaddps", 0, 0, At(_AT_X, at + 4 * piece))
            for i in range(steps):
                asm.vector("vpermps", 1, 4 + i, 0)
                asm.vector("vaddps", 0, 0, 1)
            asm.vector("vmulps", 0, 0, 4 + steps)
            asm.vector("vmovups_store", 0, None, At(RDX, self.row_scratch * row))
        asm.add(_AT_X, 4 * self.layout.group)
        asm.add(RDX, 4)
        asm.again(RCX, group)
        asm.add(_AT_X, -4 * self.columns)

    def _part(self, part: int) -> None:
        """As many rows of a block as a register has lanes, over all columns."""
        asm = self.asm
        for total in self.totals:
            asm.vector("vpxor", total, total, total)
        asm.constant(RCX, self.groups)
        if self.layout.zero != "none":
            asm.load(RDX, _SCRATCH)
        group = len(asm.code)
        for column in range(self.layout.group):
            self._column(column, part)
        self._scaled(part)
        asm.add(_AT_W, self.layout.record)
        asm.add(_AT_X, 4 * self.layout.group)
        if self.layout.zero != "none":
            asm.add(RDX, 4)
        asm.again(RCX, group)
        asm.copy(RAX, _AT_OUT)
        for total in self.totals:
            asm.vector("vmovups_store", total, None, At(RAX, 4 * self.width * part))
            asm.add_at(RAX, _STRIDE)

    def _column(self, column: int, part: int) -> None:
        """One number of each row of W, times one of each row of x."""
        asm = self.asm
        if self.layout.bits == 4:
            self._nibble(column, part)
        else:
            asm.vector("vpmovsxbd", self.number, None, At(_AT_W, BLOCK * column + self.width * part))
            asm.vector("vcvtdq2ps", self.number, None, self.number)
        first = column < self.sums
        for row in range(self.rows):
            at = At(_AT_X, 4 * (self.columns * row + column), each=True)
            into = row * self.sums + column % self.sums
            factor: int | At = at
            if self.width == 8:
                asm.vector("vbroadcastss", self.other, None, at)
                factor = self.other
            asm.vector("vmulps" if first else "vfmadd231ps", into, self.number, factor)

    def _nibble(self, column: int, part: int) -> None:
        asm, place = self.asm, column % 8
        if place == 0:
            asm.vector("vmovups", self.words, None, At(_AT_W, 4 * BLOCK * (column // 8) + 4 * self.width * part))
        bits = self.words
        if place:
            asm.shift("vpsrld", self.number, bits, 4 * place)
            bits = self.number
        if self.width == 16:
            asm.vector("vpermps", self.number, bits, self.table)  # of an index its four lowest bits count
            return
        asm.vector("vpand", self.number, bits, self.table)
        asm.vector("vcvtdq2ps", self.number, None, self.number)

    def _scaled(self, part: int) -> None:
        """A group's sums, times its scale, and its zero times the sum of x."""
        asm, layout = self.asm, self.layout
        load, size = ("vcvtph2ps", 2) if layout.half else ("vmovups", 4)
        for row in range(self.rows):
            first = row * self.sums
            for more in range(first + 1, first + self.sums):
                asm.vector("vaddps", first, first, more)
            if layout.zero == "middle":
                self._with_sum("vaddps", first, first, row)
        asm.vector(load, self.other, None, At(_AT_W, layout.numbers + size * self.width * part))
        for row in range(self.rows):
            asm.vector("vfmadd231ps", self.totals[row], row * self.sums, self.other)
        if layout.zero == "own":
            asm.vector(load, self.other, None, At(_AT_W, layout.numbers + layout.factors + size * self.width * part))
            for row in range(self.rows):
                self._with_sum("vfmadd231ps", self.totals[row], self.other, row)

    def _with_sum(self, name: str, out: int, first: int, row: int) -> None:
        at = At(RDX, self.row_scratch * row, each=True)
        if self.width == 16:
            self.asm.vector(name, out, first, at)
            return
        self.asm.vector("vbroadcastss", self.number, None, at)
        self.asm.vector(name, out, first, self.number)
