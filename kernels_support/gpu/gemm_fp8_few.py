"""x · Wᵀ of FP8 numbers for up to eight rows of a plain x: W is widened to bfloat16 in registers, exactly, and x is not rounded at all.

So few rows wait for kernels to begin more than for anything else: the ones that put x in eight bits are not needed here. Each warp of a
program has columns of its own, whose sums are added at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrix
from kernels_support.gpu.lang import fitting_stages, has_pdl, jit, launch_kernel, pdl_launch_dependents, pdl_wait, tl
from kernels_support.gpu.quantize_fp8 import PLAIN_ROWS

__all__ = ["MAX_ROWS", "FewFp8Tiles", "launch", "pick_tiles"]

#: Rows of x that the kernel takes: as many as the matrix unit's second operand has columns.
MAX_ROWS = PLAIN_ROWS

#: Columns of gate from which a large GPU has places enough for tiles twice as wide.
_LARGE = 8192


@dataclass(frozen=True, slots=True)
class FewFp8Tiles:
    """One program computes n columns of the output (gated: of gate and of up); its `warps` share the columns of x, in steps of k.

    `ahead`: of each row of W, lines of 128 bytes that come to the L2 cache before x is there. `dependents_last`: the next kernel may start
    only when W has been read: earlier, its programs take places that this one's still wait for.
    """

    n: int = 16
    k: int = BLOCK
    warps: int = 4
    stages: int = 3
    ahead: int = 0
    dependents_last: bool = False


def pick_tiles(n: int, k: int, *, gated: bool = False) -> FewFp8Tiles | None:
    """The tiles for n columns (gated: of gate and as many of up); None where the sizes do not divide so."""
    if n % 16 or k % BLOCK:
        return None
    # What made a whole step of one row fastest on one H200 (8B's matrices; alone, other tiles are); a step is a block.
    warps = next(warps for warps in (4, 2, 1) if k % (warps * BLOCK) == 0)
    if k % (8 * BLOCK) == 0 and k > 8192:
        tiles = FewFp8Tiles(16, BLOCK, 8, 4, ahead=16, dependents_last=True)
    elif gated:
        tiles = FewFp8Tiles(32, BLOCK, warps, 2) if n % 32 == 0 and n > _LARGE else FewFp8Tiles(16, BLOCK, warps, 4)
    else:
        tiles = FewFp8Tiles(16, BLOCK, warps, 4, dependents_last=n > k)
    stage = tiles.warps * tiles.k * (tiles.n * (2 if gated else 1) + 2 * MAX_ROWS)
    return replace(tiles, stages=fitting_stages(tiles.stages, stage))


def launch(x: torch.Tensor, matrix: Fp8Matrix, bias: torch.Tensor | None, out: torch.Tensor, tiles: FewFp8Tiles) -> torch.Tensor:
    """(rows, k) and FP8 (n, k) → `out` (rows, n), or with W (2n, k) of gate and up SiLU(gate) · up."""
    (rows, k), n = x.shape, out.shape[1]
    native = x.dtype == torch.bfloat16 and has_pdl()
    launch_kernel(
        _gemm_fp8_few,
        (n // tiles.n,),
        x.view(torch.int32) if native else x,
        matrix.values.view(torch.int16),
        matrix.scale,
        matrix.scale if bias is None else bias,
        out,
        rows,
        n,
        k,
        k // 2,
        tile_n=tiles.n,
        tile_k=tiles.k,
        shares=tiles.warps,
        stages=tiles.stages,
        gated=matrix.shape[0] == 2 * n,
        has_bias=bias is not None,
        blocks=matrix.blocks,
        ahead=tiles.ahead,
        dependents_last=tiles.dependents_last,
        native=native,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def widened_eights(pairs: tl.tensor, like: tl.tensor, native: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """int16 pairs of E4M3 → (the low bytes' numbers, the high bytes' numbers), in the dtype of `like`."""
    if native:
        # Sign, exponent and mantissa to their places in bfloat16, whose exponents are 120 more: two numbers an instruction.
        even, odd = tl.inline_asm_elementwise(
            "{ .reg .b32 p, q, s, t, c; mov.b32 c, 0x7b807b80; shl.b32 p, $2, 8; shl.b32 s, $2, 4; shr.u32 t, $2, 4; mov.b32 q, $2; "
            "and.b32 s, s, 0x07f007f0; and.b32 t, t, 0x07f007f0; "
            "lop3.b32 s, p, 0x80008000, s, 0xea; lop3.b32 t, q, 0x80008000, t, 0xea; "
            "mul.rn.bf16x2 $0, s, c; mul.rn.bf16x2 $1, t, c; }",
            "=&r,=&r,r",
            [pairs],
            dtype=(tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=2,
        )
    else:
        even = (pairs & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float32).to(like.dtype)
        odd = ((pairs >> 8) & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float32).to(like.dtype)
    return even, odd


@jit
def _even_and_odd(x: tl.tensor, ok: tl.tensor, native: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Neighbouring numbers of x: `x` points to pairs of bfloat16 as 32 bits, else to the first of each pair."""
    if native:
        pair = tl.load(x, mask=ok, other=0)
        even = (pair & 0xFFFF).to(tl.int16).to(tl.bfloat16, bitcast=True)
        odd = (pair >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        even, odd = tl.load(x, mask=ok, other=0.0), tl.load(x + 1, mask=ok, other=0.0)
    return even, odd


@jit
def _gemm_fp8_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    words: tl.tensor,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    shares: tl.constexpr,
    stages: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    blocks: tl.constexpr,
    ahead: tl.constexpr,
    dependents_last: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    half: tl.constexpr = tile_k // 2
    step_x: tl.constexpr = 1 if native else 2
    column = tl.program_id(0)
    at_n, at_m, at_k = column * tile_n + tl.arange(0, tile_n), tl.arange(0, 8), tl.arange(0, half)
    steps = words // (shares * half)
    share = tl.arange(0, shares) * (steps * half)
    w = w_ptr + (at_n.to(tl.int64) * words)[None, :, None] + share[:, None, None] + at_k[None, None, :]
    up_w = w + n.to(tl.int64) * words
    x = x_ptr + step_x * (share[:, None, None] + at_k[None, :, None] + (at_m * words)[None, None, :])
    # Rows beyond the last are zeros that nobody loads.
    ok = tl.broadcast_to((at_m < rows)[None, None, :], (shares, half, 8))
    acc = tl.zeros((shares, tile_n, 8), tl.float32)
    up = tl.zeros((shares, tile_n, 8), tl.float32)
    scale = scale_ptr + (column * tile_n // 128) * (k // 128) + share // 64
    up_scale = scale + (n // 128) * (k // 128)
    if stages == 1:
        # W does not depend on the kernel in front.
        piece = tl.load(w)
        if gated:
            up_piece = tl.load(up_w)
    if pdl and ahead:
        # W does not depend on the kernel in front: it comes to the L2 cache while that one still computes x.
        line = w_ptr + at_n.to(tl.int64)[:, None] * words + tl.arange(0, ahead)[None, :] * 64
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [line.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
        )
        if gated:
            line += n.to(tl.int64) * words
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [line.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
            )
    pdl_wait(pdl)
    if not dependents_last:
        pdl_launch_dependents(pdl)
    for step in tl.range(0, steps, num_stages=stages):
        x0, x1 = _even_and_odd(x, ok, native)
        if stages == 1:
            left, more = piece, tl.broadcast_to((at_k + (step + 1) * half < steps * half)[None, None, :], w.shape)
            piece = tl.load(w + half, mask=more, other=0)
        else:
            left = tl.load(w)
        if blocks:
            acc += _product(left, x0, x1, tl.zeros(acc.shape, tl.float32), native) * tl.load(scale + step * half // 64)[:, None, None]
        else:
            acc = _product(left, x0, x1, acc, native)
        if gated:
            if stages == 1:
                left = up_piece
                up_piece = tl.load(up_w + half, mask=more, other=0)
            else:
                left = tl.load(up_w)
            if blocks:
                up += _product(left, x0, x1, tl.zeros(up.shape, tl.float32), native) * tl.load(up_scale + step * half // 64)[:, None, None]
            else:
                up = _product(left, x0, x1, up, native)
        w += half
        up_w += half
        x += step_x * half
    if dependents_last:
        pdl_launch_dependents(pdl)
    total = tl.sum(acc, 0)
    if not blocks:
        total *= tl.load(scale_ptr + at_n)[:, None]
    if has_bias:
        total += tl.load(b_ptr + at_n).to(tl.float32)[:, None]
    dtype = out_ptr.dtype.element_ty
    if gated:
        more_total = tl.sum(up, 0)
        if not blocks:
            more_total *= tl.load(scale_ptr + n + at_n)[:, None]
        if has_bias:
            more_total += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
        # Rounded where two kernels would round.
        gate = total.to(dtype).to(tl.float32)
        total = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * more_total.to(dtype).to(tl.float32)
    target = out_ptr + at_m.to(tl.int64)[None, :] * n + at_n[:, None]
    tl.store(target, total.to(dtype), mask=(at_m < rows)[None, :])


@jit
def _product(pairs: tl.tensor, x0: tl.tensor, x1: tl.tensor, acc: tl.tensor, native: tl.constexpr) -> tl.tensor:
    """Some columns of W in each share, unscaled, times x, added to `acc`."""
    even, odd = widened_eights(pairs, x0, native)
    return tl.dot(odd, x1, tl.dot(even, x0, acc, input_precision="ieee"), input_precision="ieee")
