"""Products of many rows with their experts' matrices in FP8: `experts_grouped.py`'s grouped GEMM with both factors in eight bits.

Scales of a row of W and a row of x multiply the sums; those of blocks (128 × 128 of W, 128 columns of x) the sums of each 128 columns.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.experts_grouped import GroupedTiles, most_tiles
from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrices
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.quantize_fp8 import Quantized
from kernels_support.gpu.routing import ExpertLists

__all__ = ["launch_down", "launch_gate_up", "pick_tiles"]


def pick_tiles(rows: int, top: int, experts: int, *, gated: bool) -> GroupedTiles:
    """The tiles for so many rows, of which each goes to `top` of the experts: what was fastest on one H200 (30B-A3B's, in blocks).

    No tile is wider than a block, which has one scale.
    """
    each = rows * top / experts
    if each <= 24:
        return GroupedTiles(16, 64, BLOCK, 4) if gated else GroupedTiles(16, BLOCK, BLOCK, 3, 8)
    if each <= 64:
        return GroupedTiles(32, 64, BLOCK, 4) if gated else GroupedTiles(32, BLOCK, BLOCK, 3, 8)
    return GroupedTiles(64, BLOCK, BLOCK, 4, 8) if gated else GroupedTiles(64, BLOCK, BLOCK, 4)


def launch_gate_up(x: Quantized, routes: ExpertLists, gate_up: Fp8Matrices, tiles: GroupedTiles) -> torch.Tensor:
    """SiLU(gate) · up of every pair, (rows · top, inner): of x (rows, k) and gate_up (experts, 2 · inner, k)."""
    out = torch.empty(routes.weights.numel(), gate_up.shape[1] // 2, dtype=x.dtype, device=x.values.device)
    _launch(x, routes, gate_up, out, tiles)
    return out


def launch_down(product: Quantized, routes: ExpertLists, down: Fp8Matrices, tiles: GroupedTiles) -> torch.Tensor:
    """(top, rows, n): every pair's weighted result, for whoever reads them to add (`norms.add_rms_norm`). product (rows · top, k)."""
    rows, top = routes.weights.shape
    out = torch.empty(top, rows, down.shape[1], dtype=product.dtype, device=product.values.device)
    _launch(product, routes, down, out, tiles)
    return out


def _launch(x: Quantized, routes: ExpertLists, w: Fp8Matrices, out: torch.Tensor, tiles: GroupedTiles) -> None:
    (rows, top), (experts, _, k), n = routes.weights.shape, w.shape, out.shape[-1]
    launch_kernel(
        _grouped_fp8,
        (most_tiles(rows, top, experts, tiles.m), triton.cdiv(n, tiles.n)),
        x.values,
        x.scales,
        w.values,
        w.scale,
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
        blocks=w.blocks,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


@jit
def _grouped_fp8(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    x_scale_ptr: tl.tensor,
    w_ptr: tl.tensor,
    w_scale_ptr: tl.tensor,
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
    blocks: tl.constexpr,
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
        many = expert.to(tl.int64) * (2 * n if gated else n)
        w = w_ptr + (many + at_n)[:, None] * k + at_k[None, :]
        up_w = w + n.to(tl.int64) * k
        x = x_ptr + source[None, :] * k + at_k[:, None]
        acc = tl.zeros((tile_n, tile_m), tl.float32)
        up = tl.zeros((tile_n, tile_m), tl.float32)
        k_blocks = k // 128
        w_scale = w_scale_ptr + (many // 128 + column * tile_n // 128) * k_blocks
        up_scale = w_scale + (n // 128) * k_blocks
        x_scale = x_scale_ptr + source * k_blocks
        for start in range(0, k, tile_k):
            if even:
                b, a = tl.load(x), tl.load(w)
            else:
                ok = (at_n < n)[:, None] & (start + at_k < k)[None, :]
                b, a = tl.load(x, mask=(start + at_k < k)[:, None], other=0.0), tl.load(w, mask=ok, other=0.0)
            if blocks:
                by_row = tl.load(x_scale)
                acc += tl.dot(a, b) * (by_row * tl.load(w_scale))[None, :]
            else:
                acc = tl.dot(a, b, acc)
            if gated:
                c = tl.load(up_w) if even else tl.load(up_w, mask=ok, other=0.0)
                if blocks:
                    up += tl.dot(c, b) * (by_row * tl.load(up_scale))[None, :]
                else:
                    up = tl.dot(c, b, up)
            x += tile_k
            w += tile_k
            up_w += tile_k
            w_scale += 1
            up_scale += 1
            x_scale += 1
        if not blocks:
            by_row = tl.load(x_scale_ptr + source)[None, :]
            acc *= tl.load(w_scale_ptr + many + at_n, mask=at_n < n, other=0.0)[:, None] * by_row
            if gated:
                up *= tl.load(w_scale_ptr + many + n + at_n, mask=at_n < n, other=0.0)[:, None] * by_row
        dtype = out_ptr.dtype.element_ty
        if gated:
            # Rounded where two kernels would round.
            gate = acc.to(dtype).to(tl.float32)
            acc = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)
            line = pair.to(tl.int64)
        else:
            acc *= tl.load(weights_ptr + pair, mask=at_m < own, other=0.0)[None, :]
            line = (pair % top).to(tl.int64) * rows + pair // top
        target = out_ptr + line[:, None] * n + at_n[None, :]
        tl.store(target, tl.trans(acc).to(dtype), mask=(at_m < own)[:, None] & (at_n < n)[None, :])
