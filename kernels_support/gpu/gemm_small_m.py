"""x · Wᵀ for three to 256 rows of x and a small W, as a link of a chain of kernels: each is set up while the one before still runs.

A library's product starts only when everything before it has ended, which takes 1.3 µs a kernel, seven times a layer; and each of small matrices is over in five.
Where the sum is taken by a kernel that reads it anyway (`norms`), the inner dimension is divided as well, so that every multiprocessor has work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import after, jit, start, tl, triton

__all__ = ["ROWS", "Tiles", "launch", "tiles"]

#: Rows of x up to which this is the faster one (measured on one H200 with the matrices of a model of 0.6B).
ROWS = 256

#: Programs that give every multiprocessor of a large GPU enough to do.
_ENOUGH = 90


@dataclass(frozen=True, slots=True)
class Tiles:
    """What one program computes: (m, n) numbers, k of the inner dimension at a time, with so many stages under way; and by how many programs the inner dimension is shared."""

    m: int
    n: int
    k: int
    stages: int
    split: int = 1


def tiles(rows: int, n: int, k: int, *, gated: bool = False, summed: bool = False) -> Tiles | None:
    """How (rows, k) · (n, k)ᵀ is divided; None where it is not for this kernel. `gated`: n gates and n factors. `summed`: parts of the sum are welcome."""
    m = 16 if rows <= 16 else 32 if rows <= 32 else 64
    if rows > ROWS or n % 64 or k % 128:
        return None
    count = triton.cdiv(rows, m) * (n // 64)
    wide = 64 if count >= _ENOUGH else 32
    split = 2 if summed and count * (64 // wide) < _ENOUGH and k % 256 == 0 else 1
    deep = 64 if wide == 64 and split == 1 else 128
    stages = (3 if wide == 32 else 4) if gated else 5 if deep == 64 else 4
    return Tiles(m, wide, deep, stages, split)


def launch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: Tiles, out: torch.Tensor | None = None, *, gated: bool = False
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given, or (split, rows, n) float32 parts of it. `gated`: (2n, k) → SiLU of the first half · the second."""
    rows, k = x.shape
    n = weight.shape[0] // (2 if gated else 1)
    if out is None:
        out = x.new_empty(rows, n) if how.split == 1 else x.new_empty(how.split, rows, n, dtype=torch.float32)
    start(
        _narrow, (n // how.n, triton.cdiv(rows, how.m), how.split),
        x, weight, weight if bias is None else bias, out, rows, n, k,
        tile_m=how.m, tile_n=how.n, tile_k=how.k, split=how.split, gated=gated, has_bias=bias is not None, num_warps=4, num_stages=how.stages,
    )  # fmt: skip
    return out


@jit
def _narrow(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, out_ptr: tl.tensor, rows: tl.tensor, n: tl.tensor, k: tl.tensor,
    tile_m: tl.constexpr, tile_n: tl.constexpr, tile_k: tl.constexpr, split: tl.constexpr, gated: tl.constexpr, has_bias: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    column, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_n, at_m = column * tile_n + tl.arange(0, tile_n), row * tile_m + tl.arange(0, tile_m)
    share = k // split
    at_k = part * share + tl.arange(0, tile_k)
    w = w_ptr + at_n[:, None] * k + at_k[None, :]
    x = x_ptr + at_m[:, None] * k + at_k[None, :]
    ok = (at_m < rows)[:, None]
    dtype = x_ptr.dtype.element_ty
    sums = tl.zeros((tile_m, tile_n), tl.float32)
    factors = tl.zeros((tile_m, tile_n), tl.float32)
    after(pdl)
    for _ in range(0, share, tile_k):
        a = tl.load(x, mask=ok, other=0.0)
        sums = tl.dot(a, tl.trans(tl.load(w)), sums, input_precision="ieee")
        if gated:
            factors = tl.dot(a, tl.trans(tl.load(w + n * k)), factors, input_precision="ieee")
        x += tile_k
        w += tile_k
    if has_bias:
        sums += tl.load(b_ptr + at_n).to(tl.float32)[None, :] * (part == 0)
        if gated:
            factors += tl.load(b_ptr + n + at_n).to(tl.float32)[None, :]
    if gated:
        # Rounded where two kernels would round.
        gate = sums.to(dtype).to(tl.float32)
        sums = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * factors.to(dtype).to(tl.float32)
    place = out_ptr + part * rows * n + at_m[:, None] * n + at_n[None, :]
    tl.store(place, sums.to(out_ptr.dtype.element_ty), mask=ok)
