"""x · Wᵀ of a matrix of four bits for up to sixteen rows of x: each warp has columns of its own, and their sums are added at the end.

So few rows are bound by how much of W is on its way at a time. A warp waits for each step of its own, so what is on its way grows with the
warps; rows of W alone make too few of them. The matrix unit's older instruction takes a tile of 16 rows of W from one warp's registers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.int4_matrix import Int4Matrix
from kernels_support.gpu.int4_words import widened
from kernels_support.gpu.lang import has_pdl, jit, launch_kernel, pdl_barrier, tl

__all__ = ["MAX_ROWS", "FewInt4Tiles", "launch", "pick_tiles"]

#: Rows of x that the kernel takes: as many as the matrix unit's second operand has columns.
MAX_ROWS = 16


@dataclass(frozen=True, slots=True)
class FewInt4Tiles:
    """One program computes n columns of the output; `warps` of it share the inner dimension, and so do `split` programs."""

    n: int = 32
    warps: int = 4
    stages: int = 4
    split: int = 1


def pick_tiles(n: int, groups: int, group: int, *, split_k: bool = False) -> FewInt4Tiles | None:
    """The tiles for n columns (gated: of gate and as many of up); None where the sizes do not divide so.

    `split_k`: the caller takes partial sums.
    """
    if n % 32 or group < 64 or group % 64:
        return None
    # What was fastest of eighteen on one H200 (8B's matrices).
    if split_k and groups % 8 == 0 and groups * group > 8192:
        return FewInt4Tiles(32, 4, 3, 2)
    return FewInt4Tiles(32, next(warps for warps in (4, 2, 1) if groups % warps == 0), 4)


def launch(
    x: torch.Tensor,
    matrix: Int4Matrix,
    bias: torch.Tensor | None,
    tiles: FewInt4Tiles,
    out: torch.Tensor | None = None,
    *,
    gated: bool = False,
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given; with split-K (split, rows, n) float32 partial sums.

    `gated`: W (2n, k) holds gate and up; the result is SiLU(gate) · up.
    """
    rows, k = x.shape
    n = matrix.shape[0] // (2 if gated else 1)
    if out is None:
        out = x.new_empty(rows, n) if tiles.split == 1 else x.new_empty(tiles.split, rows, n, dtype=torch.float32)
    launch_kernel(
        _gemm_int4_few,
        (n // tiles.n, tiles.split),
        x,
        matrix.words,
        matrix.scales,
        matrix.zeros,
        matrix.scales if bias is None else bias,
        out,
        rows,
        n,
        k,
        k // 4,
        tile_m=8 if rows <= 8 else MAX_ROWS,
        tile_n=tiles.n,
        group=matrix.groups[1],
        shares=tiles.warps,
        split=tiles.split,
        stages=tiles.stages,
        gated=gated,
        has_bias=bias is not None,
        native=x.dtype == torch.bfloat16 and has_pdl(),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_int4_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    words: tl.tensor,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    group: tl.constexpr,
    shares: tl.constexpr,
    split: tl.constexpr,
    stages: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    quarter: tl.constexpr = group // 4
    many: tl.constexpr = 2 if gated else 1
    column, part = tl.program_id(0), tl.program_id(1)
    at_n, at_m, at_k = column * tile_n + tl.arange(0, tile_n), tl.arange(0, tile_m), tl.arange(0, quarter)
    # In whole groups, so that each begins at 16 bytes of words.
    groups = k // group // (shares * split)
    share = (part * shares + tl.arange(0, shares)) * groups
    w = w_ptr + (at_n.to(tl.int64) * words)[None, :, None] + (share * quarter)[:, None, None] + at_k[None, None, :]
    up_w = w + n.to(tl.int64) * words
    scale = scale_ptr + (share * n * many)[:, None] + at_n[None, :]
    zero = zero_ptr + (share * n * many)[:, None] + at_n[None, :]
    x = x_ptr + (share * group)[:, None, None] + at_k[None, :, None] + (at_m * k)[None, None, :]
    # Rows beyond the last are zeros that nobody loads.
    ok = tl.broadcast_to((at_m < rows)[None, None, :], (shares, quarter, tile_m))
    dtype = x_ptr.dtype.element_ty
    acc = tl.zeros((shares, tile_n, tile_m), tl.float32)
    up = tl.zeros((shares, tile_n, tile_m), tl.float32)
    pdl_barrier(pdl)
    # Named here, the stages hold for scales and zeros too, which Triton would otherwise wait for in every step.
    for _ in tl.range(0, groups, num_stages=stages):
        x0, x1 = tl.load(x, mask=ok, other=0.0), tl.load(x + quarter, mask=ok, other=0.0)
        x2, x3 = tl.load(x + 2 * quarter, mask=ok, other=0.0), tl.load(x + 3 * quarter, mask=ok, other=0.0)
        acc += _product(tl.load(w), tl.load(zero), x0, x1, x2, x3, dtype, native) * tl.load(scale)[:, :, None]
        if gated:
            up += _product(tl.load(up_w), tl.load(zero + n), x0, x1, x2, x3, dtype, native) * tl.load(scale + n)[:, :, None]
        x += group
        w += quarter
        up_w += quarter
        scale += n * many
        zero += n * many
    total = tl.sum(acc, 0)
    if has_bias:
        total += tl.load(b_ptr + at_n).to(tl.float32)[:, None] * (part == 0)
    if gated:
        more = tl.sum(up, 0)
        if has_bias:
            more += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
        # Rounded where two kernels would round.
        gate = total.to(dtype).to(tl.float32)
        total = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * more.to(dtype).to(tl.float32)
    target = out_ptr + (part * rows + at_m).to(tl.int64)[None, :] * n + at_n[:, None]
    tl.store(target, total.to(out_ptr.dtype.element_ty), mask=(at_m < rows)[None, :])


@jit
def _product(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    zero: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    x3: tl.tensor,
    dtype: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """One group of W's columns in each share, unscaled, times x."""
    zeros = tl.broadcast_to((zero + 128.0).to(dtype)[:, :, None], words.shape)
    w0, w1, w2, w3 = widened(words, zeros, native)
    acc = tl.dot(w0, x0, input_precision="ieee")
    acc = tl.dot(w1, x1, acc, input_precision="ieee")
    acc = tl.dot(w2, x2, acc, input_precision="ieee")
    return tl.dot(w3, x3, acc, input_precision="ieee")
