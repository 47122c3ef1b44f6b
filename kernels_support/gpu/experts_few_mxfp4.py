"""Experts in MXFP4 for one row, or a few: the matrix-vector products of `experts_few.py`, whose matrices are widened in registers.

A step takes some words of each row of W; the numbers of a word meet four pieces of x, a block of 32 columns apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.experts_few import chosen_expert
from kernels_support.gpu.gated import SILU, Gating, gated_product
from kernels_support.gpu.lang import has_pdl, jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.mxfp4_matrix import Mxfp4Matrices
from kernels_support.gpu.mxfp4_words import widened_fp4

__all__ = ["FewMxfp4Tiles", "launch_down", "launch_gate_up"]


@dataclass(frozen=True, slots=True)
class FewMxfp4Tiles:
    """Of gate and of up, and of down: columns of the output a program, groups of 128 columns of W a step, warps."""

    n: int = 8
    groups: int = 4
    warps: int = 4
    down_n: int = 8
    down_groups: int = 4
    down_warps: int = 8


def launch_gate_up(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    logits: torch.Tensor,
    gate_up: Mxfp4Matrices,
    top: int,
    tiles: FewMxfp4Tiles,
    bias: torch.Tensor | None = None,
    gating: Gating = SILU,
    *,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `experts_few.launch_gate_up`."""
    (rows, k), (experts, both, words) = x.shape, gate_up.words.shape
    n = both // 2
    out = x.new_empty(rows * top, n)
    chosen = torch.empty(rows, top, dtype=torch.int32, device=x.device)
    weights = torch.empty(rows, top, dtype=torch.float32, device=x.device)
    launch_kernel(
        _gate_up_few_mxfp4,
        (triton.cdiv(n, tiles.n), rows * top),
        x,
        logits,
        gate_up.words,
        gate_up.scales,
        logits if bias is None else bias,
        out,
        chosen,
        weights,
        n,
        k,
        experts,
        top=top,
        block=max(16, triton.next_power_of_2(experts)),
        words=words,
        tile_n=tiles.n,
        tile_g=min(tiles.groups, triton.next_power_of_2(words // 32)),
        renormalize=renormalize,
        has_bias=bias is not None,
        limit=gating.limit,
        alpha=gating.alpha,
        native=_native(x),
        num_warps=tiles.warps,
    )
    return out, chosen, weights


def launch_down(  # noqa: PLR0917 - a kernel's inputs
    product: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    down: Mxfp4Matrices,
    tiles: FewMxfp4Tiles,
    out: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `experts_few.launch_down`."""
    (rows, top), (_, n, words) = chosen.shape, down.words.shape
    out = product.new_empty(rows, n) if out is None else out
    launch_kernel(
        _down_few_mxfp4,
        (triton.cdiv(n, tiles.down_n), rows),
        product,
        chosen,
        weights,
        down.words,
        down.scales,
        product if bias is None else bias,
        out,
        n,
        product.shape[1],
        top=top,
        places=triton.next_power_of_2(top),
        words=words,
        tile_n=tiles.down_n,
        tile_g=min(tiles.down_groups, triton.next_power_of_2(words // 32)),
        has_bias=bias is not None,
        native=_native(product),
        num_warps=tiles.down_warps,
    )
    return out


def _native(x: torch.Tensor) -> bool:
    """Whether the device multiplies pairs of bfloat16 (Hopper and later, as `has_pdl`)."""
    return x.dtype == torch.bfloat16 and has_pdl()


@jit
def _gate_up_few_mxfp4(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    logits_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
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
    groups: tl.constexpr = words // 32
    at_n, at_w = column * tile_n + tl.arange(0, tile_n), tl.arange(0, 32)
    safe_n = tl.minimum(at_n, n - 1)
    w = w_ptr + (expert * 2 * n + safe_n)[:, None, None] * words + at_w[None, None, :]
    scale = scale_ptr + (expert * groups * 2 * n + safe_n)[:, None]
    x = x_ptr + (pair // top).to(tl.int64) * k
    gate = tl.zeros((tile_n, tile_g, 32), tl.float32)
    up = tl.zeros((tile_n, tile_g, 32), tl.float32)
    for start in range(0, groups, tile_g):
        group = start + tl.arange(0, tile_g)
        ok = (group < groups)[None, :]
        step = w + group[None, :, None] * 32
        a = tl.load(step, mask=ok[:, :, None], other=0)
        b = tl.load(step + n.to(tl.int64) * words, mask=ok[:, :, None], other=0)
        exponents = scale + group[None, :] * (2 * n)
        a_scale, b_scale = tl.load(exponents, mask=ok, other=0), tl.load(exponents + n, mask=ok, other=0)
        # A block of x is there or not: k is a multiple of 32, and so loads stay as wide as they are without a mask.
        at_k, left = group[:, None] * 128 + at_w[None, :], k - group[:, None] * 128
        x0, x1 = _piece(x, at_k, left > 0), _piece(x, at_k + 32, left > 32)
        x2, x3 = _piece(x, at_k + 64, left > 64), _piece(x, at_k + 96, left > 96)
        gate += _products(a, a_scale, x0, x1, x2, x3, x_ptr.dtype.element_ty, native)
        up += _products(b, b_scale, x0, x1, x2, x3, x_ptr.dtype.element_ty, native)
    gate_sum, up_sum = tl.sum(tl.sum(gate, 2), 1), tl.sum(tl.sum(up, 2), 1)
    if has_bias:
        bias = bias_ptr + expert * 2 * n + safe_n
        gate_sum += tl.load(bias).to(tl.float32)
        up_sum += tl.load(bias + n).to(tl.float32)
    dtype = out_ptr.dtype.element_ty
    value = gated_product(gate_sum, up_sum, dtype, limit, alpha)
    tl.store(out_ptr + pair.to(tl.int64) * n + at_n, value.to(dtype), mask=at_n < n)


@jit
def _down_few_mxfp4(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    top: tl.constexpr,
    places: tl.constexpr,
    words: tl.constexpr,
    tile_n: tl.constexpr,
    tile_g: tl.constexpr,
    has_bias: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, row = tl.program_id(0), tl.program_id(1)
    groups: tl.constexpr = words // 32
    # All experts of the row in one tile: its lines are (place, column).
    line, at_w = tl.arange(0, places * tile_n), tl.arange(0, 32)
    place, at_n = line // tile_n, column * tile_n + line % tile_n
    ok_line = (place < top) & (at_n < n)
    expert = tl.load(chosen_ptr + row * top + place, mask=ok_line, other=0).to(tl.int64)
    weight = tl.load(weights_ptr + row * top + place, mask=ok_line, other=0.0)
    w = w_ptr + (expert * n + at_n)[:, None, None] * words + at_w[None, None, :]
    scale = scale_ptr + (expert * groups * n + at_n)[:, None]
    x = x_ptr + (row * top + place).to(tl.int64)[:, None, None] * k
    acc = tl.zeros((places * tile_n, tile_g, 32), tl.float32)
    for start in range(0, groups, tile_g):
        group = start + tl.arange(0, tile_g)
        ok = ok_line[:, None] & (group < groups)[None, :]
        a = tl.load(w + group[None, :, None] * 32, mask=ok[:, :, None], other=0)
        a_scale = tl.load(scale + group[None, :] * n, mask=ok, other=0)
        at_k, left = (group[:, None] * 128 + at_w[None, :])[None, :, :], k - group[None, :] * 128
        x0, x1 = _pieces(x, at_k, ok_line, left > 0), _pieces(x, at_k + 32, ok_line, left > 32)
        x2, x3 = _pieces(x, at_k + 64, ok_line, left > 64), _pieces(x, at_k + 96, ok_line, left > 96)
        acc += _products(a, a_scale, x0, x1, x2, x3, x_ptr.dtype.element_ty, native)
    each = tl.sum(tl.sum(acc, 2), 1)
    if has_bias:
        each += tl.load(bias_ptr + expert * n + at_n, mask=ok_line, other=0.0).to(tl.float32)
    total = tl.sum(tl.reshape(each * weight, (places, tile_n)), 0)
    at = column * tile_n + tl.arange(0, tile_n)
    tl.store(out_ptr + row.to(tl.int64) * n + at, total.to(out_ptr.dtype.element_ty), mask=at < n)


@jit
def _piece(x: tl.tensor, at: tl.tensor, ok: tl.tensor) -> tl.tensor:
    """Blocks of a row of x, for each column of the output; 0 beyond its end."""
    return tl.load(x + at, mask=ok, other=0.0).to(tl.float32)[None, :, :]


@jit
def _pieces(x: tl.tensor, at: tl.tensor, ok_line: tl.tensor, ok: tl.tensor) -> tl.tensor:
    """The same of each line's own row."""
    return tl.load(x + at, mask=(ok_line[:, None] & ok)[:, :, None], other=0.0).to(tl.float32)


@jit
def _products(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    scales: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    x3: tl.tensor,
    dtype: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """Each word's four numbers times those of x, added."""
    a, b, c, d = widened_fp4(words, tl.broadcast_to(scales[:, :, None], words.shape), dtype, native)
    return a.to(tl.float32) * x0 + b.to(tl.float32) * x1 + c.to(tl.float32) * x2 + d.to(tl.float32) * x3
