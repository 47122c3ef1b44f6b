"""x · Wᵀ of a matrix of four bits (weights alone; x stays as it is): a tiled GEMM that widens W in registers, optionally with SwiGLU.

The tile of W is the matrix unit's first operand, from registers; a few rows of x are the second. A step is one group of columns, whose
scale is applied to its sums. Split-K: where the next kernel reduces the partial sums as it reads them (`norms.py`), the columns are divided
over several programs too, so that every multiprocessor has work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.int4_matrix import Int4Matrix
from kernels_support.gpu.int4_words import widened
from kernels_support.gpu.lang import has_pdl, jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["Int4Tiles", "launch", "pick_tiles", "widen"]

#: Programs that keep every multiprocessor of a large GPU busy.
_MIN_PROGRAMS = 200

#: Rows of x up to which this is estimated to be faster than to widen W and multiply it by cuBLAS.
MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class Int4Tiles:
    """One program computes n columns of the output for m rows, with `stages` loads in flight.

    `split`: programs that share the inner dimension of one tile.
    """

    m: int
    n: int
    stages: int
    warps: int = 4
    split: int = 1


def pick_tiles(rows: int, n: int, groups: int, group: int, *, split_k: bool = False) -> Int4Tiles | None:
    """The tiles for so many rows and n columns; None where W should be widened first. `groups` of `group` columns of W share a scale.

    `split_k`: the caller takes partial sums.
    """
    if rows > MAX_ROWS or n % 64 or group < 64:
        return None
    m = min(max(16, triton.next_power_of_2(rows)), 64)
    split, programs = 1, triton.cdiv(rows, m) * (n // 64)
    # Four parts of 64 rows took twice as long as two (one H200, 8B's matrices).
    if split_k and programs < _MIN_PROGRAMS and groups % 2 == 0:
        split = 2
    return Int4Tiles(m, 64, 4 if m <= 32 or split > 1 else 3, split=split)


def launch(
    x: torch.Tensor,
    matrix: Int4Matrix,
    bias: torch.Tensor | None,
    tiles: Int4Tiles,
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
        _gemm_int4,
        (n // tiles.n, triton.cdiv(rows, tiles.m), tiles.split),
        x,
        matrix.words,
        matrix.scales,
        matrix.zeros,
        matrix.scales if bias is None else bias,
        out,
        rows,
        n,
        k,
        tile_m=tiles.m,
        tile_n=tiles.n,
        group=matrix.groups[1],
        split=tiles.split,
        stages=tiles.stages,
        gated=gated,
        has_bias=bias is not None,
        native=_native(x.dtype),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


def widen(matrix: Int4Matrix, dtype: torch.dtype) -> torch.Tensor:
    """(n, k) plain, its columns as they lie: for a product by cuBLAS."""
    n, k = matrix.shape
    out = torch.empty(n, k, dtype=dtype, device=matrix.words.device)
    grid = triton.cdiv(n, 32), k // matrix.groups[1]
    launch_kernel(
        _widen_int4,
        grid,
        matrix.words,
        matrix.scales,
        matrix.zeros,
        out,
        n,
        k,
        tile_n=32,
        group=matrix.groups[1],
        native=_native(dtype),
        num_warps=4,
    )
    return out


def _native(dtype: torch.dtype) -> bool:
    """Whether the device subtracts pairs of bfloat16 (Hopper and later, as `has_pdl`)."""
    return dtype == torch.bfloat16 and has_pdl()


@jit
def _widen_int4(  # noqa: PLR0917 - what a kernel needs
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tile_n: tl.constexpr,
    group: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    quarter: tl.constexpr = group // 4
    at_n, part = tl.program_id(0) * tile_n + tl.arange(0, tile_n), tl.program_id(1)
    at_k, ok = tl.arange(0, quarter), at_n < n
    dtype = out_ptr.dtype.element_ty
    words = tl.load(w_ptr + at_n.to(tl.int64)[:, None] * (k // 4) + part * quarter + at_k[None, :], mask=ok[:, None], other=0)
    scale = tl.load(scale_ptr + part.to(tl.int64) * n + at_n, mask=ok, other=0.0)[:, None]
    zero = tl.load(zero_ptr + part.to(tl.int64) * n + at_n, mask=ok, other=0)
    zeros = tl.broadcast_to((zero.to(tl.float32) + 128.0).to(dtype)[:, None], words.shape)
    w0, w1, w2, w3 = widened(words, zeros, native)
    target = out_ptr + at_n.to(tl.int64)[:, None] * k + part * group + at_k[None, :]
    tl.store(target, (w0.to(tl.float32) * scale).to(dtype), mask=ok[:, None])
    tl.store(target + quarter, (w1.to(tl.float32) * scale).to(dtype), mask=ok[:, None])
    tl.store(target + 2 * quarter, (w2.to(tl.float32) * scale).to(dtype), mask=ok[:, None])
    tl.store(target + 3 * quarter, (w3.to(tl.float32) * scale).to(dtype), mask=ok[:, None])


@jit
def _gemm_int4(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    group: tl.constexpr,
    split: tl.constexpr,
    stages: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    quarter: tl.constexpr = group // 4
    column, row, share = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_n, at_m = column * tile_n + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    at_k = tl.arange(0, quarter)
    words, share_k = k // 4, k // split
    width = (2 * n if gated else n).to(tl.int64)
    w = w_ptr + at_n.to(tl.int64)[:, None] * words + share * (share_k // 4) + at_k[None, :]
    up_w = w + n.to(tl.int64) * words
    scale, zero = scale_ptr + share * (share_k // group) * width + at_n, zero_ptr + share * (share_k // group) * width + at_n
    # Rows beyond the last are zeros that nobody loads: as copies of the last one they would be as many bytes as a small tile of W.
    ok_m = tl.broadcast_to((at_m < rows)[None, :], (quarter, tile_m))
    x = x_ptr + at_m.to(tl.int64)[None, :] * k + share * share_k + at_k[:, None]
    dtype = x_ptr.dtype.element_ty
    acc = tl.zeros((tile_n, tile_m), tl.float32)
    up = tl.zeros((tile_n, tile_m), tl.float32)
    pdl_barrier(pdl)
    # Named here, the stages hold for scales and zeros too, which Triton would otherwise wait for in every step.
    for _ in tl.range(0, share_k, group, num_stages=stages):
        x0, x1 = tl.load(x, mask=ok_m, other=0.0), tl.load(x + quarter, mask=ok_m, other=0.0)
        x2, x3 = tl.load(x + 2 * quarter, mask=ok_m, other=0.0), tl.load(x + 3 * quarter, mask=ok_m, other=0.0)
        acc += _product(tl.load(w), tl.load(zero), x0, x1, x2, x3, dtype, native) * tl.load(scale).to(tl.float32)[:, None]
        if gated:
            up += _product(tl.load(up_w), tl.load(zero + n), x0, x1, x2, x3, dtype, native) * tl.load(scale + n).to(tl.float32)[:, None]
        x += group
        w += quarter
        up_w += quarter
        scale += width
        zero += width
    if has_bias:
        acc += tl.load(b_ptr + at_n).to(tl.float32)[:, None] * (share == 0)
        if gated:
            up += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
    if gated:
        # Rounded where two kernels would round.
        gate = acc.to(dtype).to(tl.float32)
        acc = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)
    target = out_ptr + (share * rows + at_m).to(tl.int64)[:, None] * n + at_n[None, :]
    tl.store(target, tl.trans(acc).to(out_ptr.dtype.element_ty), mask=(at_m < rows)[:, None])


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
    """One group of W's columns, unscaled, times x."""
    zeros = tl.broadcast_to((zero.to(tl.float32) + 128.0).to(dtype)[:, None], words.shape)
    w0, w1, w2, w3 = widened(words, zeros, native)
    acc = tl.dot(w0, x0, input_precision="ieee")
    acc = tl.dot(w1, x1, acc, input_precision="ieee")
    acc = tl.dot(w2, x2, acc, input_precision="ieee")
    return tl.dot(w3, x3, acc, input_precision="ieee")
