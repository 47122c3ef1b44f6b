"""One token a row out of its logits: greedy, temperature, top-k, top-p, each row by its own seed, whatever else is in the batch.

The random part is the Gumbel trick over counters: noise is a function of (seed, position, token) by Philox4x32 (Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3", SC 2011), so a row's choice depends on nothing but the row. Top-k and top-p are a threshold on the logit; what ties
with it stays in. This is the plain torch side; `choosing.py` is Triton's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PIECE", "ROUNDS", "Choice", "choose_reference", "gumbel_reference", "philox", "threshold_reference"]

#: Rounds of Philox: the fewest that pass all of BigCrush (the paper's table 2).
ROUNDS = 7

#: Tokens of a piece. Its first quarter has the first words of a counter each, the second quarter the second words: what one thread draws stays with it.
PIECE = 2048

_WORD = 0xFFFFFFFF


@dataclass(slots=True)
class Choice:
    """How each row is sampled; all (rows,). temperature float32 (0: greedy), top_k int32 (0: all), top_p float32 (1: all), seed int64, position int32."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seed: torch.Tensor
    position: torch.Tensor


def philox(counter: tuple[torch.Tensor, ...], key: tuple[torch.Tensor, torch.Tensor], rounds: int = ROUNDS) -> tuple[torch.Tensor, ...]:
    """Philox4x32: four words of a counter and two of a key, int64 tensors of 32 bits that broadcast, to four random words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # 64 bits of each product: int64 wraps, and the sign is masked away.
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((b >> 32) & _WORD) ^ c1 ^ k0, b & _WORD, ((a >> 32) & _WORD) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def gumbel_reference(seed: torch.Tensor, position: torch.Tensor, vocab: int) -> torch.Tensor:
    """(rows, vocab) of Gumbel noise, float32, from 23 random bits each."""
    pieces, quarter, rows = -(-vocab // PIECE), PIECE // 4, seed.shape[0]
    nothing = torch.zeros(1, 1, dtype=torch.int64, device=seed.device)
    counter = torch.arange(pieces * quarter, device=seed.device)[None], position.long()[:, None] & _WORD, nothing, nothing
    words = philox(counter, ((seed & _WORD)[:, None], ((seed >> 32) & _WORD)[:, None]))
    noise = torch.empty(rows, pieces, 4, quarter, device=seed.device)
    for i, word in enumerate(words):
        noise[:, :, i] = (word >> 9).view(rows, pieces, quarter)
    noise = noise.view(rows, -1)[:, :vocab]
    return noise.add_(0.5).mul_(2.0**-23).log_().neg_().log_().neg_()


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
