"""Sampling on the device by Triton: where top-k and top-p cut a row (`nucleus.py`), then the Gumbel trick over pieces of the vocabulary.

`sampling.py` beside this is the plain torch side and says what the numbers mean; both draw the same noise from the same seeds.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, on_device, start, tl, triton
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
    best = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    token = torch.empty(rows, pieces, dtype=torch.int32, device=logits.device)
    start(
        _piece, (rows, pieces), logits, how.temperature, how.seed, how.position, edge, best, token, vocab, piece=PIECE, rounds=ROUNDS, quick=on_device(logits), num_warps=4,
    )  # fmt: skip
    start(_settle, (rows,), best, token, out, pieces, wide=triton.next_power_of_2(pieces), num_warps=1)


@jit
def _handicap(bits: tl.tensor, quick: tl.constexpr) -> tl.tensor:
    """log2(-log2(u)) for u in (0, 1) from 23 random bits: Gumbel noise with its sign turned. `quick`: by the processor's own logarithm, right to 2e-5 where it is
    used, and by a series near 1, where large noise comes from.
    """
    uniform = ((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    if quick:
        t = 1.0 - uniform
        near = t * (1.4426950408889634 + t * (0.7213475204444817 + t * 0.48089834696298783))
        # The absolute value takes no time; a minus would.
        found = tl.extra.cuda.libdevice.fast_log2f(tl.abs(tl.where(t < 0.01, near, tl.extra.cuda.libdevice.fast_log2f(uniform))))
    else:
        found = tl.log2(-tl.log2(uniform))
    return found


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
    rounds: tl.constexpr,
    quick: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    after(pdl)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperature_ptr + row)
    lane = tl.arange(0, piece // 4)
    at = part * piece + lane
    # A thread keeps the best of its quarters' tokens, in their order, so that of equals the first one stays.
    if temperature <= 0:
        best, token = raw(logits_ptr, row, at, vocab), at
        for i in tl.static_range(1, 4):
            best, token = _better(best, token, raw(logits_ptr, row, at + i * (piece // 4), vocab), at + i * (piece // 4))
    else:
        scale, edge = 1.0 / temperature, tl.load(edge_ptr + row)
        # To base 2, which the processor's logarithm is made for; it does not change who is best.
        scale2 = scale * 1.4426950408889634
        seed, position = tl.load(seed_ptr + row), tl.load(position_ptr + row)
        nothing = lane * 0
        words = tl.philox(seed, part * (piece // 4) + lane, nothing + position, nothing, nothing, rounds)
        x, token = raw(logits_ptr, row, at, vocab), at
        best = tl.where(x * scale >= edge, x * scale2 - _handicap(words[0], quick), float("-inf"))
        for i in tl.static_range(1, 4):
            x = raw(logits_ptr, row, at + i * (piece // 4), vocab)
            x = tl.where(x * scale >= edge, x * scale2 - _handicap(words[i], quick), float("-inf"))
            best, token = _better(best, token, x, at + i * (piece // 4))
    value = tl.max(best, 0)
    place = row * tl.num_programs(1) + part
    tl.store(best_ptr + place, value)
    # One of the piece's in any case: logits may be no numbers at all.
    last = tl.minimum(part * piece + piece, vocab) - 1
    tl.store(token_ptr + place, tl.min(tl.where(best == value, token, last), 0))


@jit
def _better(best: tl.tensor, token: tl.tensor, x: tl.tensor, at: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    more = x > best
    return tl.where(more, x, best), tl.where(more, at, token)


@jit
def _settle(  # noqa: PLR0917 - what a kernel needs
    best_ptr: tl.tensor, token_ptr: tl.tensor, out_ptr: tl.tensor, pieces: tl.tensor, wide: tl.constexpr, pdl: tl.constexpr
) -> None:
    after(pdl)
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, wide)
    values = tl.load(best_ptr + row * pieces + at, mask=at < pieces, other=float("-inf"))
    _, index = tl.max(values, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(out_ptr + row, tl.load(token_ptr + row * pieces + index))
