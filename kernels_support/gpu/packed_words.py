"""Numbers of four or eight bits in 16-bit words: how a kernel reads `packed_matrix.py`'s matrices, widened and scaled in registers.

A word's lowest bits are a number of a step's first piece, the next ones of its second, so that a tile of words meets contiguous pieces
of x. The processor makes two numbers an instruction: bits are put below the exponent of 128 (float16: 1,024), where a step is one; the
same constant is subtracted, both exactly; then one multiplication by the scale with the addition of the zero, rounded to x's type once.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import HAS_TRITON, has_pdl, jit, tl

__all__ = ["factors", "native", "pieces"]


def native(dtype: torch.dtype) -> bool:
    """Whether the device computes pairs of this type (bfloat16 from Hopper on, as `has_pdl`)."""
    return dtype != torch.float32 and has_pdl()


def _fours(kind: str, bits: str, eight: str) -> str:
    """Four numbers of two words: put below `bits`, less these and eight, times a scale, plus a zero."""
    shifts = "shr.u32 x, $4, 4; shr.u32 y, $4, 8; shr.u32 z, $4, 12; "
    names = tuple(zip("pqrs", ("$4", "x", "y", "z"), strict=True))
    numbers = "".join(f"lop3.b32 {to}, {of}, 0x000f000f, {bits}, 0xea; sub.rn.{kind} {to}, {to}, o; " for to, of in names)
    scaled = "".join(f"fma.rn.{kind} ${i}, {to}, ${5 + i}, ${9 + i}; " for i, (to, _) in enumerate(names))
    return f"{{ .reg .b32 o, x, y, z, p, q, r, s; mov.b32 o, {eight}; {shifts}{numbers}{scaled}}}"


_SCALED_EIGHTS = "fma.rn.{0} $0, p, $3, $5; fma.rn.{0} $1, r, $4, $6; }}"

#: bfloat16 has seven bits below 128: the sign is in what is subtracted, 256 instead of 128.
_EIGHTS = (
    "{ .reg .b32 x, p, q, r, s; shr.u32 x, $2, 8; "
    "lop3.b32 p, $2, 0x007f007f, 0x43004300, 0xea; lop3.b32 q, $2, 0x00800080, 0x43004300, 0xea; "
    "lop3.b32 r, x, 0x007f007f, 0x43004300, 0xea; lop3.b32 s, x, 0x00800080, 0x43004300, 0xea; "
    "sub.rn.bf16x2 p, p, q; sub.rn.bf16x2 r, r, s; " + _SCALED_EIGHTS.format("bf16x2"),
    "{ .reg .b32 o, x, p, r; mov.b32 o, 0x64806480; shr.u32 x, $2, 8; "
    "lop3.b32 p, $2, 0x00ff00ff, o, 0x6a; lop3.b32 r, x, 0x00ff00ff, o, 0x6a; "
    "sub.rn.f16x2 p, p, o; sub.rn.f16x2 r, r, o; " + _SCALED_EIGHTS.format("f16x2"),
)
if HAS_TRITON:
    _FOURS_BF16, _FOURS_F16 = (
        tl.constexpr(_fours(*how)) for how in (("bf16x2", "0x43004300", "0x43084308"), ("f16x2", "0x64006400", "0x64086408"))
    )
    _EIGHTS_BF16, _EIGHTS_F16 = (tl.constexpr(text) for text in _EIGHTS)


@jit
def factors(at: tl.tensor, width: tl.tensor, ok: tl.tensor, each: tl.constexpr, many: tl.constexpr) -> tuple[tl.tensor, ...]:
    """The factors of a step's pieces: of its first group they lie at `at`, and of each further one `width` further. 0 where not `ok`."""
    f0 = tl.load(at, mask=ok, other=0)
    f1, f2, f3 = f0, f0, f0
    if many == each:
        f1 = tl.load(at + width, mask=ok, other=0)
    if many == 4:
        f2, f3 = tl.load(at + 2 * width, mask=ok, other=0), tl.load(at + 3 * width, mask=ok, other=0)
    if many == 2 and each == 4:
        f2 = tl.load(at + width, mask=ok, other=0)
        f3 = f2
    return f0, f1, f2, f3


