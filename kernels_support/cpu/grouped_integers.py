"""The same instructions where the numbers of W have four bits and a register 256 (AVX2): products and sums of whole numbers.

There is no table of 16 floats to look a number up in there, and what makes a float of it takes longer than multiplying it. So x becomes
whole numbers, too: of each group of columns with a step of its own, in 16 bits, of which the upper and the lower eight are multiplied
apart (vpmaddubsw), 32 numbers of W at a time. What is lost is 2⁻¹⁶ of the largest |x| of a group; up to each group's sum the rest is
exact.
"""

from __future__ import annotations

import struct

from kernels_support.cpu.assembler import RAX, RCX, RDX, At
from kernels_support.cpu.grouped_code import _AT_OUT, _AT_W, _AT_X, _SCRATCH, _STRIDE, BLOCK, Layout, Writer

__all__ = ["IntegerWriter"]

#: What the largest |x| of a group becomes: 127 · 256, so that its upper eight bits are a signed byte, whatever the lower ones borrow.
_LARGEST = 32512.0

#: Columns of a group at most: sums of pairs, 2 · 15 · 128 each, stay within 16 bits.
_COLUMNS = 32

_WIDTH, _BYTES = 8, 32

#: Bytes of W that are fetched ahead, past the caches that others need: it is read once a pass.
_AHEAD = 4096

_CONSTANTS = (
    "nibbles", "turn 1", "turn 2", "turn 4", "magnitude", "least", "largest", "step", "factor", "lower", "upper", "ones", "256"
)  # fmt: skip


