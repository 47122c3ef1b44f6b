"""Experts for one to four rows: matrix-vector products (GEMV), each pair of row and expert for itself, at the rate of the memory.

So few rows hardly ever meet in an expert, so that nothing is gained by sorting them, and a matrix unit's tile would be padding. Of the
router's programs the last one chooses the experts, and the last kernel adds up a row's, so that no other has to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["FewTiles", "launch_down", "launch_gate_up", "launch_router"]

#: Experts that one program of the router computes.
ROUTER_TILE = 4


@dataclass(frozen=True, slots=True)
class FewTiles:
    """Of gate and of up, and of down: columns of the output a program, steps of the inner dimension, warps."""

    n: int = 4
    k: int = 1024
    warps: int = 4
    down_n: int = 4
    down_k: int = 128
    down_warps: int = 4


def launch_router(
    x: torch.Tensor, router: torch.Tensor, counts: torch.Tensor, top: int, *, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(experts int32, weights float32), each (rows, top), of (rows, k) and (experts, k). `counts`: zeros, one a row at least."""
    (rows, k), experts = x.shape, router.shape[0]
    chosen = torch.empty(rows, top, dtype=torch.int32, device=x.device)
    weights, logits = torch.empty(rows, top, dtype=torch.float32, device=x.device), x.new_empty(rows, experts)
    launch_kernel(
        _router_few,
        (triton.cdiv(experts, ROUTER_TILE), rows),
        x,
        router,
        logits,
        counts,
        chosen,
        weights,
        k,
        experts,
        top=top,
        block=max(16, triton.next_power_of_2(experts)),
        tile=ROUTER_TILE,
        tile_k=min(1024, triton.next_power_of_2(k)),
        renormalize=renormalize,
        num_warps=4,
    )
    return chosen, weights


def launch_gate_up(x: torch.Tensor, chosen: torch.Tensor, gate_up: torch.Tensor, tiles: FewTiles) -> torch.Tensor:
    """SiLU(gate) · up of every pair, (rows · top, inner): of (rows, k) and its experts (rows, top)."""
    (rows, k), top, n = x.shape, chosen.shape[1], gate_up.shape[1] // 2
    out = x.new_empty(rows * top, n)
    launch_kernel(
        _gate_up_few,
        (triton.cdiv(n, tiles.n), rows * top),
        x,
        chosen,
        gate_up,
        out,
        n,
        k,
        top=top,
        tile_n=tiles.n,
        tile_k=min(tiles.k, triton.next_power_of_2(k)),
        num_warps=tiles.warps,
    )
    return out


def launch_down(  # noqa: PLR0917 - a kernel's inputs
    product: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, down: torch.Tensor, tiles: FewTiles, out: torch.Tensor | None = None
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
        out,
        n,
        k,
        top=top,
        places=places,
        tile_n=tiles.down_n,
        # Few experts a row leave room for longer steps.
        tile_k=min(tiles.down_k * max(1, 8 // places), triton.next_power_of_2(k)),
        num_warps=tiles.down_warps,
    )
    return out


@jit
def _router_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    logits_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    k: tl.tensor,
    experts: tl.tensor,
    top: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    tile_k: tl.constexpr,
    renormalize: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    row = tl.program_id(1)
    own = tl.program_id(0) * tile + tl.arange(0, tile)
    acc = tl.zeros((tile, tile_k), tl.float32)
    for start in range(0, k, tile_k):
        at_k = start + tl.arange(0, tile_k)
        w = tl.load(w_ptr + own[:, None] * k + at_k[None, :], mask=(own < experts)[:, None] & (at_k < k)[None, :], other=0.0)
        acc += w.to(tl.float32) * tl.load(x_ptr + row * k + at_k, mask=at_k < k, other=0.0).to(tl.float32)[None, :]
    tl.store(logits_ptr + row * experts + own, tl.sum(acc, 1).to(logits_ptr.dtype.element_ty), mask=own < experts)
    # Who comes last has all logits before it, and chooses: a kernel that only chose would take longer. The barrier is for the stores of
    # all threads, the atomic one's order for those of the other programs (CUDA C++ Programming Guide, "Memory Fence Functions").
    tl.debug_barrier()
    if tl.atomic_add(counts_ptr + row, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        at = tl.arange(0, block)
        logits = tl.load(logits_ptr + row * experts + at, mask=at < experts, other=-float("inf")).to(tl.float32)
        logits = tl.where(logits == logits, logits, -float("inf"))  # noqa: PLR0124 - a row that is only padding may hold anything
        # An expert's rank is how many come before it; all at once, where one maximum after the other would wait for each.
        rival, other = logits[:, None], at[:, None]
        before = (rival > logits[None, :]) | ((rival == logits[None, :]) & (other < at[None, :]))
        rank = tl.sum(before.to(tl.int32), 0)
        share = tl.exp(logits - tl.max(logits, 0))
        whole = tl.sum(tl.where(rank < top, share, 0.0), 0) if renormalize else tl.sum(share, 0)
        weight = (share / whole).to(logits_ptr.dtype.element_ty).to(tl.float32)
        tl.store(chosen_ptr + row * top + rank, at, mask=rank < top)
        tl.store(weights_ptr + row * top + rank, weight, mask=rank < top)


@jit
def _gate_up_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    w_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    top: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, pair = tl.program_id(0), tl.program_id(1)
    row, expert = pair // top, tl.load(chosen_ptr + pair)
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
    # Rounded where two kernels would round.
    gated = tl.sum(gate, 1).to(dtype).to(tl.float32)
    gated = (gated * tl.sigmoid(gated)).to(dtype).to(tl.float32) * tl.sum(up, 1).to(dtype).to(tl.float32)
    tl.store(out_ptr + pair.to(tl.int64) * n + at_n, gated.to(dtype), mask=at_n < n)


@jit
def _down_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    w_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    top: tl.constexpr,
    places: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
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
    each = tl.sum(acc, 1) * weight
    total = tl.sum(tl.reshape(each, (places, tile_n)), 0)
    at = column * tile_n + tl.arange(0, tile_n)
    tl.store(out_ptr + row.to(tl.int64) * n + at, total.to(out_ptr.dtype.element_ty), mask=at < n)