@jit
def pieces(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    f0: tl.tensor,
    f1: tl.tensor,
    f2: tl.tensor,
    f3: tl.tensor,
    dtype: tl.constexpr,
    bits: tl.constexpr,
    centre: tl.constexpr,
    native: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """int16 words, and the factors of their rows, broadcastable → the pieces in `dtype`; of eight bits two, and these again."""
    s0, s1, s2, s3 = _scale(f0), _scale(f1), _scale(f2), _scale(f3)
    z0, z1, z2, z3 = _zero(f0, s0, centre), _zero(f1, s1, centre), _zero(f2, s2, centre), _zero(f3, s3, centre)
    if native:
        s0, s1, z0, z1 = _like(s0, words, dtype), _like(s1, words, dtype), _like(z0, words, dtype), _like(z1, words, dtype)
        if bits == 4:
            s2, s3, z2, z3 = _like(s2, words, dtype), _like(s3, words, dtype), _like(z2, words, dtype), _like(z3, words, dtype)
            if dtype == tl.bfloat16:
                a, b, c, d = tl.inline_asm_elementwise(
                    _FOURS_BF16,
                    "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r",
                    [words, s0, s1, s2, s3, z0, z1, z2, z3],
                    dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
                    is_pure=True,
                    pack=2,
                )
            else:
                a, b, c, d = tl.inline_asm_elementwise(
                    _FOURS_F16,
                    "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r",
                    [words, s0, s1, s2, s3, z0, z1, z2, z3],
                    dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
                    is_pure=True,
                    pack=2,
                )
        else:
            if dtype == tl.bfloat16:
                a, b = tl.inline_asm_elementwise(
                    _EIGHTS_BF16,
                    "=r,=r,r,r,r,r,r",
                    [words, s0, s1, z0, z1],
                    dtype=(tl.bfloat16, tl.bfloat16),
                    is_pure=True,
                    pack=2,
                )
            else:
                a, b = tl.inline_asm_elementwise(
                    _EIGHTS_F16,
                    "=r,=r,r,r,r,r,r",
                    [words, s0, s1, z0, z1],
                    dtype=(tl.float16, tl.float16),
                    is_pure=True,
                    pack=2,
                )
            c, d = a, b
    elif bits == 4:
        whole = words.to(tl.int32)
        a = (((whole & 15) - 8).to(tl.float32) * s0 + z0).to(dtype)
        b = ((((whole >> 4) & 15) - 8).to(tl.float32) * s1 + z1).to(dtype)
        c = ((((whole >> 8) & 15) - 8).to(tl.float32) * s2 + z2).to(dtype)
        d = ((((whole >> 12) & 15) - 8).to(tl.float32) * s3 + z3).to(dtype)
    else:
        whole = words.to(tl.int32)
        a = (((whole << 24) >> 24).to(tl.float32) * s0 + z0).to(dtype)
        b = ((whole >> 8).to(tl.float32) * s1 + z1).to(dtype)
        c, d = a, b
    return a, b, c, d


@jit
def _scale(factor: tl.tensor) -> tl.tensor:
    if factor.dtype == tl.int32:
        return factor.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    elif factor.dtype == tl.int64:  # noqa: RET505 - Triton compiles what follows a return
        return factor.to(tl.int32).to(tl.float32, bitcast=True)
    else:
        return factor


@jit
def _zero(factor: tl.tensor, scale: tl.tensor, centre: tl.constexpr) -> tl.tensor:
    """What is added to scale · number, for numbers around 0."""
    if factor.dtype == tl.int32:
        return (factor >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) + centre * scale
    elif factor.dtype == tl.int64:  # noqa: RET505
        return (factor >> 32).to(tl.int32).to(tl.float32, bitcast=True) + centre * scale
    else:
        return tl.zeros(scale.shape, tl.float32)


@jit
def _like(factor: tl.tensor, words: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    return tl.broadcast_to(factor.to(dtype), words.shape)
