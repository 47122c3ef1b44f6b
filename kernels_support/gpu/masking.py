"""Constrained decoding: a bit mask over the vocabulary sets the logits of forbidden tokens to -inf, in place.

The layout is that of llguidance and XGrammar: 32 tokens per int32 word, the lowest bit first, 1 for an allowed token.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton

__all__ = ["mask", "mask_reference"]

_TOKENS_PER_PROGRAM = 2048


def mask_reference(logits: torch.Tensor, rows: torch.Tensor, words: torch.Tensor) -> None:
    """`logits` (rows, vocabulary); `rows` (n,): which of them have a mask; `words` (n, vocabulary / 32) int32: the masks."""
    bits = (words.view(torch.uint8)[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=words.device)) & 1
    forbidden = bits.view(len(rows), -1)[:, : logits.shape[-1]] == 0
    rows = rows.long()
    logits[rows] = logits[rows].masked_fill(forbidden, -torch.inf)


def mask(logits: torch.Tensor, rows: torch.Tensor, words: torch.Tensor) -> None:
    """`mask_reference`, by Triton on a GPU. `logits` must be contiguous."""
    (launch if on_device(logits) else mask_reference)(logits, rows, words)


def launch(logits: torch.Tensor, rows: torch.Tensor, words: torch.Tensor) -> None:
    """One program per masked row and 2,048 tokens."""
    vocab = logits.shape[-1]
    grid = len(rows), triton.cdiv(vocab, _TOKENS_PER_PROGRAM)
    launch_kernel(_mask, grid, logits, rows, words, vocab, words.shape[1], block=_TOKENS_PER_PROGRAM, num_warps=4)


@jit
def _mask(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    rows_ptr: tl.tensor,
    words_ptr: tl.tensor,
    vocab: tl.tensor,
    words_per_row: tl.tensor,
    block: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    i, token = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    row = tl.load(rows_ptr + i).to(tl.int64)
    word = tl.load(words_ptr + i * words_per_row + token // 32, mask=token < vocab, other=-1)
    forbidden = (token < vocab) & (((word >> (token % 32)) & 1) == 0)
    tl.store(logits_ptr + row * vocab + token, tl.full((block,), float("-inf"), logits_ptr.dtype.element_ty), mask=forbidden)
