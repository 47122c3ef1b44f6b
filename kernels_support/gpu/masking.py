"""What a row may not say becomes impossible: bits of a mask over the vocabulary put minus infinity into its logits, in place."""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, on_device, start, tl, triton

__all__ = ["mask", "mask_reference"]

_PIECE = 2048


def mask_reference(logits: torch.Tensor, lanes: torch.Tensor, words: torch.Tensor) -> None:
    """`logits` (rows, vocabulary); `lanes` (n,) rows that have a mask; `words` (n, vocabulary / 32) int32, the lowest bit the first token."""
    bits = (words.view(torch.uint8)[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=words.device)) & 1
    barred = bits.view(len(lanes), -1)[:, : logits.shape[-1]] == 0
    lanes = lanes.long()
    logits[lanes] = logits[lanes].masked_fill(barred, -torch.inf)


def mask(logits: torch.Tensor, lanes: torch.Tensor, words: torch.Tensor) -> None:
    """`mask_reference`, by Triton on a GPU. Rows of `logits` must lie one after the other."""
    (launch if on_device(logits) else mask_reference)(logits, lanes, words)


def launch(logits: torch.Tensor, lanes: torch.Tensor, words: torch.Tensor) -> None:
    """One program a masked row and 2,048 tokens."""
    vocab = logits.shape[-1]
    start(_mask, (len(lanes), triton.cdiv(vocab, _PIECE)), logits, lanes, words, vocab, words.shape[1], piece=_PIECE, num_warps=4)


@jit
def _mask(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    lanes_ptr: tl.tensor,
    words_ptr: tl.tensor,
    vocab: tl.tensor,
    width: tl.tensor,
    piece: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    after(pdl)
    i, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * piece + tl.arange(0, piece)
    row = tl.load(lanes_ptr + i).to(tl.int64)
    word = tl.load(words_ptr + i * width + at // 32, mask=at < vocab, other=-1)
    barred = (at < vocab) & (((word >> (at % 32)) & 1) == 0)
    tl.store(logits_ptr + row * vocab + at, tl.full((piece,), float("-inf"), logits_ptr.dtype.element_ty), mask=barred)
