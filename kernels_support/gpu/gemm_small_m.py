"""x · Wᵀ for 3 to 256 rows of x and a small W: a tiled GEMM, optionally split-K, optionally with SiLU(gate) · up as its epilogue (SwiGLU).

A library's GEMM starts only when the preceding kernel has ended, which costs 1.3 µs per kernel, seven times per layer, where a small
product itself takes 5 µs; this one uses programmatic dependent launch (CUDA C++ Programming Guide).
Split-K: where the next kernel reduces the partial sums as it reads them (`norms.py`), the inner dimension is divided over several
programs too, so that every multiprocessor has work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["MAX_ROWS", "Tiles", "launch", "pick_tiles"]

#: Rows of x up to which this is faster than cuBLAS (measured on one H200 with the matrices of a 0.6B model).
MAX_ROWS = 256

#: Programs that keep every multiprocessor of a large GPU busy.
_MIN_PROGRAMS = 90


@dataclass(frozen=True, slots=True)
class Tiles:
    """One program computes an (m, n) tile of the output, in steps of k with `stages` loads in flight.

    `split`: programs that share the inner dimension of one tile.
    """

    m: int
    n: int
    k: int
    stages: int
    split: int = 1


def pick_tiles(rows: int, n: int, k: int, *, gated: bool = False, split_k: bool = False) -> Tiles | None:
    """Tiles for (rows, k) · (n, k)ᵀ; None for shapes this kernel does not take.

    `gated`: n gate and n up columns. `split_k`: the caller takes partial sums.
    """
    m = 16 if rows <= 16 else 32 if rows <= 32 else 64
    if rows > MAX_ROWS or n % 64 or k % 128:
        return None
    programs = triton.cdiv(rows, m) * (n // 64)
    tile_n = 64 if programs >= _MIN_PROGRAMS else 32
    split = 2 if split_k and programs * (64 // tile_n) < _MIN_PROGRAMS and k % 256 == 0 else 1
    tile_k = 64 if tile_n == 64 and split == 1 else 128
    stages = (3 if tile_n == 32 else 4) if gated else 5 if tile_k == 64 else 4
    return Tiles(m, tile_n, tile_k, stages, split)


def launch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tiles: Tiles, out: torch.Tensor | None = None, *, gated: bool = False
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given; with split-K (split, rows, n) float32 partial sums.

    `gated`: weight (2n, k) holds gate and up; the result is SiLU(gate) · up.
    """
    rows, k = x.shape
    n = weight.shape[0] // (2 if gated else 1)
    if out is None:
        out = x.new_empty(rows, n) if tiles.split == 1 else x.new_empty(tiles.split, rows, n, dtype=torch.float32)
    launch_kernel(
        _gemm_small_m,
        (n // tiles.n, triton.cdiv(rows, tiles.m), tiles.split),
        x,
        weight,
        weight if bias is None else bias,
        out,
        rows,
        n,
        k,
        tile_m=tiles.m,
        tile_n=tiles.n,
        tile_k=tiles.k,
        split=tiles.split,
        gated=gated,
        has_bias=bias is not None,
        num_warps=4,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_small_m(  # noqa: PLR0917 - what a kernel needs
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
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    column, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_n, at_m = column * tile_n + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    part_k = k // split
    at_k = part * part_k + tl.arange(0, tile_k)
    w = w_ptr + at_n[:, None] * k + at_k[None, :]
    x = x_ptr + at_m[:, None] * k + at_k[None, :]
    ok_m = (at_m < rows)[:, None]
    dtype = x_ptr.dtype.element_ty
    acc = tl.zeros((tile_m, tile_n), tl.float32)
    up = tl.zeros((tile_m, tile_n), tl.float32)
    pdl_barrier(pdl)
    for _ in range(0, part_k, tile_k):
        a = tl.load(x, mask=ok_m, other=0.0)
        acc = tl.dot(a, tl.trans(tl.load(w)), acc, input_precision="ieee")
        if gated:
            up = tl.dot(a, tl.trans(tl.load(w + n * k)), up, input_precision="ieee")
        x += tile_k
        w += tile_k
    if has_bias:
        acc += tl.load(b_ptr + at_n).to(tl.float32)[None, :] * (part == 0)
        if gated:
            up += tl.load(b_ptr + n + at_n).to(tl.float32)[None, :]
    if gated:
        # Rounded where two kernels would round.
        gate = acc.to(dtype).to(tl.float32)
        acc = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)
    target = out_ptr + part * rows * n + at_m[:, None] * n + at_n[None, :]
    tl.store(target, acc.to(out_ptr.dtype.element_ty), mask=ok_m)
