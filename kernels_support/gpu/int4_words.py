"""Four numbers of four bits in one 16-bit word: how a kernel reads a matrix of four bits, and widens it in registers.

A word's lowest four bits are a number of the first quarter of its group of columns, the next four one of the second, and so on, so that
a tile of words meets four contiguous pieces of x. The processor makes two numbers an instruction: the bits are put below the exponent
of 128, where bfloat16 has steps of one, and the zero is subtracted with the same 128; both are exact.
"""

from __future__ import annotations

from kernels_support.gpu.lang import jit, tl

__all__ = ["widened"]


@jit
def widened(words: tl.tensor, zeros: tl.tensor, native: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """int16 words and the zeros of their rows (128 + zero, in x's dtype) → the four quarters minus zero, in x's dtype."""
    if native:
        a, b, c, d = tl.inline_asm_elementwise(
            "{ .reg .b32 w, x, y, z, p, q, r; shr.u32 x, $4, 4; shr.u32 y, $4, 8; shr.u32 z, $4, 12; "
            "lop3.b32 w, $4, 0x000f000f, 0x43004300, 0xea; lop3.b32 p, x, 0x000f000f, 0x43004300, 0xea; "
            "lop3.b32 q, y, 0x000f000f, 0x43004300, 0xea; lop3.b32 r, z, 0x000f000f, 0x43004300, 0xea; "
            "sub.rn.bf16x2 $0, w, $5; sub.rn.bf16x2 $1, p, $5; sub.rn.bf16x2 $2, q, $5; sub.rn.bf16x2 $3, r, $5; }",
            "=r,=r,=r,=r,r,r",
            [words, zeros],
            dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=2,
        )
    else:
        bits, offset = words.to(tl.int32), zeros.to(tl.float32) - 128.0
        a = ((bits & 15).to(tl.float32) - offset).to(zeros.dtype)
        b = (((bits >> 4) & 15).to(tl.float32) - offset).to(zeros.dtype)
        c = (((bits >> 8) & 15).to(tl.float32) - offset).to(zeros.dtype)
        d = (((bits >> 12) & 15).to(tl.float32) - offset).to(zeros.dtype)
    return a, b, c, d
