"""x · Wᵀ of FP8 numbers: a tiled GEMM with scales in its epilogue (or, of blocks, in its loop), optionally with SwiGLU.

The tile of W is the matrix unit's first operand, which is 64 rows high: W fills it, and a few rows of x would not. W is read once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrix
from kernels_support.gpu.lang import fitting_stages, jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.quantize_fp8 import Quantized

__all__ = ["Fp8Tiles", "launch", "pick_tiles"]

#: Rows of x up to which this is faster than `torch._scaled_mm` with a scale a row and column, and with SwiGLU (one H200, 8B's matrices).
MAX_ROWS, GATED_MAX_ROWS = 256, 128

#: Rows of W up to which the first of them holds.
MAX_COLUMNS = 8192

#: Multiprocessors of a large GPU: tiles that are a few more take twice as long as those that are as many.
_PROCESSORS = 132

#: Of each row of W, lines of 128 bytes that come to the L2 cache before x is there (8B on one H200: one row 1 % faster, 256 rows 3 %).
AHEAD_LINES = 8


@dataclass(frozen=True, slots=True)
class Fp8Tiles:
    """One program computes n columns of the output for m rows, in steps of k with `stages` loads in flight.

    n: 64, 128, or of gate and up 96. `split`: programs that share the inner dimension of one tile.
    """

    m: int
    n: int
    k: int
    stages: int
    warps: int = 4
    split: int = 1


def pick_tiles(rows: int, n: int, k: int, *, gated: bool = False, blocks: bool = False, split_k: bool = False) -> Fp8Tiles | None:
    """The tiles for (rows, k) · (n, k)ᵀ; None where `torch._scaled_mm` is faster.

    `gated`: n gate and n up columns. `split_k`: the caller takes partial sums.
    """
    most = MAX_ROWS if n <= MAX_COLUMNS and not gated else GATED_MAX_ROWS
    if n % 64 or k % BLOCK or (not blocks and rows > most):
        return None
    m = min(max(16, triton.next_power_of_2(rows)), 64 if gated and blocks else 128)
    if gated and not blocks and m >= 64 and n % 96 == 0 and n // 96 <= _PROCESSORS < n // 64:
        return _fitting(Fp8Tiles(m, 96, 128, 4, 8), gated=True)
    if m == 128 and n % 128 == 0 and not blocks and (gated or (rows > 128 and n >= 6144)):
        return _fitting(Fp8Tiles(m, 128, 128, 4 if gated else 6, 8), gated=gated)
    if split_k and not blocks and 64 < rows <= 128 and n // 64 <= _PROCESSORS // 2 and k >= 2 * n and k % 512 == 0:
        return _fitting(Fp8Tiles(m, 64, 256, 4, 4, 2), gated=False)
    wide = m <= 64 and k % 256 == 0 and not gated and not blocks
    stages = 5 if wide else 4 if gated and m == 16 else 8 if rows <= 128 else 6
    return _fitting(Fp8Tiles(m, 64, 256 if wide else 128, stages), gated=gated)


def _fitting(tiles: Fp8Tiles, *, gated: bool) -> Fp8Tiles:
    """The same with as many loads in flight as the device has room for."""
    return replace(tiles, stages=fitting_stages(tiles.stages, (tiles.n * (2 if gated else 1) + tiles.m) * tiles.k))


def launch(x: Quantized, matrix: Fp8Matrix, bias: torch.Tensor | None, out: torch.Tensor, tiles: Fp8Tiles) -> torch.Tensor:
    """FP8 (rows, k) and (n, k) → `out` (rows, n), or with W (2n, k) of gate and up SiLU(gate) · up; with split-K (split, rows, n).

    Scales: x (rows, 1) and W (n,), or of blocks x (rows, k / 128) and W (n / 128, k / 128).
    """
    rows, k = x.values.shape
    n = out.shape[-1]
    launch_kernel(
        _gemm_fp8,
        (triton.cdiv(rows, tiles.m), n // tiles.n, tiles.split),
        x.values,
        x.scales,
        matrix.values,
        matrix.scale,
        matrix.scale if bias is None else bias,
        out,
        rows,
        n,
        k,
        tile_m=tiles.m,
        tile_n=64 if tiles.n == 96 else tiles.n,
        tile_k=tiles.k,
        split=tiles.split,
        third=tiles.n == 96,
        gated=matrix.shape[0] == 2 * n,
        has_bias=bias is not None,
        blocks=matrix.blocks,
        ahead=AHEAD_LINES if k >= AHEAD_LINES * BLOCK else 0,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_fp8(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    x_scale_ptr: tl.tensor,
    w_ptr: tl.tensor,
    w_scale_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    split: tl.constexpr,
    third: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    blocks: tl.constexpr,
    ahead: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    # Rows are the fastest dimension: a tile of W is read from memory once, and by the programs of further rows from the L2 cache.
    row, column, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    begin = column * (96 if third else tile_n)
    at_n, at_m = begin + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    part_k = tl.multiple_of(k // split, 128)
    at_k = part * part_k + tl.arange(0, tile_k)
    w = w_ptr + at_n.to(tl.int64)[:, None] * k + at_k[None, :]
    up_w = w + n.to(tl.int64) * k
    # Rows beyond the last are zeros that nobody loads: copies of the last one would all be asked of the same place in the L2 cache.
    safe_m, ok_m = tl.minimum(at_m, rows - 1).to(tl.int64), at_m < rows
    x = x_ptr + safe_m[None, :] * k + at_k[:, None]
    acc = tl.zeros((tile_n, tile_m), tl.float32)
    up = tl.zeros((tile_n, tile_m), tl.float32)
    if third:
        # Half a tile of gate and half a tile of up more, as one: the matrix unit's first operand is 64 rows high.
        both_n = begin + 64 + tl.arange(0, 64)
        both_n = tl.where(both_n < begin + 96, both_n, both_n - 32 + n)
        both_w = w_ptr + both_n.to(tl.int64)[:, None] * k + at_k[None, :]
        both = tl.zeros((64, tile_m), tl.float32)
    k_blocks = k // 128
    w_scale = w_scale_ptr + (column * tile_n // 128) * k_blocks + part * (k_blocks // split)
    up_scale = w_scale + (n // 128) * k_blocks
    x_scale = x_scale_ptr + safe_m * k_blocks + part * (k_blocks // split)
    if pdl and ahead:
        # W does not depend on the preceding kernel: its first bytes come to the L2 cache while that one still computes x.
        at = w_ptr + at_n.to(tl.int64)[:, None] * k + part * part_k + tl.arange(0, ahead)[None, :] * 128
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
        )
        if gated:
            at += n.to(tl.int64) * k
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
            )
    pdl_barrier(pdl)
    for _ in range(0, part_k, tile_k):
        b = tl.load(x, mask=ok_m[None, :], other=0.0)
        if blocks:
            by_row = tl.load(x_scale)
            acc += tl.dot(tl.load(w), b) * (by_row * tl.load(w_scale))[None, :]
            if gated:
                up += tl.dot(tl.load(up_w), b) * (by_row * tl.load(up_scale))[None, :]
            w_scale += 1
            up_scale += 1
            x_scale += 1
        else:
            acc = tl.dot(tl.load(w), b, acc)
            if gated:
                up = tl.dot(tl.load(up_w), b, up)
            if third:
                both = tl.dot(tl.load(both_w), b, both)
                both_w += tile_k
        x += tile_k
        w += tile_k
        up_w += tile_k
    if not blocks:
        by_row = tl.load(x_scale_ptr + safe_m)[None, :]
        acc *= tl.load(w_scale_ptr + at_n)[:, None] * by_row
        if gated:
            up *= tl.load(w_scale_ptr + n + at_n)[:, None] * by_row
    if has_bias:
        acc += tl.load(b_ptr + at_n).to(tl.float32)[:, None] * (part == 0)
        if gated:
            up += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
    dtype = out_ptr.dtype.element_ty
    if gated:
        acc = _silu_mul(acc, up, dtype)
    if third:
        both *= tl.load(w_scale_ptr + both_n)[:, None] * tl.load(x_scale_ptr + safe_m)[None, :]
        if has_bias:
            both += tl.load(b_ptr + both_n).to(tl.float32)[:, None]
        third_gate, third_up = tl.split(tl.permute(tl.reshape(both, (2, 32, tile_m)), (1, 2, 0)))
        target = out_ptr + at_m.to(tl.int64)[:, None] * n + (begin + 64 + tl.arange(0, 32))[None, :]
        tl.store(target, tl.trans(_silu_mul(third_gate, third_up, dtype)).to(dtype), mask=ok_m[:, None])
    target = out_ptr + (part.to(tl.int64) * rows + at_m)[:, None] * n + at_n[None, :]
    tl.store(target, tl.trans(acc).to(dtype), mask=ok_m[:, None])


@jit
def _silu_mul(gate: tl.tensor, up: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """SiLU(gate) · up, rounded where two kernels would round."""
    gate = gate.to(dtype).to(tl.float32)
    return (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)