class IntegerWriter(Writer):
    """Writes one function. Of each group of a row of x lie in the scratch: of each eight columns the lower bytes of the even ones, of the
    odd ones, and the upper bytes of both; then the step, and the sum of the group's numbers times the step.

    A word of W, a row's eight columns, is two registers of bytes, its even and its odd columns.
    """

    def __init__(self, layout: Layout, columns: int, rows: int, width: int) -> None:
        super().__init__(layout, columns, rows, width)
        # A row's sums of lower and upper products; then what is multiplied by scales; then what is read.
        self.totals = range(2 * rows, 3 * rows)
        self.group_scratch = 2 * layout.group + 8
        self.row_scratch = self.group_scratch * self.groups + _BYTES
        self.at_constants = 0

    @staticmethod
    def takes(layout: Layout, width: int) -> bool:
        """Whether it is for this layout and width of registers."""
        return width == _WIDTH and layout.bits == 4 and layout.group <= _COLUMNS and layout.group % 8 == 0

    def _constants(self) -> bytes:
        def each(kind: str, value: float) -> bytes:
            return struct.pack(f"<{_BYTES // struct.calcsize(kind)}{kind}", *[value] * (_BYTES // struct.calcsize(kind)))

        def turn(step: int) -> bytes:
            return struct.pack("<8i", *(lane ^ step for lane in range(8)))

        def picked(first: int) -> bytes:
            """Which bytes of columns 0 to 3, or 4 to 7, go where: even ones from byte `first` on, odd ones four behind."""
            places = []
            for half in range(2):
                bytes_of = [0x80] * 16
                for column in range(4):
                    bytes_of[first + 4 * (column % 2) + 2 * half + column // 2] = 4 * column
                places += bytes_of
            return bytes(places)

        known = {
            "nibbles": each("B", 15), "turn 1": turn(1), "turn 2": turn(2), "turn 4": turn(4), "magnitude": each("I", 0x7FFFFFFF),
            "least": each("f", 1e-30), "largest": each("f", _LARGEST), "step": each("f", 1 / _LARGEST),
            "factor": each("f", -8.0 if self.layout.zero == "middle" else 1.0), "lower": picked(0), "upper": picked(8),
            "ones": each("h", 1), "256": each("h", 256),
        }  # fmt: skip
        return b"".join(known[name] for name in _CONSTANTS)

    def _entry(self, constants: int) -> int:
        self.at_constants = constants
        return super()._entry(constants)

    @staticmethod
    def _at(name: str) -> At:
        return At(RAX, _BYTES * _CONSTANTS.index(name))

    def _begin(self) -> None:
        """Rounds x, into the scratch."""
        asm, loaded = self.asm, dict(zip(("turn 1", "turn 2", "turn 4", "magnitude", "lower", "upper"), range(10, 16), strict=True))
        for name, register in loaded.items():
            asm.vector("vmovups", register, None, self._at(name))
        asm.load(RDX, _SCRATCH)
        asm.constant(RCX, self.groups)
        group = len(asm.code)
        for row in range(self.rows):
            self._rounded(row, loaded)
        asm.add(_AT_X, 4 * self.layout.group)
        asm.add(RDX, self.group_scratch)
        asm.again(RCX, group)
        asm.add(_AT_X, -4 * self.columns)

    def _rounded(self, row: int, loaded: dict[str, int]) -> None:
        """A group of a row of x."""
        asm, pieces, at = self.asm, range(self.layout.group // 8), self.row_scratch * row
        most, other, sum_, inverse = 4, 5, 6, 7
        for i in pieces:
            asm.vector("vmovups", i, None, At(_AT_X, 4 * (self.columns * row + 8 * i)))
            asm.vector("vpand", other if i else most, loaded["magnitude"], i)
            if i:
                asm.vector("vmaxps", most, most, other)
        self._over_lanes("vmaxps", most, other, loaded)
        # Its second factor is what is no number, if one is.
        asm.vector("vmovups", other, None, self._at("least"))
        asm.vector("vmaxps", most, other, most)
        asm.vector("vmovups", inverse, None, self._at("largest"))
        asm.vector("vdivps", inverse, inverse, most)
        asm.vector("vmulps", most, most, self._at("step"))
        for i in pieces:
            asm.vector("vmulps", i, i, inverse)
            asm.vector("vcvtps2dq", i, None, i)
            asm.vector("vpaddd" if i else "vpor", sum_, sum_ if i else i, i)
            asm.shift("vpslld", other, i, 24)
            asm.shift("vpsrad", other, other, 24)
            asm.vector("vpsubd", i, i, other)
            asm.shift("vpsrad", i, i, 8)
            asm.vector("vpshufb", i, i, loaded["upper"])
            asm.vector("vpshufb", other, other, loaded["lower"])
            asm.vector("vpor", i, i, other)
            asm.vector("vpermps", other, loaded["turn 4"], i)
            asm.vector("vpor", i, i, other)
            asm.vector("vmovups_store", i, None, At(RDX, at + 16 * i))
        self._over_lanes("vpaddd", sum_, other, loaded)
        asm.vector("vcvtdq2ps", sum_, None, sum_)
        asm.vector("vmulps", sum_, sum_, most)
        asm.vector("vmulps", sum_, sum_, self._at("factor"))
        asm.vector("vmovups_store", most, None, At(RDX, at + 2 * self.layout.group))
        asm.vector("vmovups_store", sum_, None, At(RDX, at + 2 * self.layout.group + 4))

    def _over_lanes(self, name: str, register: int, other: int, loaded: dict[str, int]) -> None:
        """The largest or the sum of a register's numbers, in each of its lanes."""
        for step in (1, 2, 4):
            self.asm.vector("vpermps", other, loaded[f"turn {step}"], register)
            self.asm.vector(name, register, register, other)

    def _part(self, part: int) -> None:
        """Eight rows of a block, over all columns."""
        asm = self.asm
        for total in self.totals:
            asm.vector("vpxor", total, total, total)
        asm.constant(RCX, self.groups)
        asm.constant(RAX, self.at_constants)
        asm.load(RDX, _SCRATCH)
        group = len(asm.code)
        for word in range(self.layout.group // 8):
            asm.vector("vmovups", self.words, None, At(_AT_W, 4 * BLOCK * word + _BYTES * part))
            asm.vector("vpand", self.number, self.words, self.table)
            asm.shift("vpsrld", self.words, self.words, 4)
            asm.vector("vpand", self.words, self.words, self.table)
            for row in range(self.rows):
                for place, (out, numbers) in enumerate(((0, self.number), (0, self.words), (1, self.number), (1, self.words))):
                    self._multiplied(
                        2 * row + out, numbers, At(RDX, self.row_scratch * row + 16 * word + 4 * place, each=True), word + place % 2 == 0
                    )
        for line in range(0, self.layout.record if part == 0 else 0, 64):
            asm.prefetch(At(_AT_W, _AHEAD + line))
        self._scaled(part)
        asm.add(_AT_W, self.layout.record)
        asm.add(_AT_X, 4 * self.layout.group)
        asm.add(RDX, self.group_scratch)
        asm.again(RCX, group)
        asm.copy(RAX, _AT_OUT)
        for total in self.totals:
            asm.vector("vmovups_store", total, None, At(RAX, _BYTES * part))
            asm.add_at(RAX, _STRIDE)

    def _multiplied(self, out: int, numbers: int, at: At, first: bool) -> None:
        """Bytes of W times bytes of x, in pairs, into 16 bits."""
        asm = self.asm
        asm.vector("vbroadcastss", self.other, None, at)
        asm.vector("vpmaddubsw", out if first else self.other, numbers, self.other)
        if not first:
            asm.vector("vpaddw", out, out, self.other)

    def _scaled(self, part: int) -> None:
        """A group's sums in float32, times both steps, and its zero times the sum of x."""
        asm, layout = self.asm, self.layout
        load, size = ("vcvtph2ps", 2) if layout.half else ("vmovups", 4)
        scale, zero = self.number, self.words
        asm.vector(load, scale, None, At(_AT_W, layout.numbers + size * _WIDTH * part))
        if layout.zero == "own":
            asm.vector(load, zero, None, At(_AT_W, layout.numbers + layout.factors + size * _WIDTH * part))
        for row in range(self.rows):
            lower, upper, at = 2 * row, 2 * row + 1, self.row_scratch * row + 2 * layout.group
            asm.vector("vpmaddwd", lower, lower, self._at("ones"))
            asm.vector("vpmaddwd", upper, upper, self._at("256"))
            asm.vector("vpaddd", lower, lower, upper)
            asm.vector("vcvtdq2ps", lower, None, lower)
            asm.vector("vbroadcastss", self.other, None, At(RDX, at, each=True))
            asm.vector("vmulps", lower, lower, self.other)
            asm.vector("vbroadcastss", self.other, None, At(RDX, at + 4, each=True))
            if layout.zero == "middle":
                asm.vector("vaddps", lower, lower, self.other)
            asm.vector("vfmadd231ps", self.totals[row], lower, scale)
            if layout.zero == "own":
                asm.vector("vfmadd231ps", self.totals[row], zero, self.other)
