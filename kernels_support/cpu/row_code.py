"""The instructions of what is done to a row between two products, in float32 and AVX2: RMSNorm, SiLU · up, rotary embedding.

With few rows torch takes longer to find what is to be done than to do it: six calls for a norm, ten for a rotation. Here each is one.
"""

from __future__ import annotations

import ctypes
import math
import struct
from functools import cache

from kernels_support.cpu.assembler import RAX, RCX, RDI, RDX, RSI, Assembler, At
from kernels_support.cpu.machine_code import Function, MachineCode

__all__ = ["rms_norm", "rotary", "silu_mul"]

_LANES, _BYTES = 8, 32

#: Further registers: r8 to r11.
_A, _B, _C, _D = 8, 9, 10, 11

_LOG2_E = math.log2(math.e)
_LOG2_E_HIGH = struct.unpack("<f", struct.pack("<f", _LOG2_E))[0]

#: Of 2^f, |f| ≤ ½, from its last coefficient on: the rest is below 6e-9.
_POWERS = [math.log(2) ** i / math.factorial(i) for i in range(7, -1, -1)]


def _function(asm: Assembler, fields: int, kept: object = None) -> Function:
    asm.ret()
    return Function(MachineCode(bytes(asm.code), kept), 0, fields)


def _constants(*rows: bytes) -> tuple[object, int]:
    kept = ctypes.create_string_buffer(b"".join(rows))
    return kept, ctypes.addressof(kept)


def _each(value: float) -> bytes:
    return struct.pack("<8f", *[value] * _LANES)


def _turn(step: int) -> bytes:
    return struct.pack("<8i", *(lane ^ step for lane in range(_LANES)))


