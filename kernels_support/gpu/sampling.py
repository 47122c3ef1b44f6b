"""One token a row out of its logits: greedy, temperature, top-k, top-p, each row by its own seed, whatever else is in the batch.

The random part is the Gumbel trick over counters: noise is a function of (seed, position, token) by Philox4x32 (Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3", SC 2011), so a row's choice depends on nothing but the row. Top-k and top-p are a threshold on the logit; what ties
with it stays in. This is the plain torch side; `choosing.py` is Triton's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PIECE", "ROUNDS", "Choice", "choose_reference", "gumbel_of", "gumbel_reference", "philox", "threshold_reference"]

#: Rounds of Philox: the fewest that pass all of BigCrush (the paper's table 2).
ROUNDS = 7

#: Tokens of a piece. Its first quarter has the first words of a counter each, the second quarter the second words: what one thread draws stays with it.
PIECE = 2048

_WORD = 0xFFFFFFFF

#: More than any noise: of 23 bits it is at most -log(-log(1 - 2^-24)) = 16.64.
_MOST = 16.65


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
    words = _words(seed[:, None], position[:, None], torch.arange(pieces * quarter, device=seed.device)[None])
    bits = torch.empty(rows, pieces, 4, quarter, device=seed.device)
    for i, word in enumerate(words):
        bits[:, :, i] = (word >> 9).view(rows, pieces, quarter)
    return _gumbel(bits.view(rows, -1)[:, :vocab])


def gumbel_of(seed: torch.Tensor, position: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """The same noise, of the tokens that are asked for alone: all (n,)."""
    quarter = PIECE // 4
    words = torch.stack(_words(seed, position, token // PIECE * quarter + token % quarter))
    return _gumbel((words.gather(0, (token % PIECE // quarter)[None])[0] >> 9).float())


def _words(seed: torch.Tensor, position: torch.Tensor, counter: torch.Tensor) -> tuple[torch.Tensor, ...]:
    nothing = torch.zeros_like(counter[:1])
    return philox((counter, position.long() & _WORD, nothing, nothing), (seed & _WORD, (seed >> 32) & _WORD))


def _gumbel(bits: torch.Tensor) -> torch.Tensor:
    """In place."""
    return bits.add_(0.5).mul_(2.0**-23).log_().neg_().log_().neg_()


def threshold_reference(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, head: int = 256) -> torch.Tensor:
    """(rows, 1): the smallest scaled logit that stays in; top-k first, then top-p over what is left of it, as transformers orders them.

    `head`: how many of the largest are looked at first. They nearly always are enough, and putting all in order takes 25 times as long.
    """
    vocab = scaled.shape[-1]
    keep = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab).long()[:, None]
    ordered = scaled.topk(head, -1).values if head < vocab else scaled.sort(-1, descending=True).values
    rank = torch.arange(ordered.shape[-1], device=scaled.device)[None]
    weight = (ordered - ordered[:, :1]).exp().masked_fill(rank >= keep, 0.0)
    total = torch.where(keep < vocab, weight.sum(-1, keepdim=True), (scaled - ordered[:, :1]).exp().sum(-1, keepdim=True))
    mass = weight / total
    # Where all may stay, none is left out because the sum before it was rounded up to 1.
    inside = ((mass.cumsum(-1) - mass < top_p[:, None]) | (top_p[:, None] >= 1)) & (rank < keep)
    inside[:, 0] = True
    edge = ordered.gather(1, inside.sum(-1, keepdim=True) - 1)
    # Where more of a row is wanted than its head, the head says neither where it ends nor, with top-k, what all of it weighs.
    more = ((inside[:, -1:] | (keep < vocab)) & (keep > ordered.shape[-1]))[:, 0].nonzero()[:, 0]
    if len(more):
        edge[more] = threshold_reference(scaled[more], top_k[more], top_p[more], 16 * head)
    return edge


def choose_reference(logits: torch.Tensor, how: Choice) -> torch.Tensor:
    """(rows, vocabulary) → (rows,) int64. Ties go to the smaller token."""
    best = logits.argmax(-1)
    warm = (how.temperature > 0).nonzero()[:, 0]
    if not len(warm):
        return best
    scaled = logits[warm].float() / how.temperature[warm, None]
    cut = ((how.top_k[warm] > 0) | (how.top_p[warm] < 1)).nonzero()[:, 0]
    if len(cut):
        part = scaled[cut]
        edge = threshold_reference(part, how.top_k[warm][cut], how.top_p[warm][cut])
        scaled[cut] = part.masked_fill(part < edge, -torch.inf)
    best[warm] = _noisiest(scaled, how.seed[warm], how.position[warm], best[warm])
    return best


def _noisiest(scaled: torch.Tensor, seed: torch.Tensor, position: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """The argmax of `scaled` with noise. `top` is its argmax without: a token so far below it that no noise can help needs none, and most are."""
    rows, vocab = scaled.shape
    reached = scaled.gather(1, top[:, None])[:, 0] + gumbel_of(seed, position, top)
    row, token = (scaled >= (reached - _MOST)[:, None]).nonzero(as_tuple=True)
    if len(row) * 6 > rows * vocab:  # one by one each takes four times as long
        return (scaled + gumbel_reference(seed, position, vocab)).argmax(-1)
    value = scaled[row, token] + gumbel_of(seed[row], position[row], token)
    most = torch.full_like(reached, -torch.inf).scatter_reduce(0, row, value, "amax")
    winner = value == most[row]
    found = torch.full_like(top, vocab).scatter_reduce(0, row[winner], token[winner], "amin")
    return found.where(found < vocab, top)  # logits that are no numbers are above nothing
