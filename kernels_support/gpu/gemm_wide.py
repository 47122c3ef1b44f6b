"""x · Wᵀ for 9 to 128 rows of x and a large W: a tiled GEMM, optionally split-K, optionally with SiLU(gate) · up as its epilogue (SwiGLU).

The tile of W is the matrix unit's first operand, that of x its second, so that a tile has all rows of x and W is read once. Gate and up in
tiles of 96 columns: as many programs as a large GPU has multiprocessors, where 64 would be a few more, which take twice as long. A library
is as fast alone; but these stand by while the kernel in front still runs (programmatic dependent launch).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels_support.gpu.lang import fitting_stages, jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["MAX_ROWS", "MIN_ROWS", "WideTiles", "launch", "pick_tiles"]

#: Rows of x for which a step is faster with gate and up from here than from cuBLAS and a kernel of SiLU (one H200, 8B's matrices), and with
#: the other products: beyond, x is too much for each program to read.
MIN_ROWS, MAX_GATED_ROWS, MAX_ROWS = 9, 128, 64

#: Multiprocessors of a large GPU, and programs of 64 columns from which they have enough to do.
_PROCESSORS, _FEWEST = 132, 92


@dataclass(frozen=True, slots=True)
class WideTiles:
    """One program computes n columns of the output (gated: of gate and of up) for m rows, in steps of k with `stages` loads in flight.

    `split`: programs that share the inner dimension of one tile.
    """

    m: int
    n: int
    k: int
    stages: int
    warps: int = 4
    split: int = 1


def pick_tiles(rows: int, n: int, k: int, *, gated: bool = False, split_k: bool = False) -> WideTiles | None:
    """Tiles for (rows, k) · (n, k)ᵀ, or of gate and up (2n, k); None where cuBLAS is faster."""
    if rows < MIN_ROWS or n % 32 or k % 128:
        return None
    m = triton.next_power_of_2(rows)
    if gated:
        return _gated_tiles(max(16, m), n)
    splits = (1, 2, 4) if split_k else (1,)
    split = next((s for s in splits if _FEWEST <= n // 64 * s <= _PROCESSORS and k % (64 * s) == 0), 0)
    return _fitting(WideTiles(max(16, m), 64, 64, 8, split=split)) if split and rows <= MAX_ROWS and n % 64 == 0 else None


def _gated_tiles(m: int, n: int) -> WideTiles | None:
    """What made a whole step fastest."""
    if m <= 32:
        fits = n % 64 == 0 and _FEWEST <= n // 64 <= 2 * _PROCESSORS
        return _fitting(WideTiles(m, 64, 64, 5 if m == 32 else 4), gated=True) if fits else None
    if m > MAX_GATED_ROWS or n % 96 or not n // 96 <= _PROCESSORS < n // 64:
        return None
    return _fitting(WideTiles(64, 96, 128, 3, 8) if m == 64 else WideTiles(128, 96, 64, 4, 8), gated=True)


def _fitting(tiles: WideTiles, *, gated: bool = False) -> WideTiles:
    """The same with as many loads in flight as the device has room for."""
    return replace(tiles, stages=fitting_stages(tiles.stages, 2 * (tiles.n * (2 if gated else 1) + tiles.m) * tiles.k))


def launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    tiles: WideTiles,
    out: torch.Tensor | None = None,
    *,
    gated: bool = False,
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given; with split-K (split, rows, n) float32 partial sums.

    `gated`: weight (2n, k) holds gate and up; the result is SiLU(gate) · up.
    """
    rows, k = x.shape
    n = weight.shape[0] // (2 if gated else 1)
    if out is None:
        out = x.new_empty(rows, n) if tiles.split == 1 else x.new_empty(tiles.split, rows, n, dtype=torch.float32)
    launch_kernel(
        _gemm_wide,
        (triton.cdiv(rows, tiles.m), n // tiles.n, tiles.split),
        x,
        weight,
        weight if bias is None else bias,
        out,
        rows,
        n,
        k,
        tile_m=tiles.m,
        tile_n=64 if tiles.n == 96 else tiles.n,
        tile_k=tiles.k,
        split=tiles.split,
        third=tiles.n == 96,
        gated=gated,
        has_bias=bias is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_wide(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
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
    pdl: tl.constexpr,
) -> None:
    # Rows are the fastest dimension: a tile of W is read from memory once, and by the programs of further rows from the L2 cache.
    row, column, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    begin = column * (96 if third else tile_n)
    at_n, at_m = begin + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    part_k = tl.multiple_of(k // split, 64)
    at_k = part * part_k + tl.arange(0, tile_k)
    w = w_ptr + at_n.to(tl.int64)[:, None] * k + at_k[None, :]
    up_w = w + n.to(tl.int64) * k
    ok_m = at_m < rows
    x = x_ptr + tl.minimum(at_m, rows - 1)[None, :] * k + at_k[:, None]
    acc = tl.zeros((tile_n, tile_m), tl.float32)
    up = tl.zeros((tile_n, tile_m), tl.float32)
    if third:
        # Half a tile of gate and half a tile of up more, as one: the matrix unit's first operand is 64 rows high.
        both_n = begin + 64 + tl.arange(0, 64)
        both_n = tl.where(both_n < begin + 96, both_n, both_n - 32 + n)
        both_w = w_ptr + both_n.to(tl.int64)[:, None] * k + at_k[None, :]
        both = tl.zeros((64, tile_m), tl.float32)
    pdl_barrier(pdl)
    for _ in range(0, part_k, tile_k):
        b = tl.load(x, mask=ok_m[None, :], other=0.0)
        acc = tl.dot(tl.load(w), b, acc, input_precision="ieee")
        if gated:
            up = tl.dot(tl.load(up_w), b, up, input_precision="ieee")
        if third:
            both = tl.dot(tl.load(both_w), b, both, input_precision="ieee")
            both_w += tile_k
        x += tile_k
        w += tile_k
        up_w += tile_k
    if has_bias:
        acc += tl.load(b_ptr + at_n).to(tl.float32)[:, None] * (part == 0)
        if gated:
            up += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
    dtype = out_ptr.dtype.element_ty
    if gated:
        acc = _silu_mul(acc, up, dtype)
    if third:
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