def _unrolled(columns: int) -> int:
    """Registers that a turn of a loop takes."""
    return next(n for n in (6, 5, 4, 3, 2, 1) if columns // _LANES % n == 0)


@cache
def rms_norm(columns: int, eps: float, *, adds: bool) -> Function:
    """Of rows, x, residual, weight, norm, sum: the norm of x + residual, and that; without `adds` of x alone, and sum is not written."""
    asm, step = Assembler(_LANES), _unrolled(columns)
    kept, at = _constants(_turn(1), _turn(2), _turn(4), _each(1 / columns), _each(eps), _each(1.0))
    rows, x, residual, weight, out, total = (At(RDI, 8 * i) for i in range(6))
    asm.constant(RDX, at)
    asm.load(RSI, rows)
    for register, field in ((_A, x), (_B, residual), (_C, out), (_D, total)):
        asm.load(register, field)
    row = len(asm.code)
    sums = range(step)
    for i in sums:
        asm.vector("vpxor", i, i, i)
    asm.constant(RCX, columns // _LANES // step)
    loop = len(asm.code)
    for i in sums:
        asm.vector("vmovups", 8, None, At(_A, _BYTES * i))
        if adds:
            asm.vector("vaddps", 8, 8, At(_B, _BYTES * i))
            asm.vector("vmovups_store", 8, None, At(_D, _BYTES * i))
        asm.vector("vfmadd231ps", i, 8, 8)
    for register in (_A, _B, _D) if adds else (_A,):
        asm.add(register, _BYTES * step)
    asm.again(RCX, loop)
    for i in sums[1:]:
        asm.vector("vaddps", 0, 0, i)
    for i in range(3):
        asm.vector("vmovups", 1, None, At(RDX, _BYTES * i))
        asm.vector("vpermps", 1, 1, 0)
        asm.vector("vaddps", 0, 0, 1)
    asm.vector("vmulps", 0, 0, At(RDX, 3 * _BYTES))
    asm.vector("vaddps", 0, 0, At(RDX, 4 * _BYTES))
    asm.vector("vsqrtps", 0, None, 0)
    asm.vector("vmovups", 1, None, At(RDX, 5 * _BYTES))
    asm.vector("vdivps", 0, 1, 0)
    read = _D if adds else _A
    asm.add(read, -4 * columns)
    asm.load(RAX, weight)
    asm.constant(RCX, columns // _LANES // step)
    loop = len(asm.code)
    for i in sums:
        asm.vector("vmulps", 8, 0, At(read, _BYTES * i))
        asm.vector("vmulps", 8, 8, At(RAX, _BYTES * i))
        asm.vector("vmovups_store", 8, None, At(_C, _BYTES * i))
    for register in (read, RAX, _C):
        asm.add(register, _BYTES * step)
    asm.again(RCX, loop)
    asm.again(RSI, row)
    return _function(asm, 6, kept)


@cache
def silu_mul(columns: int) -> Function:
    """Of rows, gate and up, out: SiLU(gate) · up, where a row has so many columns of gate, then as many of up."""
    asm = Assembler(_LANES)
    numbers = [-_LOG2_E_HIGH, _LOG2_E_HIGH - _LOG2_E, -126.0, 126.0, -0.5, 0.5, 1.0, *_POWERS]
    high, low, least, most, less, more, one, *powers = (At(RDX, _BYTES * i) for i in range(len(numbers)))
    kept, at = _constants(*map(_each, numbers))
    asm.constant(RDX, at)
    for register, place in ((RSI, 0), (_A, 8), (_C, 16)):
        asm.load(register, At(RDI, place))
    row = len(asm.code)
    asm.constant(RCX, columns // _LANES)
    loop = len(asm.code)
    gate, whole, rest, power, scratch = range(5)
    asm.vector("vmovups", gate, None, At(_A))
    # e^-gate = 2^(whole + rest): whole into the exponent, of rest a polynomial.
    asm.vector("vmulps", whole, gate, high)
    asm.vector("vmaxps", whole, whole, least)
    asm.vector("vminps", whole, whole, most)
    asm.vector("vcvtps2dq", whole, None, whole)
    asm.vector("vcvtdq2ps", scratch, None, whole)
    asm.vector("vpxor", rest, rest, rest)
    asm.vector("vsubps", rest, rest, scratch)
    asm.vector("vfmadd231ps", rest, gate, high)
    asm.vector("vfmadd231ps", rest, gate, low)
    # Where gate was bounded it is far from ½.
    asm.vector("vmaxps", rest, rest, less)
    asm.vector("vminps", rest, rest, more)
    asm.vector("vmovups", power, None, powers[0])
    for coefficient in powers[1:]:
        asm.vector("vmulps", power, power, rest)
        asm.vector("vaddps", power, power, coefficient)
    asm.shift("vpslld", whole, whole, 23)
    asm.vector("vpaddd", power, power, whole)
    asm.vector("vaddps", power, power, one)
    asm.vector("vdivps", gate, gate, power)
    asm.vector("vmulps", gate, gate, At(_A, 4 * columns))
    asm.vector("vmovups_store", gate, None, At(_C))
    asm.add(_A, _BYTES)
    asm.add(_C, _BYTES)
    asm.again(RCX, loop)
    asm.add(_A, 4 * columns)
    asm.again(RSI, row)
    return _function(asm, 3, kept)


@cache
def rotary(heads: int, kv: int, size: int, rotated: int) -> Function:
    """Of tokens, qkv, rope, queries, keys, values, slots, and bytes between two heads of the cache and two rows of rope."""
    asm, half = Assembler(_LANES), rotated // 2
    tokens, qkv, rope, queries, keys, values, slots, between, turn = (At(RDI, 8 * i) for i in range(9))
    asm.load(RSI, tokens)
    for register, field in ((_A, qkv), (_B, rope), (_C, queries)):
        asm.load(register, field)
    asm.load(RAX, slots)
    token = len(asm.code)

    def place(start: At) -> None:
        """Where the token's first head lies in the cache."""
        asm.load(_D, At(RAX))
        asm.times(_D, 4 * size)
        asm.add_at(_D, start)

    def each(many: int, target: int, *, turned: bool) -> None:
        asm.constant(RCX, many)
        head = len(asm.code)
        for i in range(0, half if turned else 0, _LANES):
            first, second, cos, sin = At(_A, 4 * i), At(_A, 4 * (i + half)), At(_B, 4 * i), At(_B, 4 * (i + half))
            asm.vector("vmovups", 0, None, first)
            asm.vector("vmovups", 1, None, second)
            asm.vector("vmulps", 2, 0, cos)
            asm.vector("vmulps", 3, 1, cos)
            asm.vector("vfnmadd231ps", 2, 1, sin)
            asm.vector("vfmadd231ps", 3, 0, sin)
            asm.vector("vmovups_store", 2, None, At(target, 4 * i))
            asm.vector("vmovups_store", 3, None, At(target, 4 * (i + half)))
        for i in range(rotated if turned else 0, size, _LANES):
            asm.vector("vmovups", 0, None, At(_A, 4 * i))
            asm.vector("vmovups_store", 0, None, At(target, 4 * i))
        asm.add(_A, 4 * size)
        if target == _C:
            asm.add(_C, 4 * size)
        else:
            asm.add_at(_D, between)
        asm.again(RCX, head)

    each(heads, _C, turned=True)
    place(keys)
    each(kv, _D, turned=True)
    place(values)
    each(kv, _D, turned=False)
    asm.add(RAX, 8)
    asm.add_at(_B, turn)
    asm.again(RSI, token)
    return _function(asm, 9)
