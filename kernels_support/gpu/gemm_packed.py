"""x · Wᵀ of a packed matrix for more than a few rows of x: a tiled GEMM that widens W in registers, optionally with SwiGLU.

The tile of W is the matrix unit's first operand, from registers; rows of x are the second. Split-K: where the next kernel reduces the
partial sums as it reads them (`norms.py`), the steps are divided over several programs, so that every multiprocessor has work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.packed_words import factors, native, pieces

__all__ = ["PackedTiles", "launch", "pick_tiles", "widen"]

#: Programs that keep every multiprocessor of a large GPU busy.
_MIN_PROGRAMS = 200


@dataclass(frozen=True, slots=True)
class PackedTiles:
    """One program computes n columns of the output for m rows, with `stages` loads in flight.

    `split`: programs that share the inner dimension of one tile.
    """

    m: int
    n: int = 64
    stages: int = 4
    warps: int = 4
    split: int = 1


def pick_tiles(rows: int, n: int, steps: int, itemsize: int, *, split_k: bool = False) -> PackedTiles:
    """The tiles for so many rows, n columns of the output and steps of W. `split_k`: the caller takes partial sums."""
    if itemsize > 2:
        return PackedTiles(16, stages=2)
    m = min(max(16, triton.next_power_of_2(rows)), 128)
    split = 2 if split_k and triton.cdiv(rows, m) * triton.cdiv(n, 64) < _MIN_PROGRAMS and steps % 2 == 0 else 1
    # What was fastest of seven on one H200 (8B's matrices).
    if m == 128 or (m == 64 and n >= 8192):
        return PackedTiles(m, 128, 3, 8, split)
    return PackedTiles(m, 64, 4, 4, split)


def launch(
    x: torch.Tensor,
    matrix: PackedMatrix,
    bias: torch.Tensor | None,
    tiles: PackedTiles,
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
        _gemm_packed,
        (triton.cdiv(n, tiles.n), triton.cdiv(rows, tiles.m), tiles.split),
        x,
        matrix.words,
        matrix.factors,
        x if bias is None else bias,
        out,
        rows,
        n,
        k,
        matrix.words.shape[1],
        tile_m=tiles.m,
        tile_n=tiles.n,
        piece=matrix.piece,
        bits=matrix.bits,
        many=matrix.many,
        centre=matrix.centre,
        split=tiles.split,
        stages=tiles.stages,
        even=k % matrix.step == 0,
        gated=gated,
        has_bias=bias is not None,
        native=native(x.dtype),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


def widen(matrix: PackedMatrix, dtype: torch.dtype, rows: torch.Tensor | None = None) -> torch.Tensor:
    """(n, k) plain, or some rows of it: for a product by cuBLAS, or of an embedding."""
    n, k = matrix.shape
    count = n if rows is None else len(rows)
    out = torch.empty(count, k, dtype=dtype, device=matrix.words.device)
    launch_kernel(
        _widen_packed,
        (triton.cdiv(count, 16), triton.cdiv(k, 256)),
        matrix.words,
        matrix.factors,
        matrix.words if rows is None else rows,
        out,
        count,
        n,
        k,
        matrix.words.shape[1],
        tile_n=16,
        turns=256 // matrix.step,
        piece=matrix.piece,
        bits=matrix.bits,
        many=matrix.many,
        centre=matrix.centre,
        some=rows is not None,
        native=native(dtype),
        num_warps=4,
    )
    return out


@jit
def _widen_packed(  # noqa: PLR0917 - what a kernel needs
    w_ptr: tl.tensor,
    factors_ptr: tl.tensor,
    rows_ptr: tl.tensor,
    out_ptr: tl.tensor,
    count: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    words: tl.tensor,
    tile_n: tl.constexpr,
    turns: tl.constexpr,
    piece: tl.constexpr,
    bits: tl.constexpr,
    many: tl.constexpr,
    centre: tl.constexpr,
    some: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    each: tl.constexpr = 16 // bits
    at, step, at_k = tl.program_id(0) * tile_n + tl.arange(0, tile_n), tl.program_id(1) * turns + tl.arange(0, turns), tl.arange(0, piece)
    first = (step * (each * piece))[None, :, None]
    ok = (at < count)[:, None] & (step * (each * piece) < k)[None, :]
    row = (tl.load(rows_ptr + at, mask=at < count, other=0) if some else at).to(tl.int64)
    dtype = out_ptr.dtype.element_ty
    tile = tl.load(w_ptr + (row * words)[:, None, None] + (step * piece)[None, :, None] + at_k[None, None, :], mask=ok[:, :, None], other=0)
    f0, f1, f2, f3 = factors(factors_ptr + (step * many).to(tl.int64)[None, :] * n + row[:, None], n, ok, each, many)
    w0, w1, w2, w3 = pieces(tile, f0[:, :, None], f1[:, :, None], f2[:, :, None], f3[:, :, None], dtype, bits, centre, native)
    out = out_ptr + (at.to(tl.int64) * k)[:, None, None] + first + at_k[None, None, :]
    # A piece is there or not: k is a multiple of it.
    there = (at < count)[:, None, None]
    tl.store(out, w0, mask=there & (first < k))
    tl.store(out + piece, w1, mask=there & (first + piece < k))
    if each == 4:
        tl.store(out + 2 * piece, w2, mask=there & (first + 2 * piece < k))
        tl.store(out + 3 * piece, w3, mask=there & (first + 3 * piece < k))


@jit
def _gemm_packed(  # noqa: PLR0917 - what a kernel needs
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
    split: tl.constexpr,
    stages: tl.constexpr,
    even: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    each: tl.constexpr = 16 // bits
    column, row, share = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_n, at_m = column * tile_n + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    # Columns beyond the last are computed, as the last one's, and not stored.
    safe_n, at_k = tl.minimum(at_n, n - 1), tl.arange(0, piece)
    width = (2 * n if gated else n).to(tl.int64)
    steps = words // piece // split
    w = w_ptr + safe_n.to(tl.int64)[:, None] * words + share * steps * piece + at_k[None, :]
    up_w = w + n.to(tl.int64) * words
    factor = factors_ptr + share * steps * many * width + safe_n
    # Rows beyond the last are zeros that nobody loads: as copies of the last one they would be as many bytes as a small tile of W.
    ok = tl.broadcast_to((at_m < rows)[None, :], (piece, tile_m))
    first = share * steps * (each * piece)
    x = x_ptr + at_m.to(tl.int64)[None, :] * k + first + at_k[:, None]
    dtype = x_ptr.dtype.element_ty
    acc = tl.zeros((tile_n, tile_m), tl.float32)
    up = tl.zeros((tile_n, tile_m), tl.float32)
    left = tl.zeros((1, 1), tl.int32) + (k - first)
    pdl_barrier(pdl)
    # Named here, the stages hold for the factors too, which Triton would otherwise wait for in every step.
    for _ in tl.range(0, steps, num_stages=stages):
        x0 = tl.load(x, mask=ok, other=0.0)
        x1 = tl.load(x + piece, mask=ok if even else ok & (left > piece), other=0.0)
        x2, x3 = x0, x1
        if each == 4:
            x2 = tl.load(x + 2 * piece, mask=ok if even else ok & (left > 2 * piece), other=0.0)
            x3 = tl.load(x + 3 * piece, mask=ok if even else ok & (left > 3 * piece), other=0.0)
        f0, f1, f2, f3 = factors(factor, width, True, each, many)
        acc = _times(tl.load(w), f0, f1, f2, f3, x0, x1, x2, x3, acc, dtype, bits, centre, native)
        if gated:
            f0, f1, f2, f3 = factors(factor + n, width, True, each, many)
            up = _times(tl.load(up_w), f0, f1, f2, f3, x0, x1, x2, x3, up, dtype, bits, centre, native)
        x += each * piece
        left -= each * piece
        w += piece
        up_w += piece
        factor += many * width
    if has_bias:
        acc += tl.load(b_ptr + safe_n).to(tl.float32)[:, None] * (share == 0)
        if gated:
            up += tl.load(b_ptr + n + safe_n).to(tl.float32)[:, None]
    if gated:
        # Rounded where two kernels would round.
        gate = acc.to(dtype).to(tl.float32)
        acc = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)
    target = out_ptr + (share * rows + at_m).to(tl.int64)[:, None] * n + at_n[None, :]
    tl.store(target, tl.trans(acc).to(out_ptr.dtype.element_ty), mask=(at_m < rows)[:, None] & (at_n < n)[None, :])


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
    """A step of W's columns times x, added to what was before."""
    w0, w1, w2, w3 = pieces(words, f0[:, None], f1[:, None], f2[:, None], f3[:, None], dtype, bits, centre, native)
    acc = tl.dot(w0, x0, acc, input_precision="ieee")
    acc = tl.dot(w1, x1, acc, input_precision="ieee")
    if bits == 4:
        acc = tl.dot(w2, x2, acc, input_precision="ieee")
        acc = tl.dot(w3, x3, acc, input_precision="ieee")
    return acc
