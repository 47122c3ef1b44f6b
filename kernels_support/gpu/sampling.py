"""One token a row out of its logits: greedy, temperature, top-k, top-p, each row by its own seed, whatever else is in the batch.

The random part is the Gumbel trick over a hash of (seed, position, token), so a row's choice depends on nothing but the row.
Top-k and top-p are a threshold on the logit; what ties with it stays in. This is the plain torch side; `choosing.py` is Triton's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Choice", "choose_reference", "gumbel_reference", "threshold_reference"]


@dataclass(slots=True)
class Choice:
    """How each row is sampled; all (rows,). temperature float32 (0: greedy), top_k int32 (0: all), top_p float32 (1: all), seed int64, position int32."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seed: torch.Tensor
    position: torch.Tensor


def _mix(x: torch.Tensor) -> torch.Tensor:
    """lowbias32 (Chris Wellons): every bit of the input reaches every bit of the output. int32, wrapping; shifts made logical."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


def gumbel_reference(seed: torch.Tensor, position: torch.Tensor, vocab: int) -> torch.Tensor:
    """(rows, vocab) of Gumbel noise, float32, from 23 bits of hash each."""
    low, high = seed.to(torch.int32), (seed >> 32).to(torch.int32)
    key = _mix(low ^ _mix(high ^ _mix(position.to(torch.int32))))[:, None]
    at = torch.arange(vocab, dtype=torch.int32, device=seed.device)[None]
    bits = _mix(_mix(at ^ key) + key)
    uniform = (((bits >> 9) & 0x7FFFFF).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def threshold_reference(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """(rows, 1): the smallest scaled logit that stays in; top-k first, then top-p over what is left of it, as transformers orders them."""
    ordered = scaled.sort(-1, descending=True).values
    vocab = scaled.shape[-1]
    keep = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab).long()[:, None]
    rank = torch.arange(vocab, device=scaled.device)[None]
    kept = ordered.masked_fill(rank >= keep, -torch.inf)
    mass = kept.softmax(-1)
    inside = (mass.cumsum(-1) - mass < top_p[:, None]) & (rank < keep)
    inside[:, 0] = True
    return ordered.gather(1, inside.sum(-1, keepdim=True) - 1)


def choose_reference(logits: torch.Tensor, how: Choice) -> torch.Tensor:
    """(rows, vocabulary) → (rows,) int64. Ties go to the smaller token."""
    best = logits.argmax(-1)
    warm = (how.temperature > 0).nonzero()[:, 0]
    if not len(warm):
        return best
    scaled = logits[warm].float() / how.temperature[warm, None]
    noise = gumbel_reference(how.seed[warm], how.position[warm], logits.shape[-1])
    cut = ((how.top_k[warm] > 0) | (how.top_p[warm] < 1)).nonzero()[:, 0]
    if len(cut):
        part = scaled[cut]
        edge = threshold_reference(part, how.top_k[warm][cut], how.top_p[warm][cut])
        scaled[cut] = part.masked_fill(part < edge, -torch.inf)
    best[warm] = (scaled + noise).argmax(-1)
    return best
