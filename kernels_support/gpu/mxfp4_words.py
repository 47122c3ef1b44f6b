"""Four FP4 numbers (E2M1, OCP Microscaling Formats 1.0) in a 16-bit word: how a kernel reads a matrix in MXFP4 and widens it in registers.

Sign, exponent and mantissa are where bfloat16 has them, but for a shift: as bits of a bfloat16 a number is 2⁻¹²⁶ of itself, and one
multiplication by its block's scale and 2¹²⁶, both powers of two, makes it whole; the bits are laid out as triton_kernels does for Hopper.
A word's four numbers are of the four blocks of its group of 128 columns, so that a tile of words meets four contiguous pieces of x.
"""

from __future__ import annotations

from kernels_support.gpu.lang import jit, tl

__all__ = ["widened_fp4"]


@jit
def widened_fp4(
    words: tl.tensor, scales: tl.tensor, dtype: tl.constexpr, native: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """int16 words, and int32 with the exponents of their four blocks (E8M0), of one shape → the four numbers in `dtype`."""
    if native:
        a, b, c, d = tl.inline_asm_elementwise(
            "{ .reg .b32 x, y, z, p, q, r, s; "
            "and.b32 x, $4, 0x81c081c0; mul.rn.bf16x2 $0, x, $5; "
            "shl.b32 y, $4, 3; and.b32 y, y, 0x81c081c0; mul.rn.bf16x2 $1, y, $6; "
            "shl.b32 z, $4, 6; and.b32 z, z, 0x81c081c0; mul.rn.bf16x2 $2, z, $7; "
            "shl.b32 p, $4, 1; and.b32 p, p, 0x80008000; shr.u32 q, $4, 3; lop3.b32 r, q, 0x01800180, p, 0xea; "
            "shr.u32 s, $4, 7; lop3.b32 s, s, 0x00400040, r, 0xea; mul.rn.bf16x2 $3, s, $8; }",
            "=r,=r,=r,=r,r,r,r,r,r",
            [words, _factor(scales), _factor(scales >> 8), _factor(scales >> 16), _factor(scales >> 24)],
            dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=2,
        )
    else:
        bits = words.to(tl.int32)
        last = (bits & 0x4000) << 1 | (bits >> 3) & 0x0180 | (bits >> 7) & 0x0040
        a = _wide(bits, scales).to(dtype)
        b = _wide(bits << 3, scales >> 8).to(dtype)
        c = _wide(bits << 6, scales >> 16).to(dtype)
        d = _wide(last, scales >> 24).to(dtype)
    return a, b, c, d


@jit
def _factor(scales: tl.tensor) -> tl.tensor:
    """2¹²⁶ times the scale whose exponent is in the lowest byte, in bfloat16."""
    return (((scales & 255) + 126) << 7).to(tl.int16).to(tl.bfloat16, bitcast=True)


@jit
def _wide(bits: tl.tensor, scales: tl.tensor) -> tl.tensor:
    """The number whose bits lie as in the upper half of a float32, times its scale, in float32."""
    small = ((bits & 0x81C0) << 16).to(tl.float32, bitcast=True)
    return small * (((scales & 255) + 126) << 23).to(tl.float32, bitcast=True)
