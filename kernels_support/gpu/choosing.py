"""Sampling on the device by Triton: a threshold by bisection (never a sort), then the Gumbel trick over pieces of the vocabulary.

`sampling.py` beside this is the plain torch side and says what the numbers mean; both draw the same noise from the same seeds.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, on_device, start, tl, triton
from kernels_support.gpu.sampling import Choice

__all__ = ["choose", "choose_into"]

_PIECE = 2048


def choose(logits: torch.Tensor, how: Choice) -> torch.Tensor:
    """`sampling.choose_reference`, by Triton: (rows, vocabulary) → (rows,) int32."""
    out = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    choose_into(logits, how, out)
    return out


def choose_into(logits: torch.Tensor, how: Choice, out: torch.Tensor) -> None:
    """`choose` into a tensor that is there already."""
    rows, vocab = logits.shape
    pieces = triton.cdiv(vocab, _PIECE)
    edge = torch.empty(rows, dtype=torch.float32, device=logits.device)
    best = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    token = torch.empty(rows, pieces, dtype=torch.int32, device=logits.device)
    start(_threshold, (rows,), logits, how.temperature, how.top_k, how.top_p, edge, vocab, piece=4096, num_warps=16)
    start(
        _piece, (rows, pieces), logits, how.temperature, how.seed, how.position, edge, best, token, vocab, piece=_PIECE, quick=on_device(logits), num_warps=4,
    )  # fmt: skip
    start(_settle, (rows,), best, token, out, pieces, wide=triton.next_power_of_2(pieces), num_warps=1)


@jit
def _mix(x: tl.tensor) -> tl.tensor:
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@jit
def _ordered(x: tl.tensor) -> tl.tensor:
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def _scaled(logits_ptr: tl.tensor, row: tl.tensor, at: tl.tensor, vocab: tl.tensor, temperature: tl.tensor) -> tl.tensor:
    return tl.load(logits_ptr + row * vocab + at, mask=at < vocab, other=float("-inf")).to(tl.float32) / temperature


@jit
def _gumbel(uniform: tl.tensor, quick: tl.constexpr) -> tl.tensor:
    """-log(-log(uniform)). `quick`: by the processor's own logarithm, right to 1e-5 where it is used, and by a series near 1, where large noise comes from."""
    if quick:
        t = 1.0 - uniform
        near = t * (1.0 + t * (0.5 + t * (0.3333333432674408 + t * (0.25 + t * 0.2))))
        noise = -tl.extra.cuda.libdevice.fast_logf(tl.where(t < 0.04, near, -tl.extra.cuda.libdevice.fast_logf(uniform)))
    else:
        noise = -tl.log(-tl.log(uniform))
    return noise


@jit
def _threshold(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    k_ptr: tl.tensor,
    p_ptr: tl.tensor,
    edge_ptr: tl.tensor,
    vocab: tl.tensor,
    piece: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    after(pdl)
    row = tl.program_id(0).to(tl.int64)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        tl.store(edge_ptr + row, float("-inf"))
        return
    peaks = tl.full((piece,), float("-inf"), tl.float32)
    for first in range(0, vocab, piece):
        peaks = tl.maximum(peaks, _scaled(logits_ptr, row, first + tl.arange(0, piece), vocab, temperature))
    peak = tl.max(peaks, 0)
    # Bisection over the 2^32 ordered bit patterns of a float, exact after 32 halvings. `low` always keeps enough.
    low = tl.full((), -2139095041, tl.int32)  # minus infinity, so ordered
    if k > 0:
        high = _ordered(peak) + 1
        for _ in range(32):
            middle = (low & high) + ((low ^ high) >> 1)
            count = tl.zeros((piece,), tl.int32)
            for first in range(0, vocab, piece):
                x = _scaled(logits_ptr, row, first + tl.arange(0, piece), vocab, temperature)
                count += (_ordered(x) >= middle).to(tl.int32)
            enough = tl.sum(count, 0) >= k
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
    if p < 1:
        floor = low
        mass = tl.zeros((piece,), tl.float32)
        for first in range(0, vocab, piece):
            x = _scaled(logits_ptr, row, first + tl.arange(0, piece), vocab, temperature)
            mass += tl.where(_ordered(x) >= floor, tl.exp(x - peak), 0.0)
        wanted = tl.sum(mass, 0) * p
        high = _ordered(peak) + 1
        for _ in range(32):
            middle = (low & high) + ((low ^ high) >> 1)
            mass = tl.zeros((piece,), tl.float32)
            for first in range(0, vocab, piece):
                x = _scaled(logits_ptr, row, first + tl.arange(0, piece), vocab, temperature)
                mass += tl.where(_ordered(x) >= middle, tl.exp(x - peak), 0.0)
            enough = tl.sum(mass, 0) >= wanted
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        low = tl.minimum(low, _ordered(peak))
    tl.store(edge_ptr + row, (low ^ ((low >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True))


@jit
def _piece(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    position_ptr: tl.tensor,
    edge_ptr: tl.tensor,
    best_ptr: tl.tensor,
    token_ptr: tl.tensor,
    vocab: tl.tensor,
    piece: tl.constexpr,
    quick: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    after(pdl)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperature_ptr + row)
    at = part * piece + tl.arange(0, piece)
    if temperature <= 0:
        x = tl.load(logits_ptr + row * vocab + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
    else:
        x = _scaled(logits_ptr, row, at, vocab, temperature)
        seed = tl.load(seed_ptr + row)
        position = tl.load(position_ptr + row).to(tl.uint32)
        key = _mix(seed.to(tl.uint32) ^ _mix((seed >> 32).to(tl.uint32) ^ _mix(position)))
        bits = _mix(_mix(at.to(tl.uint32) ^ key) + key)
        uniform = ((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
        x = tl.where((x >= tl.load(edge_ptr + row)) & (at < vocab), x + _gumbel(uniform, quick), float("-inf"))
    value, index = tl.max(x, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(best_ptr + row * tl.num_programs(1) + part, value)
    tl.store(token_ptr + row * tl.num_programs(1) + part, part * piece + index)


@jit
def _settle(  # noqa: PLR0917 - what a kernel needs
    best_ptr: tl.tensor, token_ptr: tl.tensor, out_ptr: tl.tensor, pieces: tl.tensor, wide: tl.constexpr, pdl: tl.constexpr
) -> None:
    after(pdl)
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, wide)
    values = tl.load(best_ptr + row * pieces + at, mask=at < pieces, other=float("-inf"))
    _, index = tl.max(values, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(out_ptr + row, tl.load(token_ptr + row * pieces + index))
