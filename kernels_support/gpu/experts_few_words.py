"""Experts of four or eight bits for one row, or a few: the matrix-vector products of `experts_few.py`, widened in registers.

A turn takes some steps of each row of W; the numbers of a word meet as many pieces of x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.experts_few import chosen_expert
from kernels_support.gpu.gated import SILU, Gating, gated_product
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.packed_words import factors
from kernels_support.gpu.word_pieces import Words, layout, read_pieces

__all__ = ["FewWordsTiles", "launch_down", "launch_gate_up"]


@dataclass(frozen=True, slots=True)
class FewWordsTiles:
    """Of gate and of up, and of down: columns of the output a program, steps of W a turn, warps."""

    n: int = 8
    steps: int = 4
    warps: int = 4
    down_n: int = 8
    down_steps: int = 4
    down_warps: int = 8


def launch_gate_up(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    logits: torch.Tensor,
    gate_up: Words,
    top: int,
    tiles: FewWordsTiles,
    bias: torch.Tensor | None = None,
    gating: Gating = SILU,
    *,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `experts_few.launch_gate_up`."""
    (rows, k), (experts, both, _), how = x.shape, gate_up.words.shape, layout(gate_up, x.dtype)
    n = both // 2
    out = x.new_empty(rows * top, n)
    chosen = torch.empty(rows, top, dtype=torch.int32, device=x.device)
    weights = torch.empty(rows, top, dtype=torch.float32, device=x.device)
    launch_kernel(
        _gate_up_few_words,
        (triton.cdiv(n, tiles.n), rows * top),
        x,
        logits,
        gate_up.words,
        gate_up.factors,
        logits if bias is None else bias,
        out,
        chosen,
        weights,
        n,
        k,
        experts,
        top=top,
        block=max(16, triton.next_power_of_2(experts)),
        tile_n=tiles.n,
        tile_g=min(tiles.steps, triton.next_power_of_2(how["words"] // how["piece"])),
        **how,
        renormalize=renormalize,
        has_bias=bias is not None,
        limit=gating.limit,
        alpha=gating.alpha,
        num_warps=tiles.warps,
    )
    return out, chosen, weights


def launch_down(  # noqa: PLR0917 - a kernel's inputs
    product: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    down: Words,
    tiles: FewWordsTiles,
    out: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `experts_few.launch_down`."""
    (rows, top), n, how = chosen.shape, down.words.shape[1], layout(down, product.dtype)
    out = product.new_empty(rows, n) if out is None else out
    launch_kernel(
        _down_few_words,
        (triton.cdiv(n, tiles.down_n), rows),
        product,
        chosen,
        weights,
        down.words,
        down.factors,
        product if bias is None else bias,
        out,
        n,
        product.shape[1],
        top=top,
        places=triton.next_power_of_2(top),
        tile_n=tiles.down_n,
        tile_g=min(tiles.down_steps, triton.next_power_of_2(how["words"] // how["piece"])),
        **how,
        has_bias=bias is not None,
        num_warps=tiles.down_warps,
    )
    return out


@jit
def _gate_up_few_words(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    logits_ptr: tl.tensor,
    w_ptr: tl.tensor,
    factors_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
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
    tile_n: tl.constexpr,
    tile_g: tl.constexpr,
    renormalize: tl.constexpr,
    has_bias: tl.constexpr,
    limit: tl.constexpr,
    alpha: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, pair = tl.program_id(0), tl.program_id(1)
    expert = chosen_expert(logits_ptr, chosen_ptr, weights_ptr, experts, top, block, renormalize).to(tl.int64)
    each: tl.constexpr = 16 // bits
    steps: tl.constexpr = words // piece
    at_n, at_w = column * tile_n + tl.arange(0, tile_n), tl.arange(0, piece)
    safe_n = tl.minimum(at_n, n - 1)
    w = w_ptr + (expert * 2 * n + safe_n)[:, None, None] * words + at_w[None, None, :]
    factor = factors_ptr + (expert * steps * many * 2 * n + safe_n)[:, None]
    x = x_ptr + (pair // top).to(tl.int64) * k
    gate = tl.zeros((tile_n, tile_g, piece), tl.float32)
    up = tl.zeros((tile_n, tile_g, piece), tl.float32)
    for start in range(0, steps, tile_g):
        turn = start + tl.arange(0, tile_g)
        ok = (turn < steps)[None, :]
        tile = w + turn[None, :, None] * piece
        a = tl.load(tile, mask=ok[:, :, None], other=0)
        b = tl.load(tile + n.to(tl.int64) * words, mask=ok[:, :, None], other=0)
        # All of a turn is asked for before the first product waits for any of it.
        at = factor + turn[None, :] * (many * 2 * n)
        f0, f1, f2, f3 = factors(at, 2 * n, ok, each, many)
        u0, u1, u2, u3 = factors(at + n, 2 * n, ok, each, many)
        # A piece of x is there or not: k is a multiple of it, and so loads stay as wide as they are without a mask.
        at_k, left = turn[:, None] * (each * piece) + at_w[None, :], k - turn[:, None] * (each * piece)
        x0, x1 = _piece(x, at_k, left > 0), _piece(x, at_k + piece, left > piece)
        x2, x3 = x0, x1
        if each == 4:
            x2, x3 = _piece(x, at_k + 2 * piece, left > 2 * piece), _piece(x, at_k + 3 * piece, left > 3 * piece)
        gate += _products(a, f0, f1, f2, f3, x0, x1, x2, x3, x_ptr.dtype.element_ty, bits, centre, fp4, native)
        up += _products(b, u0, u1, u2, u3, x0, x1, x2, x3, x_ptr.dtype.element_ty, bits, centre, fp4, native)
    gate_sum, up_sum = tl.sum(tl.sum(gate, 2), 1), tl.sum(tl.sum(up, 2), 1)
    if has_bias:
        bias = bias_ptr + expert * 2 * n + safe_n
        gate_sum += tl.load(bias).to(tl.float32)
        up_sum += tl.load(bias + n).to(tl.float32)
    dtype = out_ptr.dtype.element_ty
    value = gated_product(gate_sum, up_sum, dtype, limit, alpha)
    tl.store(out_ptr + pair.to(tl.int64) * n + at_n, value.to(dtype), mask=at_n < n)


@jit
def _down_few_words(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    w_ptr: tl.tensor,
    factors_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    top: tl.constexpr,
    places: tl.constexpr,
    words: tl.constexpr,
    piece: tl.constexpr,
    bits: tl.constexpr,
    many: tl.constexpr,
    centre: tl.constexpr,
    fp4: tl.constexpr,
    tile_n: tl.constexpr,
    tile_g: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, row = tl.program_id(0), tl.program_id(1)
    each: tl.constexpr = 16 // bits
    steps: tl.constexpr = words // piece
    # All experts of the row in one tile: its lines are (place, column).
    line, at_w = tl.arange(0, places * tile_n), tl.arange(0, piece)
    place, at_n = line // tile_n, column * tile_n + line % tile_n
    ok_line = (place < top) & (at_n < n)
    expert = tl.load(chosen_ptr + row * top + place, mask=ok_line, other=0).to(tl.int64)
    weight = tl.load(weights_ptr + row * top + place, mask=ok_line, other=0.0)
    w = w_ptr + (expert * n + at_n)[:, None, None] * words + at_w[None, None, :]
    factor = factors_ptr + (expert * steps * many * n + at_n)[:, None]
    x = x_ptr + (row * top + place).to(tl.int64)[:, None, None] * k
    acc = tl.zeros((places * tile_n, tile_g, piece), tl.float32)
    for start in range(0, steps, tile_g):
        turn = start + tl.arange(0, tile_g)
        ok = ok_line[:, None] & (turn < steps)[None, :]
        a = tl.load(w + turn[None, :, None] * piece, mask=ok[:, :, None], other=0)
        f0, f1, f2, f3 = factors(factor + turn[None, :] * (many * n), n, ok, each, many)
        at_k, left = (turn[:, None] * (each * piece) + at_w[None, :])[None, :, :], k - turn[None, :] * (each * piece)
        x0, x1 = _pieces(x, at_k, ok_line, left > 0), _pieces(x, at_k + piece, ok_line, left > piece)
        x2, x3 = x0, x1
        if each == 4:
            x2, x3 = _pieces(x, at_k + 2 * piece, ok_line, left > 2 * piece), _pieces(x, at_k + 3 * piece, ok_line, left > 3 * piece)
        acc += _products(a, f0, f1, f2, f3, x0, x1, x2, x3, x_ptr.dtype.element_ty, bits, centre, fp4, native)
    each = tl.sum(tl.sum(acc, 2), 1)
    if has_bias:
        each += tl.load(bias_ptr + expert * n + at_n, mask=ok_line, other=0.0).to(tl.float32)
    total = tl.sum(tl.reshape(each * weight, (places, tile_n)), 0)
    at = column * tile_n + tl.arange(0, tile_n)
    tl.store(out_ptr + row.to(tl.int64) * n + at, total.to(out_ptr.dtype.element_ty), mask=at < n)


@jit
def _piece(x: tl.tensor, at: tl.tensor, ok: tl.tensor) -> tl.tensor:
    """Pieces of a row of x, for each column of the output; 0 beyond its end."""
    return tl.load(x + at, mask=ok, other=0.0).to(tl.float32)[None, :, :]


@jit
def _pieces(x: tl.tensor, at: tl.tensor, ok_line: tl.tensor, ok: tl.tensor) -> tl.tensor:
    """The same of each line's own row."""
    return tl.load(x + at, mask=(ok_line[:, None] & ok)[:, :, None], other=0.0).to(tl.float32)


@jit
def _products(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    f0: tl.tensor,
    f1: tl.tensor,
    f2: tl.tensor,
    f3: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    x3: tl.tensor,
    dtype: tl.constexpr,
    bits: tl.constexpr,
    centre: tl.constexpr,
    fp4: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """Each word's numbers times those of x, added."""
    a, b, c, d = read_pieces(words, f0[:, :, None], f1[:, :, None], f2[:, :, None], f3[:, :, None], dtype, bits, centre, fp4, native)
    if bits == 4:
        total = a.to(tl.float32) * x0 + b.to(tl.float32) * x1 + c.to(tl.float32) * x2 + d.to(tl.float32) * x3
    else:
        total = a.to(tl.float32) * x0 + b.to(tl.float32) * x1
    return total
