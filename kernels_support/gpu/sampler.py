"""Sampling on the device by Triton: where top-k and top-p cut a row (`nucleus.py`), then the Gumbel trick, over pieces of the vocabulary and inside one.

`sampling.py` beside this is the plain torch side and says what the numbers mean; both draw the same noise from the same seeds.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, start, tl, triton
from kernels_support.gpu.nucleus import edges, raw
from kernels_support.gpu.sampling import PIECE, ROUNDS, Choice

__all__ = ["choose", "choose_into"]


def choose(logits: torch.Tensor, how: Choice) -> torch.Tensor:
    """`sampling.choose_reference`, by Triton: (rows, vocabulary) → (rows,) int32."""
    out = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    choose_into(logits, how, out)
    return out


def choose_into(logits: torch.Tensor, how: Choice, out: torch.Tensor) -> None:
    """`choose` into a tensor that is there already."""
    rows, vocab = logits.shape
    pieces = triton.cdiv(vocab, PIECE)
    edge = edges(logits, how.temperature, how.top_k, how.top_p)
    weight = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    start(_weigh, (rows, pieces), logits, how.temperature, edge, weight, vocab, piece=PIECE, num_warps=4)
    start(
        _settle, (rows,), logits, how.temperature, how.seed, how.position, edge, weight, out, vocab, pieces,
        piece=PIECE, rounds=ROUNDS, wide=triton.next_power_of_2(pieces), num_warps=4,
    )  # fmt: skip


@jit
def _cut(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, row: tl.tensor, at: tl.tensor, vocab: tl.tensor, scale: tl.tensor, edge: tl.tensor
) -> tl.tensor:  # fmt: skip
    """Logits over temperature, to base 2; minus infinity what is below the edge."""
    x = raw(logits_ptr, row, at, vocab) * scale
    return tl.where(x >= edge, x * 1.4426950408889634, float("-inf"))


@jit
def _weigh(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, temperature_ptr: tl.tensor, edge_ptr: tl.tensor, weight_ptr: tl.tensor, vocab: tl.tensor, piece: tl.constexpr, pdl: tl.constexpr
) -> None:  # fmt: skip
    """A piece's largest logit where the row is greedy, else the logarithm, to base 2, of what the piece weighs."""
    after(pdl)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperature_ptr + row)
    at = part * piece + tl.arange(0, piece)
    if temperature <= 0:
        weight = tl.max(raw(logits_ptr, row, at, vocab), 0)
    else:
        x = _cut(logits_ptr, row, at, vocab, 1.0 / temperature, tl.load(edge_ptr + row))
        peak = tl.max(x, 0)
        # Where nothing is left, or something is infinite, the difference is no number.
        weight = peak + tl.log2(tl.sum(tl.where(x == peak, 1.0, tl.exp2(x - peak)), 0))
    tl.store(weight_ptr + row * tl.num_programs(1) + part, weight)


@jit
def _handicap(bits: tl.tensor) -> tl.tensor:
    """log2(-log2(u)) for u in (0, 1) from 23 random bits: Gumbel noise with its sign turned, to base 2 and but for a constant, which changes nothing."""
    return tl.log2(-tl.log2(((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07))


@jit
def _settle(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, temperature_ptr: tl.tensor, seed_ptr: tl.tensor, position_ptr: tl.tensor, edge_ptr: tl.tensor, weight_ptr: tl.tensor, out_ptr: tl.tensor,
    vocab: tl.tensor, pieces: tl.tensor, piece: tl.constexpr, rounds: tl.constexpr, wide: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    """A piece by its weight, then a token of it."""
    after(pdl)
    row, which = tl.program_id(0).to(tl.int64), tl.arange(0, wide)
    temperature, seed, position = tl.load(temperature_ptr + row), tl.load(seed_ptr + row), tl.load(position_ptr + row)
    weight = tl.load(weight_ptr + row * pieces + which, mask=which < pieces, other=float("-inf"))
    if temperature > 0:
        nothing = which * 0
        weight -= _handicap(tl.philox(seed, which, nothing + position, nothing + 1, nothing, rounds)[0])
    _, part = tl.max(weight, 0, return_indices=True, return_indices_tie_break_left=True)
    part = tl.minimum(part, pieces - 1)  # logits may be no numbers at all
    lane = tl.arange(0, piece // 4)
    at = part * piece + lane
    # A thread keeps the best of its quarters' tokens, in their order, so that of equals the first one stays.
    if temperature <= 0:
        best, token = raw(logits_ptr, row, at, vocab), at
        for i in tl.static_range(1, 4):
            best, token = _better(best, token, raw(logits_ptr, row, at + i * (piece // 4), vocab), at + i * (piece // 4))
    else:
        scale, edge = 1.0 / temperature, tl.load(edge_ptr + row)
        nothing = lane * 0
        words = tl.philox(seed, part * (piece // 4) + lane, nothing + position, nothing, nothing, rounds)
        best, token = _cut(logits_ptr, row, at, vocab, scale, edge) - _handicap(words[0]), at
        for i in tl.static_range(1, 4):
            x = _cut(logits_ptr, row, at + i * (piece // 4), vocab, scale, edge) - _handicap(words[i])
            best, token = _better(best, token, x, at + i * (piece // 4))
    value = tl.max(best, 0)
    # One of the piece's in any case.
    last = tl.minimum(part * piece + piece, vocab) - 1
    tl.store(out_ptr + row, tl.min(tl.where(best == value, token, last), 0))


@jit
def _better(best: tl.tensor, token: tl.tensor, x: tl.tensor, at: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    more = x > best
    return tl.where(more, x, best), tl.where(more, at, token)
