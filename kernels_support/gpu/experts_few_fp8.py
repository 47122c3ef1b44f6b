"""Experts in FP8 for one to four rows, as `experts_few.py` has plain ones: half the bytes, and x is not rounded at all.

W is read as pairs of neighbours (`fp8_pairs.py`), which meet the even and the odd numbers of x. A scale of a row of W multiplies the
sum; one of a block of 128 × 128 what is multiplied there.
"""

from __future__ import annotations

from typing import Any

import torch

from kernels_support.gpu.experts_few import FewTiles
from kernels_support.gpu.fp8_matrix import Fp8Matrices
from kernels_support.gpu.fp8_pairs import widened, widens_in_hardware
from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["TILES", "launch_down", "launch_gate_up"]

#: What was fastest of eight on one H200 (30B-A3B's experts in blocks).
TILES = FewTiles(8, 512, 4, 8, 256, 8)


def launch_gate_up(
    x: torch.Tensor, logits: torch.Tensor, gate_up: Fp8Matrices, top: int, tiles: FewTiles, *, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """SiLU(gate) · up of every pair (rows · top, inner), and their experts and weights: (rows, k), logits (rows, experts)."""
    rows, k = x.shape
    experts, n = gate_up.shape[0], gate_up.shape[1] // 2
    out = x.new_empty(rows * top, n)
    chosen = torch.empty(rows, top, dtype=torch.int32, device=x.device)
    weights = torch.empty(rows, top, dtype=torch.float32, device=x.device)
    launch_kernel(
        _gate_up_few_fp8,
        (triton.cdiv(n, tiles.n), rows * top),
        *_source(x),
        logits,
        gate_up.values.view(torch.int16),
        gate_up.scale,
        out,
        chosen,
        weights,
        n,
        k // 2,
        experts,
        top=top,
        block=max(16, triton.next_power_of_2(experts)),
        tile_n=tiles.n,
        half=min(tiles.k, triton.next_power_of_2(k)) // 2,
        renormalize=renormalize,
        blocks=gate_up.blocks,
        native=widens_in_hardware(),
        num_warps=tiles.warps,
    )
    return out, chosen, weights


def launch_down(  # noqa: PLR0917 - a kernel's inputs
    product: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, down: Fp8Matrices, tiles: FewTiles, out: torch.Tensor | None = None
) -> torch.Tensor:
    """(rows, n), into `out` where it is given: the weighted sum of each row's experts, of (rows · top, k) and down (experts, n, k)."""
    rows, top = chosen.shape
    n, k = down.shape[1:]
    out = product.new_empty(rows, n) if out is None else out
    places = triton.next_power_of_2(top)
    launch_kernel(
        _down_few_fp8,
        (triton.cdiv(n, tiles.down_n), rows),
        *_source(product),
        chosen,
        weights,
        down.values.view(torch.int16),
        down.scale,
        out,
        n,
        k // 2,
        top=top,
        places=places,
        tile_n=tiles.down_n,
        # Few experts a row leave room for longer steps.
        half=64 if down.blocks else min(tiles.down_k * max(1, 8 // places), triton.next_power_of_2(k)) // 2,
        blocks=down.blocks,
        native=widens_in_hardware(),
        num_warps=tiles.down_warps,
    )
    return out


def _source(x: torch.Tensor) -> tuple[Any, ...]:
    """X as it is loaded: pairs of bfloat16 as one number of 32 bits, others one by one; and something in x's dtype."""
    return (x.view(torch.int32) if x.dtype == torch.bfloat16 else x), x


@jit
def _even_and_odd(x_ptr: tl.tensor, at: tl.tensor, ok: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Numbers 2 · at and the ones beside them, float32."""
    if x_ptr.dtype.element_ty == tl.int32:
        pair = tl.load(x_ptr + at, mask=ok, other=0)
        even, odd = (pair << 16).to(tl.float32, bitcast=True), (pair & -65536).to(tl.float32, bitcast=True)
    else:
        even = tl.load(x_ptr + 2 * at, mask=ok, other=0.0).to(tl.float32)
        odd = tl.load(x_ptr + 2 * at + 1, mask=ok, other=0.0).to(tl.float32)
    return even, odd


@jit
def _gate_up_few_fp8(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    like_ptr: tl.tensor,
    logits_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    n: tl.tensor,
    words: tl.tensor,
    experts: tl.tensor,
    top: tl.constexpr,
    block: tl.constexpr,
    tile_n: tl.constexpr,
    half: tl.constexpr,
    renormalize: tl.constexpr,
    blocks: tl.constexpr,
    native: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    column, pair = tl.program_id(0), tl.program_id(1)
    row, place = pair // top, pair % top
    # An expert's rank is how many come before it; all at once, where one maximum after the other would wait for each.
    at = tl.arange(0, block)
    logits = tl.load(logits_ptr + row * experts + at, mask=at < experts, other=-float("inf")).to(tl.float32)
    logits = tl.where(logits == logits, logits, -float("inf"))  # noqa: PLR0124 - a row that is only padding may hold anything
    rival, own, other = logits[:, None], logits[None, :], at[:, None]
    rank = tl.sum(((rival > own) | ((rival == own) & (other < at[None, :]))).to(tl.int32), 0)
    expert = tl.sum(tl.where(rank == place, at, 0), 0)
    if column == 0:
        share = tl.exp(logits - tl.max(logits, 0))
        whole = tl.sum(tl.where(rank < top, share, 0.0), 0) if renormalize else tl.sum(share, 0)
        weight = tl.sum(tl.where(rank == place, share, 0.0), 0) / whole
        tl.store(chosen_ptr + pair, expert)
        tl.store(weights_ptr + pair, weight.to(logits_ptr.dtype.element_ty).to(tl.float32))
    at_n = column * tile_n + tl.arange(0, tile_n)
    ok_n = (at_n < n)[:, None]
    gate_w = w_ptr + (expert.to(tl.int64) * 2 * n + at_n)[:, None] * words
    up_w = gate_w + n.to(tl.int64) * words
    scale = scale_ptr + expert.to(tl.int64) * 2 * n
    if blocks:
        scale = scale_ptr + (expert * (2 * n // 128) + column * tile_n // 128).to(tl.int64) * (words // 64)
    up_scale = scale + (n // 128) * (words // 64)
    gate = tl.zeros((tile_n, half), tl.float32)
    up = tl.zeros((tile_n, half), tl.float32)
    for start in range(0, words, half):
        at_k = start + tl.arange(0, half)
        ok_k = at_k < words
        ok = ok_n & ok_k[None, :]
        a, b = tl.load(gate_w + at_k[None, :], mask=ok, other=0), tl.load(up_w + at_k[None, :], mask=ok, other=0)
        even, odd = _even_and_odd(x_ptr, row * words + at_k, ok_k)
        a0, a1 = widened(a, native)
        b0, b1 = widened(b, native)
        if blocks:
            by_gate, by_up = tl.load(scale + at_k // 64, mask=ok_k, other=0.0), tl.load(up_scale + at_k // 64, mask=ok_k, other=0.0)
            gate += a0.to(tl.float32) * (even * by_gate)[None, :]
            gate += a1.to(tl.float32) * (odd * by_gate)[None, :]
            up += b0.to(tl.float32) * (even * by_up)[None, :]
            up += b1.to(tl.float32) * (odd * by_up)[None, :]
        else:
            gate += a0.to(tl.float32) * even[None, :]
            gate += a1.to(tl.float32) * odd[None, :]
            up += b0.to(tl.float32) * even[None, :]
            up += b1.to(tl.float32) * odd[None, :]
    gated, more = tl.sum(gate, 1), tl.sum(up, 1)
    if not blocks:
        gated *= tl.load(scale + at_n, mask=at_n < n, other=0.0)
        more *= tl.load(scale + n + at_n, mask=at_n < n, other=0.0)
    dtype = like_ptr.dtype.element_ty
    # Rounded where two kernels would round.
    gated = gated.to(dtype).to(tl.float32)
    gated = (gated * tl.sigmoid(gated)).to(dtype).to(tl.float32) * more.to(dtype).to(tl.float32)
    tl.store(out_ptr + pair.to(tl.int64) * n + at_n, gated.to(dtype), mask=at_n < n)


@jit
def _down_few_fp8(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    like_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    words: tl.tensor,
    top: tl.constexpr,
    places: tl.constexpr,
    tile_n: tl.constexpr,
    half: tl.constexpr,
    blocks: tl.constexpr,
    native: tl.constexpr,
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
    w = w_ptr + (expert * n + at_n)[:, None] * words
    x = (row * top + place).to(tl.int64)[:, None] * words
    scale = scale_ptr + (expert * (n // 128) + at_n // 128) * (words // 64)
    acc = tl.zeros((places * tile_n, half), tl.float32)
    for start in range(0, words, half):
        at_k = start + tl.arange(0, half)
        ok = ok_line[:, None] & (at_k < words)[None, :]
        low, high = widened(tl.load(w + at_k[None, :], mask=ok, other=0), native)
        even, odd = _even_and_odd(x_ptr, x + at_k[None, :], ok)
        if blocks:  # a step is a block
            both = low.to(tl.float32) * even + high.to(tl.float32) * odd
            acc += both * tl.load(scale + start // 64, mask=ok_line, other=0.0)[:, None]
        else:
            acc += low.to(tl.float32) * even
            acc += high.to(tl.float32) * odd
    each = tl.sum(acc, 1) * weight
    if not blocks:
        each *= tl.load(scale_ptr + expert * n + at_n, mask=ok_line, other=0.0)
    total = tl.sum(tl.reshape(each, (places, tile_n)), 0)
    at = column * tile_n + tl.arange(0, tile_n)
    tl.store(out_ptr + row.to(tl.int64) * n + at, total.to(like_ptr.dtype.element_ty), mask=at < n)
