"""x · Wᵀ of a packed matrix for up to sixteen rows of x: each warp has steps of its own, and their sums are added at the end.

So few rows are bound by how much of W is on its way at a time. A warp waits for each step of its own, so what is on its way grows with the
warps; rows of W alone make too few of them. The matrix unit's older instruction takes a tile of 16 rows of W from one warp's registers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.packed_words import factors, native, pieces

__all__ = ["MAX_ROWS", "FewPackedTiles", "launch", "pick_tiles"]

#: Rows of x that the kernel takes: as many as the matrix unit's second operand has columns.
MAX_ROWS = 16


@dataclass(frozen=True, slots=True)
class FewPackedTiles:
    """One program computes n columns of the output; `warps` of it take turns at the steps, and so do `split` programs."""

    n: int = 32
    warps: int = 4
    stages: int = 4
    split: int = 1


def pick_tiles(steps: int, bits: int, *, split_k: bool = False) -> FewPackedTiles:
    """The tiles for so many steps of W. `split_k`: the caller takes partial sums."""
    # What was fastest of nine on one H200 (8B's matrices).
    if split_k and steps > 64:
        return FewPackedTiles(32, 4, 3, 2)
    return FewPackedTiles(32, min(4, triton.next_power_of_2(steps)), 3 if bits == 4 else 4)


def launch(
    x: torch.Tensor,
    matrix: PackedMatrix,
    bias: torch.Tensor | None,
    tiles: FewPackedTiles,
    out: torch.Tensor | None = None,
    *,
    gated: bool = False,
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given; with split-K (split, rows, n) float32 partial sums.

    `gated`: W (2n, k) holds gate and up; the result is SiLU(gate) · up.
    """
    (rows, k), n = x.shape, matrix.shape[0] // (2 if gated else 1)
    if out is None:
        out = x.new_empty(rows, n) if tiles.split == 1 else x.new_empty(tiles.split, rows, n, dtype=torch.float32)
    launch_kernel(
        _gemm_packed_few,
        (triton.cdiv(n, tiles.n), tiles.split),
        x,
        matrix.words,
        matrix.factors,
        x if bias is None else bias,
        out,
        rows,
        n,
        k,
        matrix.words.shape[1],
        tile_m=8 if rows <= 8 else MAX_ROWS,
        tile_n=tiles.n,
        piece=matrix.piece,
        bits=matrix.bits,
        many=matrix.many,
        centre=matrix.centre,
        shares=tiles.warps,
        split=tiles.split,
        stages=tiles.stages,
        even=k % (matrix.step * tiles.warps * tiles.split) == 0,
        gated=gated,
        has_bias=bias is not None,
        native=native(x.dtype),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_packed_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    factors_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    words: tl.tensor,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    piece: tl.constexpr,
    bits: tl.constexpr,
    many: tl.constexpr,
    centre: tl.constexpr,
    shares: tl.constexpr,
    split: tl.constexpr,
    stages: tl.constexpr,
    even: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    each: tl.constexpr = 16 // bits
    step: tl.constexpr = each * piece
    turns: tl.constexpr = shares * split
    column, part = tl.program_id(0), tl.program_id(1)
    at_n, at_m, at_k = column * tile_n + tl.arange(0, tile_n), tl.arange(0, tile_m), tl.arange(0, piece)
    # Columns beyond the last are computed, as the last one's, and not stored.
    safe_n = tl.minimum(at_n, n - 1)
    width = (2 * n if gated else n).to(tl.int64)
    share = part * shares + tl.arange(0, shares)
    w = w_ptr + (safe_n.to(tl.int64) * words)[None, :, None] + (share * piece)[:, None, None] + at_k[None, None, :]
    up_w = w + n.to(tl.int64) * words
    factor = factors_ptr + (share * many * width)[:, None] + safe_n[None, :]
    x = x_ptr + (share * step)[:, None, None] + at_k[None, :, None] + (at_m * k)[None, None, :]
    # Rows beyond the last are zeros that nobody loads.
    ok = tl.broadcast_to((at_m < rows)[None, None, :], (shares, piece, tile_m))
    dtype = x_ptr.dtype.element_ty
    acc = tl.zeros((shares, tile_n, tile_m), tl.float32)
    up = tl.zeros((shares, tile_n, tile_m), tl.float32)
    left = k - share * step
    pdl_barrier(pdl)
    # Named here, the stages hold for the factors too, which Triton would otherwise wait for in every step.
    for _ in tl.range(0, tl.cdiv(words, piece * turns), num_stages=stages):
        # A piece of x is there or not: k is a multiple of it.
        there = tl.broadcast_to((left > 0)[:, None], (shares, tile_n))
        ok_w = tl.broadcast_to((left > 0)[:, None, None], (shares, tile_n, piece))
        x0 = tl.load(x, mask=ok if even else ok & (left > 0)[:, None, None], other=0.0)
        x1 = tl.load(x + piece, mask=ok if even else ok & (left > piece)[:, None, None], other=0.0)
        x2, x3 = x0, x1
        if each == 4:
            x2 = tl.load(x + 2 * piece, mask=ok if even else ok & (left > 2 * piece)[:, None, None], other=0.0)
            x3 = tl.load(x + 3 * piece, mask=ok if even else ok & (left > 3 * piece)[:, None, None], other=0.0)
        tile = tl.load(w) if even else tl.load(w, mask=ok_w, other=0)
        f0, f1, f2, f3 = factors(factor, width, True if even else there, each, many)
        acc = _times(tile, f0, f1, f2, f3, x0, x1, x2, x3, acc, dtype, bits, centre, native)
        if gated:
            tile = tl.load(up_w) if even else tl.load(up_w, mask=ok_w, other=0)
            f0, f1, f2, f3 = factors(factor + n, width, True if even else there, each, many)
            up = _times(tile, f0, f1, f2, f3, x0, x1, x2, x3, up, dtype, bits, centre, native)
        x += step * turns
        left -= step * turns
        w += piece * turns
        up_w += piece * turns
        factor += many * turns * width
    total = tl.sum(acc, 0)
    if has_bias:
        total += tl.load(b_ptr + safe_n).to(tl.float32)[:, None] * (part == 0)
    if gated:
        more = tl.sum(up, 0)
        if has_bias:
            more += tl.load(b_ptr + n + safe_n).to(tl.float32)[:, None]
        # Rounded where two kernels would round.
        gate = total.to(dtype).to(tl.float32)
        total = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * more.to(dtype).to(tl.float32)
    target = out_ptr + (part * rows + at_m).to(tl.int64)[None, :] * n + at_n[:, None]
    tl.store(target, total.to(out_ptr.dtype.element_ty), mask=(at_m < rows)[None, :] & (at_n < n)[:, None])


@jit
def _times(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    f0: tl.tensor,
    f1: tl.tensor,
    f2: tl.tensor,
    f3: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    x3: tl.tensor,
    acc: tl.tensor,
    dtype: tl.constexpr,
    bits: tl.constexpr,
    centre: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """A step of W's columns in each share times x, added to what was before."""
    w0, w1, w2, w3 = pieces(words, f0[:, :, None], f1[:, :, None], f2[:, :, None], f3[:, :, None], dtype, bits, centre, native)
    acc = tl.dot(w0, x0, acc, input_precision="ieee")
    acc = tl.dot(w1, x1, acc, input_precision="ieee")
    if bits == 4:
        acc = tl.dot(w2, x2, acc, input_precision="ieee")
        acc = tl.dot(w3, x3, acc, input_precision="ieee")
    return acc
