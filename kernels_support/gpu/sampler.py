"""Gumbel-max sampling by Triton: first a piece of the vocabulary, then a token of it.

Only logits that reach the threshold of top-k and top-p (`nucleus.py`) take part. `sampling.py` is the plain torch reference and has the
definitions and their sources; both draw the same noise from the same seeds, by Philox4x32 (Salmon et al., SC 2011).
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.nucleus import logit_thresholds
from kernels_support.gpu.sampling import NOT_FINITE, PHILOX_ROUNDS, PIECE_TOKENS, SamplingParams
from kernels_support.gpu.threshold_search import load_logits

__all__ = ["sample", "sample_into"]


def sample(logits: torch.Tensor, params: SamplingParams, min_p: torch.Tensor | None = None) -> torch.Tensor:
    """`sampling.sample_reference`, by Triton: (rows, vocabulary) → (rows,) int32."""
    out = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    sample_into(logits, params, out, min_p)
    return out


def sample_into(logits: torch.Tensor, params: SamplingParams, out: torch.Tensor, min_p: torch.Tensor | None = None) -> None:
    """`sample` into an existing tensor. `min_p` raises the threshold, by plain torch: the kernels are the same with it and without."""
    rows, vocab = logits.shape
    pieces = triton.cdiv(vocab, PIECE_TOKENS)
    threshold = logit_thresholds(logits, params.temperature, params.top_k, params.top_p)
    if min_p is not None:
        threshold = torch.maximum(threshold, logits.float().amax(-1) / params.temperature + min_p.log())
    lse = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    launch_kernel(_piece_lse, (rows, pieces), logits, params.temperature, threshold, lse, vocab, piece_tokens=PIECE_TOKENS, num_warps=4)
    launch_kernel(
        _sample_token,
        (rows,),
        logits,
        params.temperature,
        params.seed,
        params.position,
        threshold,
        lse,
        out,
        vocab,
        pieces,
        piece_tokens=PIECE_TOKENS,
        rounds=PHILOX_ROUNDS,
        pieces_padded=triton.next_power_of_2(pieces),
        not_finite=NOT_FINITE,
        num_warps=4,
    )


@jit
def _scaled_logits(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, row: tl.tensor, token: tl.tensor, vocab: tl.tensor, scale: tl.tensor, threshold: tl.tensor
) -> tl.tensor:
    """Logits over temperature, to base 2; minus infinity below the threshold."""
    x = load_logits(logits_ptr, row, token, vocab) * scale
    return tl.where(x >= threshold, x * 1.4426950408889634, float("-inf"))


@jit
def _piece_lse(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    threshold_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    vocab: tl.tensor,
    piece_tokens: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """A piece's logsumexp, to base 2; its largest logit where the row is greedy."""
    pdl_barrier(pdl)
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperature_ptr + row)
    token = piece * piece_tokens + tl.arange(0, piece_tokens)
    if temperature <= 0:
        lse = tl.max(load_logits(logits_ptr, row, token, vocab), 0)
    else:
        x = _scaled_logits(logits_ptr, row, token, vocab, 1.0 / temperature, tl.load(threshold_ptr + row))
        peak = tl.max(x, 0)
        # The difference is NaN where all are minus infinity, or one is infinite.
        lse = peak + tl.log2(tl.sum(tl.where(x == peak, 1.0, tl.exp2(x - peak)), 0))
    tl.store(lse_ptr + row * tl.num_programs(1) + piece, lse)


@jit
def _negative_gumbel(bits: tl.tensor) -> tl.tensor:
    """log2(-log2(u)) for u in (0, 1) from 23 random bits: negative Gumbel noise, to base 2, up to a constant that the argmax ignores."""
    return tl.log2(-tl.log2(((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07))


@jit
def _sample_token(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    position_ptr: tl.tensor,
    threshold_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    out_ptr: tl.tensor,
    vocab: tl.tensor,
    pieces: tl.tensor,
    piece_tokens: tl.constexpr,
    rounds: tl.constexpr,
    pieces_padded: tl.constexpr,
    not_finite: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """A piece by its logsumexp, then a token of it."""
    pdl_barrier(pdl)
    row, candidate = tl.program_id(0).to(tl.int64), tl.arange(0, pieces_padded)
    temperature, seed, position = tl.load(temperature_ptr + row), tl.load(seed_ptr + row), tl.load(position_ptr + row)
    lse = tl.load(lse_ptr + row * pieces + candidate, mask=candidate < pieces, other=float("-inf"))
    if temperature > 0:
        zero = candidate * 0
        lse -= _negative_gumbel(tl.philox(seed, candidate, zero + position, zero + 1, zero, rounds)[0])
    _, piece = tl.max(lse, 0, return_indices=True, return_indices_tie_break_left=True)
    piece = tl.minimum(piece, pieces - 1)  # all logits may be NaN
    counter = tl.arange(0, piece_tokens // 4)
    first = piece * piece_tokens + counter
    # Each thread keeps the best of its four tokens, one per quarter and in their order, so that the first of equal ones wins.
    if temperature <= 0:
        best, token = load_logits(logits_ptr, row, first, vocab), first
        for i in tl.static_range(1, 4):
            x = load_logits(logits_ptr, row, first + i * (piece_tokens // 4), vocab)
            best, token = _better(best, token, x, first + i * (piece_tokens // 4))
    else:
        scale, threshold = 1.0 / temperature, tl.load(threshold_ptr + row)
        zero = counter * 0
        words = tl.philox(seed, piece * (piece_tokens // 4) + counter, zero + position, zero, zero, rounds)
        best, token = _scaled_logits(logits_ptr, row, first, vocab, scale, threshold) - _negative_gumbel(words[0]), first
        for i in tl.static_range(1, 4):
            x = _scaled_logits(logits_ptr, row, first + i * (piece_tokens // 4), vocab, scale, threshold) - _negative_gumbel(words[i])
            best, token = _better(best, token, x, first + i * (piece_tokens // 4))
    value = tl.max(best, 0)
    # A token of the piece in any case, unless no logit of the row is a number: none of them compares, so none was chosen.
    last = tl.minimum(piece * piece_tokens + piece_tokens, vocab) - 1
    chosen = tl.min(tl.where(best == value, token, last), 0)
    tl.store(out_ptr + row, tl.where(value > float("-inf"), chosen, not_finite))


@jit
def _better(best: tl.tensor, token: tl.tensor, x: tl.tensor, other: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    more = x > best
    return tl.where(more, x, best), tl.where(more, other, token)
