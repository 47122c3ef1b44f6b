"""x86-64 instructions as bytes: the few that our kernels take, in AVX-512 (EVEX) or AVX2 (VEX). Intel SDM, volume 2."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["RAX", "RBX", "RCX", "RDI", "RDX", "RSI", "Assembler", "At"]

RAX, RCX, RDX, RBX, RSI, RDI = 0, 1, 2, 3, 6, 7


#: Of each instruction: prefix (0 none, 1 66, 2 F3), opcode map (1 0F, 2 0F38), opcode.
_VECTOR = {
    "vaddps": (0, 1, 0x58),
    "vbroadcastss": (1, 2, 0x18),
    "vcvtdq2ps": (0, 1, 0x5B),
    "vcvtph2ps": (1, 2, 0x13),
    "vcvtps2dq": (1, 1, 0x5B),
    "vdivps": (0, 1, 0x5E),
    "vfmadd231ps": (1, 2, 0xB8),
    "vfnmadd231ps": (1, 2, 0xBC),
    "vmaxps": (0, 1, 0x5F),
    "vminps": (0, 1, 0x5D),
    "vmovups": (0, 1, 0x10),
    "vmovups_store": (0, 1, 0x11),
    "vmulps": (0, 1, 0x59),
    "vpaddd": (1, 1, 0xFE),
    "vpaddw": (1, 1, 0xFD),
    "vpand": (1, 1, 0xDB),
    "vpermps": (1, 2, 0x16),
    "vpmaddubsw": (1, 2, 0x04),
    "vpmaddwd": (1, 1, 0xF5),
    "vpmovsxbd": (1, 2, 0x21),
    "vpor": (1, 1, 0xEB),
    "vpshufb": (1, 2, 0x00),
    "vpshiftd": (1, 1, 0x72),
    "vpsubd": (1, 1, 0xFA),
    "vpxor": (1, 1, 0xEF),
    "vsqrtps": (0, 1, 0x51),
    "vsubps": (0, 1, 0x5C),
}

#: Shifts of each 32 bits by an immediate, by what stands where others have a register: right, arithmetically right, left.
_SHIFTS = {"vpsrld": 2, "vpsrad": 4, "vpslld": 6}


@dataclass(frozen=True, slots=True)
class At:
    """Memory at a register (neither rsp nor r12) plus a distance; `each`: one number, for every lane."""

    base: int
    distance: int = 0
    each: bool = False


class Assembler:
    """Bytes in the order of the calls. `lanes`: 16 (zmm, 32 registers) or 8 (ymm, 16)."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.code = lanes, bytearray()

    def vector(self, name: str, out: int, first: int | None, second: int | At) -> None:
        """`out` ← `first` and `second`; of a load `first` is None, of a store `out` is what is stored."""
        prefix, chart, opcode = _VECTOR[name]
        (self._evex if self.lanes == 16 else self._vex)(prefix, chart, out, first or 0, second)
        self.code.append(opcode)
        self._operand(out, second)

    def shift(self, name: str, out: int, of: int, bits: int) -> None:
        """A shift by an immediate: `out` is named where others have a source."""
        self.vector("vpshiftd", _SHIFTS[name], out, of)
        self.code.append(bits)

    def prefetch(self, at: At) -> None:
        """Prefetchnta of a line of the cache."""
        self.code += bytes((0x40 | at.base >> 3, 0x0F, 0x18))
        self._operand(0, at)

    def load(self, register: int, at: At) -> None:
        """Mov r64, [m64]."""
        self._wide(0x8B, register, at)

    def copy(self, register: int, source: int) -> None:
        """Mov r64, r64."""
        self._wide(0x89, source, register)

    def constant(self, register: int, value: int) -> None:
        """Mov r64, imm64."""
        self.code += bytes((0x48 | register >> 3, 0xB8 | register & 7)) + struct.pack("<Q", value)

    def add(self, register: int, value: int) -> None:
        """Add r64, imm32."""
        self._wide(0x81, 0, register)
        self.code += struct.pack("<i", value)

    def add_at(self, register: int, at: At) -> None:
        """Add r64, [m64]."""
        self._wide(0x03, register, at)

    def times(self, register: int, factor: int) -> None:
        """Imul r64, r64, imm32."""
        self._wide(0x69, register, register)
        self.code += struct.pack("<i", factor)

    def add_register(self, register: int, other: int) -> None:
        """Add r64, r64."""
        self._wide(0x01, other, register)

    def push(self, register: int) -> None:
        """Push of one of the first eight."""
        self.code.append(0x50 | register)

    def pop(self, register: int) -> None:
        """Pop of one of the first eight."""
        self.code.append(0x58 | register)

    def call(self, register: int) -> None:
        """Call of an address in one of the first eight."""
        self.code += bytes((0xFF, 0xD0 | register))

    def again(self, counter: int, label: int) -> None:
        """Dec r64; jnz `label`, a place in `code`."""
        self._wide(0xFF, 1, counter)
        self.code += b"\x0f\x85" + struct.pack("<i", label - (len(self.code) + 6))

    def ret(self) -> None:
        """vzeroupper; ret."""
        self.code += b"\xc5\xf8\x77\xc3"

    def _wide(self, opcode: int, register: int, operand: int | At) -> None:
        """An instruction of 64-bit registers."""
        base = operand.base if isinstance(operand, At) else operand
        self.code += bytes((0x48 | (register >> 3) << 2 | base >> 3, opcode))
        self._operand(register, operand)

    def _operand(self, register: int, operand: int | At) -> None:
        """ModRM, with a distance of 32 bits where it is memory."""
        if isinstance(operand, At):
            self.code.append(0x80 | (register & 7) << 3 | operand.base & 7)
            self.code += struct.pack("<i", operand.distance)
        else:
            self.code.append(0xC0 | (register & 7) << 3 | operand & 7)

    def _evex(self, prefix: int, chart: int, out: int, first: int, second: int | At) -> None:
        memory = isinstance(second, At)
        low = second.base if isinstance(second, At) else second
        extended = (out >> 3 & 1) << 7 | (0 if memory else low >> 4 & 1) << 6 | (low >> 3 & 1) << 5 | (out >> 4 & 1) << 4
        each = isinstance(second, At) and second.each
        self.code += bytes((0x62, 0xF0 ^ extended | chart, (first & 15 ^ 15) << 3 | 4 | prefix, 0x40 | each << 4 | (first >> 4 ^ 1) << 3))

    def _vex(self, prefix: int, chart: int, out: int, first: int, second: int | At) -> None:
        low = second.base if isinstance(second, At) else second
        self.code += bytes((0xC4, 0xE0 ^ ((out >> 3) << 7 | (low >> 3) << 5) | chart, (first ^ 15) << 3 | 4 | prefix))
