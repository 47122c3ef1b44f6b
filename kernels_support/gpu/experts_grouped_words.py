"""The grouped GEMM of `experts_grouped.py` over matrices of four or eight bits, widened in registers, where the matrix unit takes W from.

A step is a tile of words, the factors of its rows, and as many pieces of x as a word has numbers.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.experts_grouped import GroupedTiles, most_tiles
from kernels_support.gpu.gated import SILU, Gating, gated_product
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.packed_words import factors
from kernels_support.gpu.routing import ExpertLists
from kernels_support.gpu.word_pieces import Words, layout, read_pieces

__all__ = ["launch_down", "launch_gate_up", "pick_packed_tiles", "pick_tiles"]


def pick_tiles(rows: int, top: int, experts: int, itemsize: int, *, gated: bool) -> GroupedTiles:
    """The tiles of MXFP4 for so many rows, of which each goes to `top` of the experts."""
    each = rows * top / experts
    m = 16 if each <= 10 else 32 if each <= 48 else 64 if each <= 96 else 128
    if itemsize > 2:
        return GroupedTiles(min(m, 32), 32, 128, 2)
    # What was fastest of a dozen on one H200 (gpt-oss-20b's matrices).
    if m == 128:
        return GroupedTiles(128, 128, 128, 3, 8 if gated else 4)
    if m == 64:
        return GroupedTiles(64, 64, 128, 3) if gated else GroupedTiles(64, 256, 128, 3, 8)
    if m == 32:
        return GroupedTiles(32, 64, 128, 3) if gated else GroupedTiles(32, 128, 128, 4)
    return GroupedTiles(16, 64, 128, 4)


def pick_packed_tiles(rows: int, top: int, experts: int, itemsize: int, *, gated: bool) -> GroupedTiles:
    """The same of packed matrices: MXFP4's, but down of many rows, 388 → 214 µs for 2,048 rows of 30B-A3B in four bits on one H200.

    Tiles of 16 rows are faster in a layer alone at 256 rows (gate and up 132 → 101 µs) and slower in a model, whose router fills some
    experts more than others: 12.0 ms a step where these take 10.2.
    """
    if itemsize <= 2 and not gated and rows * top > 96 * experts:
        return GroupedTiles(64, 256, 128, 3, 8)
    return pick_tiles(rows, top, experts, itemsize, gated=gated)


def launch_gate_up(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    routes: ExpertLists,
    gate_up: Words,
    tiles: GroupedTiles,
    bias: torch.Tensor | None = None,
    gating: Gating = SILU,
) -> torch.Tensor:
    """As `experts_grouped.launch_gate_up`."""
    out = x.new_empty(routes.weights.numel(), gate_up.words.shape[1] // 2)
    _launch(x, routes, gate_up, out, tiles, bias, gating)
    return out


def launch_down(
    product: torch.Tensor, routes: ExpertLists, down: Words, tiles: GroupedTiles, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """As `experts_grouped.launch_down`."""
    rows, top = routes.weights.shape
    out = product.new_empty(top, rows, down.words.shape[1])
    _launch(product, routes, down, out, tiles, bias, SILU)
    return out


def _launch(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    routes: ExpertLists,
    w: Words,
    out: torch.Tensor,
    tiles: GroupedTiles,
    bias: torch.Tensor | None,
    gating: Gating,
) -> None:
    (rows, top), (experts, wide, _), n = routes.weights.shape, w.words.shape, out.shape[-1]
    launch_kernel(
        _grouped_words,
        (most_tiles(rows, top, experts, tiles.m), triton.cdiv(n, tiles.n)),
        x,
        w.words,
        w.factors,
        x if bias is None else bias,
        routes.counts,
        routes.lists,
        routes.weights,
        out,
        rows,
        n,
        x.shape[1],
        experts,
        top=top,
        block=triton.next_power_of_2(experts),
        tile_m=tiles.m,
        tile_n=tiles.n,
        stages=tiles.stages,
        gated=wide == 2 * n,
        has_bias=bias is not None,
        limit=gating.limit,
        alpha=gating.alpha,
        **layout(w, x.dtype),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


@jit
def _grouped_words(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    factors_ptr: tl.tensor,
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
    words: tl.constexpr,
    piece: tl.constexpr,
    bits: tl.constexpr,
    many: tl.constexpr,
    centre: tl.constexpr,
    fp4: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    stages: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    limit: tl.constexpr,
    alpha: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    each: tl.constexpr = 16 // bits
    tile, column = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, block)
    counts = tl.load(counts_ptr + at, mask=at < experts, other=0)
    ends = tl.cumsum((counts + tile_m - 1) // tile_m, 0)
    expert = tl.sum((ends <= tile).to(tl.int32), 0)
    if expert < experts:
        own = tl.sum(tl.where(at == expert, counts, 0), 0)
        before = tl.sum(tl.where(at == expert, ends - (counts + tile_m - 1) // tile_m, 0), 0)
        at_m = (tile - before) * tile_m + tl.arange(0, tile_m)
        # Rows beyond the last are computed, as the first pair's, and not stored; so are columns beyond the last, as the last one's.
        pair = tl.load(lists_ptr + expert.to(tl.int64) * rows + at_m, mask=at_m < own, other=0)
        source = (pair // top if gated else pair).to(tl.int64)
        at_n, at_w = column * tile_n + tl.arange(0, tile_n), tl.arange(0, piece)
        safe_n, width = tl.minimum(at_n, n - 1), (2 * n if gated else n).to(tl.int64)
        line = expert.to(tl.int64) * width + safe_n
        w = w_ptr + line[:, None] * words + at_w[None, :]
        up_w = w + n.to(tl.int64) * words
        factor = factors_ptr + expert.to(tl.int64) * (words // piece * many) * width + safe_n
        x = x_ptr + source[None, :] * k + at_w[:, None]
        acc = tl.zeros((tile_n, tile_m), tl.float32)
        up = tl.zeros((tile_n, tile_m), tl.float32)
        # A piece of x is there or not: k is a multiple of it, and so loads stay as wide as they are without a mask.
        left = tl.zeros((piece, 1), tl.int32) + k
        # Named here, the stages hold for the factors too, which Triton would otherwise wait for in every step.
        for _ in tl.range(0, words, piece, num_stages=stages):
            x0, x1 = tl.load(x), tl.load(x + piece, mask=left > piece, other=0.0)
            x2, x3 = x0, x1
            if each == 4:
                x2, x3 = tl.load(x + 2 * piece, mask=left > 2 * piece, other=0.0), tl.load(x + 3 * piece, mask=left > 3 * piece, other=0.0)
            f0, f1, f2, f3 = factors(factor, width, True, each, many)
            acc = _times(tl.load(w), f0, f1, f2, f3, x0, x1, x2, x3, acc, bits, centre, fp4, native)
            if gated:
                f0, f1, f2, f3 = factors(factor + n, width, True, each, many)
                up = _times(tl.load(up_w), f0, f1, f2, f3, x0, x1, x2, x3, up, bits, centre, fp4, native)
            x += each * piece
            left -= each * piece
            w += piece
            up_w += piece
            factor += many * width
        dtype = out_ptr.dtype.element_ty
        if has_bias:
            bias = bias_ptr + line
            acc += tl.load(bias).to(tl.float32)[:, None]
            if gated:
                up += tl.load(bias + n).to(tl.float32)[:, None]
        if gated:
            acc = gated_product(acc, up, dtype, limit, alpha)
            place = pair.to(tl.int64)
        else:
            acc *= tl.load(weights_ptr + pair, mask=at_m < own, other=0.0)[None, :]
            place = (pair % top).to(tl.int64) * rows + pair // top
        target = out_ptr + place[:, None] * n + at_n[None, :]
        tl.store(target, tl.trans(acc).to(dtype), mask=(at_m < own)[:, None] & (at_n < n)[None, :])


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
    bits: tl.constexpr,
    centre: tl.constexpr,
    fp4: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """A step of W's columns times x, added to what was before."""
    w0, w1, w2, w3 = read_pieces(words, f0[:, None], f1[:, None], f2[:, None], f3[:, None], x0.dtype, bits, centre, fp4, native)
    acc = tl.dot(w0, x0, acc, input_precision="ieee")
    acc = tl.dot(w1, x1, acc, input_precision="ieee")
    if bits == 4:
        acc = tl.dot(w2, x2, acc, input_precision="ieee")
        acc = tl.dot(w3, x3, acc, input_precision="ieee")
    return acc
