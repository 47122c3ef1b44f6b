"""Experts for one to four rows: matrix-vector products (GEMV), each pair of row and expert for itself, at the rate of the memory.

So few rows hardly ever meet in an expert, so that nothing is gained by sorting them, and a matrix unit's tile would be padding. The first
kernel finds the experts by itself: a kernel that only chose them would take longer than this choice, which each program makes anew.
The second one adds up a row's experts, so that no other has to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.gated import SILU, Gating, gated_product
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["FewTiles", "chosen_expert", "launch_down", "launch_gate_up"]


@dataclass(frozen=True, slots=True)
class FewTiles:
    """Of gate and of up, and of down: columns of the output a program, steps of the inner dimension, warps."""

    n: int = 8
    k: int = 512
    warps: int = 4
    down_n: int = 4
    down_k: int = 128
    down_warps: int = 4


def launch_gate_up(  # noqa: PLR0917 - a kernel's inputs
    x: torch.Tensor,
    logits: torch.Tensor,
    gate_up: torch.Tensor,
    top: int,
    tiles: FewTiles,
    bias: torch.Tensor | None = None,
    gating: Gating = SILU,
    *,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `gating` makes of every pair (rows · top, inner), and their experts and weights: (rows, k), logits (rows, experts)."""
    rows, k = x.shape
    experts, n = gate_up.shape[0], gate_up.shape[1] // 2
    out = x.new_empty(rows * top, n)
    chosen = torch.empty(rows, top, dtype=torch.int32, device=x.device)
    weights = torch.empty(rows, top, dtype=torch.float32, device=x.device)
    launch_kernel(
        _gate_up_few,
        (triton.cdiv(n, tiles.n), rows * top),
        x,
        logits,
        gate_up,
        gate_up if bias is None else bias,
        out,
        chosen,
        weights,
        n,
        k,
        experts,
        top=top,
        block=max(16, triton.next_power_of_2(experts)),
        tile_n=tiles.n,
        tile_k=min(tiles.k, triton.next_power_of_2(k)),
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
    down: torch.Tensor,
    tiles: FewTiles,
    out: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """(rows, n), into `out` where it is given: the weighted sum of each row's experts, of (rows · top, k) and down (experts, n, k)."""
    rows, top = chosen.shape
    n, k = down.shape[1:]
    out = product.new_empty(rows, n) if out is None else out
    places = triton.next_power_of_2(top)
    launch_kernel(
        _down_few,
        (triton.cdiv(n, tiles.down_n), rows),
        product,
        chosen,
        weights,
        down,
        down if bias is None else bias,
        out,
        n,
        k,
        top=top,
        places=places,
        tile_n=tiles.down_n,
        # Few experts a row leave room for longer steps.
        tile_k=min(tiles.down_k * max(1, 8 // places), triton.next_power_of_2(k)),
        has_bias=bias is not None,
        num_warps=tiles.down_warps,
    )
    return out


@jit
def chosen_expert(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    experts: tl.tensor,
    top: tl.constexpr,
    block: tl.constexpr,
    renormalize: tl.constexpr,
) -> tl.tensor:
    """This program's expert: of the second grid dimension's pair of row and place. The first program of a pair writes it and its weight."""
    column, pair = tl.program_id(0), tl.program_id(1)
    # An expert's rank is how many come before it; all at once, where one maximum after the other would wait for each.
    at = tl.arange(0, block)
    logits = tl.load(logits_ptr + (pair // top) * experts + at, mask=at < experts, other=-float("inf")).to(tl.float32)
    logits = tl.where(logits == logits, logits, -float("inf"))  # noqa: PLR0124 - a row that is only padding may hold anything
    rival, own, other = logits[:, None], logits[None, :], at[:, None]
    rank = tl.sum(((rival > own) | ((rival == own) & (other < at[None, :]))).to(tl.int32), 0)
    expert = tl.sum(tl.where(rank == pair % top, at, 0), 0)
    if column == 0:
        share = tl.exp(logits - tl.max(logits, 0))
        whole = tl.sum(tl.where(rank < top, share, 0.0), 0) if renormalize else tl.sum(share, 0)
        weight = tl.sum(tl.where(rank == pair % top, share, 0.0), 0) / whole
        tl.store(chosen_ptr + pair, expert)
        tl.store(weights_ptr + pair, weight.to(logits_ptr.dtype.element_ty).to(tl.float32))
    return expert


@jit
def _gate_up_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    logits_ptr: tl.tensor,
    w_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    experts: tl.tensor,
    top: tl.constexpr,
    block: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    renormalize: tl.constexpr,
    has_bias: tl.constexpr,
    limit: tl.constexpr,
    alpha: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, pair = tl.program_id(0), tl.program_id(1)
    row = pair // top
    expert = chosen_expert(logits_ptr, chosen_ptr, weights_ptr, experts, top, block, renormalize)
    at_n = column * tile_n + tl.arange(0, tile_n)
    ok_n = (at_n < n)[:, None]
    gate_w = w_ptr + (expert.to(tl.int64) * 2 * n + at_n)[:, None] * k
    up_w = gate_w + n.to(tl.int64) * k
    gate = tl.zeros((tile_n, tile_k), tl.float32)
    up = tl.zeros((tile_n, tile_k), tl.float32)
    for start in range(0, k, tile_k):
        at_k = start + tl.arange(0, tile_k)
        ok = ok_n & (at_k < k)[None, :]
        a, b = tl.load(gate_w + at_k[None, :], mask=ok, other=0.0), tl.load(up_w + at_k[None, :], mask=ok, other=0.0)
        x = tl.load(x_ptr + row * k + at_k, mask=at_k < k, other=0.0).to(tl.float32)[None, :]
        gate += a.to(tl.float32) * x
        up += b.to(tl.float32) * x
    dtype = out_ptr.dtype.element_ty
    gate_sum, up_sum = tl.sum(gate, 1), tl.sum(up, 1)
    if has_bias:
        bias = bias_ptr + expert * 2 * n + at_n
        gate_sum += tl.load(bias, mask=at_n < n, other=0.0).to(tl.float32)
        up_sum += tl.load(bias + n, mask=at_n < n, other=0.0).to(tl.float32)
    value = gated_product(gate_sum, up_sum, dtype, limit, alpha)
    tl.store(out_ptr + pair.to(tl.int64) * n + at_n, value.to(dtype), mask=at_n < n)


@jit
def _down_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    w_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    top: tl.constexpr,
    places: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    has_bias: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, row = tl.program_id(0), tl.program_id(1)
    # All experts of the row in one tile: its lines are (place, column).
    line = tl.arange(0, places * tile_n)
    place, at_n = line // tile_n, column * tile_n + line % tile_n
    ok_line = (place < top) & (at_n < n)
    expert = tl.load(chosen_ptr + row * top + place, mask=ok_line, other=0).to(tl.int64)
    weight = tl.load(weights_ptr + row * top + place, mask=ok_line, other=0.0)
    w = w_ptr + (expert * n + at_n)[:, None] * k
    x = x_ptr + (row * top + place).to(tl.int64)[:, None] * k
    acc = tl.zeros((places * tile_n, tile_k), tl.float32)
    for start in range(0, k, tile_k):
        at_k = start + tl.arange(0, tile_k)
        ok = ok_line[:, None] & (at_k < k)[None, :]
        acc += tl.load(w + at_k[None, :], mask=ok, other=0.0).to(tl.float32) * tl.load(x + at_k[None, :], mask=ok, other=0.0).to(tl.float32)
    each = tl.sum(acc, 1)
    if has_bias:
        each += tl.load(bias_ptr + expert * n + at_n, mask=ok_line, other=0.0).to(tl.float32)
    each *= weight
    total = tl.sum(tl.reshape(each, (places, tile_n)), 0)
    at = column * tile_n + tl.arange(0, tile_n)
    tl.store(out_ptr + row.to(tl.int64) * n + at, total.to(out_ptr.dtype.element_ty), mask=at < n)
