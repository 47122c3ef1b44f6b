"""Products of many rows with their experts' matrices: a grouped GEMM over the rows that an expert was given, optionally with SwiGLU.

As in `gemm_fp8.py` the tile of W is the matrix unit's first operand, which is 64 rows high: W fills it, and the few rows of an expert
need not. Each program finds its expert from the counts; the grid has as many tiles as there could be at most, and those beyond end at once.
Tiles of one expert follow each other, so that its matrices come from the memory once and then from the L2 cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels_support.gpu.gated import SILU, Gating, gated_product
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.routing import ExpertLists

__all__ = ["GroupedTiles", "launch_down", "launch_gate_up", "most_tiles", "pick_tiles"]


@dataclass(frozen=True, slots=True)
class GroupedTiles:
    """A program computes n columns (with SwiGLU n of gate and n of up) for m rows of an expert, in steps of k, `stages` in flight."""

    m: int
    n: int
    k: int
    stages: int
    warps: int = 4


def pick_tiles(rows: int, top: int, experts: int, itemsize: int, *, gated: bool) -> GroupedTiles:
    """The tiles for so many rows, of which each goes to `top` of the experts."""
    each = rows * top / experts
    m = 16 if each <= 10 else 32 if each <= 24 else 64 if each <= 64 else 128
    # What was fastest of a dozen on one H200 (30B-A3B's matrices): down has more columns than gate and up have inner ones.
    if m == 128:
        tiles = GroupedTiles(128, 128 if gated else 256, 64, 4, 8)
    elif m == 64:
        tiles = GroupedTiles(64, 64, 64, 4) if gated else GroupedTiles(64, 256, 64, 3, 8)
    elif m == 32:
        tiles = GroupedTiles(32, 64, 128, 4) if gated else GroupedTiles(32, 256, 64, 3, 8)
    else:
        tiles = GroupedTiles(16, 64 if gated else 128, 128, 3)
    return replace(tiles, stages=2, n=min(tiles.n, 64), k=32) if itemsize > 2 else tiles


def most_tiles(rows: int, top: int, experts: int, m: int) -> int:
    """Tiles of m rows at most: each expert that has a row may have one that is not full."""
    pairs = rows * top
    return (pairs + min(experts, pairs) * (m - 1)) // m


def launch_gate_up(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    routes: ExpertLists,
    gate_up: torch.Tensor,
    tiles: GroupedTiles,
    bias: torch.Tensor | None = None,
    gating: Gating = SILU,
) -> torch.Tensor:
    """What `gating` makes of every pair, (rows · top, inner): of x (rows, k) and gate_up (experts, 2 · inner, k)."""
    inner = gate_up.shape[1] // 2
    out = x.new_empty(routes.weights.numel(), inner)
    _launch(x, routes, gate_up, out, tiles, bias, gating)
    return out


def launch_down(
    product: torch.Tensor, routes: ExpertLists, down: torch.Tensor, tiles: GroupedTiles, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """(top, rows, n): every pair's weighted result, for whoever reads them to add (`norms.add_rms_norm`). product (rows · top, k)."""
    rows, top = routes.weights.shape
    out = product.new_empty(top, rows, down.shape[1])
    _launch(product, routes, down, out, tiles, bias, SILU)
    return out


def _launch(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    routes: ExpertLists,
    w: torch.Tensor,
    out: torch.Tensor,
    tiles: GroupedTiles,
    bias: torch.Tensor | None,
    gating: Gating,
) -> None:
    (rows, top), (experts, _, k), n = routes.weights.shape, w.shape, out.shape[-1]
    launch_kernel(
        _grouped,
        (most_tiles(rows, top, experts, tiles.m), triton.cdiv(n, tiles.n)),
        x,
        w,
        w if bias is None else bias,
        routes.counts,
        routes.lists,
        routes.weights,
        out,
        rows,
        n,
        k,
        experts,
        top=top,
        block=triton.next_power_of_2(experts),
        tile_m=tiles.m,
        tile_n=tiles.n,
        tile_k=tiles.k,
        gated=w.shape[1] == 2 * n,
        even=n % tiles.n == 0 and k % tiles.k == 0,
        has_bias=bias is not None,
        limit=gating.limit,
        alpha=gating.alpha,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


@jit
def _grouped(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    lists_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    experts: tl.tensor,
    top: tl.constexpr,
    block: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    gated: tl.constexpr,
    even: tl.constexpr,
    has_bias: tl.constexpr,
    limit: tl.constexpr,
    alpha: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    tile, column = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, block)
    counts = tl.load(counts_ptr + at, mask=at < experts, other=0)
    ends = tl.cumsum((counts + tile_m - 1) // tile_m, 0)
    expert = tl.sum((ends <= tile).to(tl.int32), 0)
    if expert < experts:
        own = tl.sum(tl.where(at == expert, counts, 0), 0)
        before = tl.sum(tl.where(at == expert, ends - (counts + tile_m - 1) // tile_m, 0), 0)
        at_m = (tile - before) * tile_m + tl.arange(0, tile_m)
        # Rows beyond the last are computed, as the first pair's, and not stored.
        pair = tl.load(lists_ptr + expert.to(tl.int64) * rows + at_m, mask=at_m < own, other=0)
        source = (pair // top if gated else pair).to(tl.int64)
        at_n, at_k = column * tile_n + tl.arange(0, tile_n), tl.arange(0, tile_k)
        w = w_ptr + (expert.to(tl.int64) * (2 * n if gated else n) + at_n)[:, None] * k + at_k[None, :]
        up_w = w + n.to(tl.int64) * k
        x = x_ptr + source[None, :] * k + at_k[:, None]
        acc = tl.zeros((tile_n, tile_m), tl.float32)
        up = tl.zeros((tile_n, tile_m), tl.float32)
        for start in range(0, k, tile_k):
            if even:
                b = tl.load(x)
                acc = tl.dot(tl.load(w), b, acc, input_precision="ieee")
                if gated:
                    up = tl.dot(tl.load(up_w), b, up, input_precision="ieee")
            else:
                ok = (at_n < n)[:, None] & (start + at_k < k)[None, :]
                b = tl.load(x, mask=(start + at_k < k)[:, None], other=0.0)
                acc = tl.dot(tl.load(w, mask=ok, other=0.0), b, acc, input_precision="ieee")
                if gated:
                    up = tl.dot(tl.load(up_w, mask=ok, other=0.0), b, up, input_precision="ieee")
            x += tile_k
            w += tile_k
            up_w += tile_k
        dtype = out_ptr.dtype.element_ty
        if has_bias:
            bias = bias_ptr + expert * (2 * n if gated else n) + at_n
            acc += tl.load(bias, mask=at_n < n, other=0.0).to(tl.float32)[:, None]
            if gated:
                up += tl.load(bias + n, mask=at_n < n, other=0.0).to(tl.float32)[:, None]
        if gated:
            acc = gated_product(acc, up, dtype, limit, alpha)
            line = pair.to(tl.int64)
        else:
            acc *= tl.load(weights_ptr + pair, mask=at_m < own, other=0.0)[None, :]
            line = (pair % top).to(tl.int64) * rows + pair // top
        target = out_ptr + line[:, None] * n + at_n[None, :]
        tl.store(target, tl.trans(acc).to(dtype), mask=(at_m < own)[:, None] & (at_n < n)[None, :])
