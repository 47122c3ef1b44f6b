"""One token a row out of its logits: greedy, temperature, top-k, top-p, each row by its own seed, whatever else is in the batch.

The random part is the Gumbel trick over counters: noise is a function of (seed, position, token) by Philox4x32 (Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3", SC 2011), so a row's choice depends on nothing but the row. It is made twice: a piece of the vocabulary is chosen by what all of
it weighs, then a token of that piece, so that all the other tokens need no noise. Top-k and top-p are a threshold on the logit; what ties with it stays in.
This is the plain torch side; `sampler.py` is Triton's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PIECE", "ROUNDS", "Choice", "choose_reference", "noise_of_pieces", "noise_of_tokens", "philox", "threshold_reference"]

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


def noise_of_pieces(seed: torch.Tensor, position: torch.Tensor, pieces: int) -> torch.Tensor:
    """(rows, pieces) of Gumbel noise, float32, from 23 random bits each. Its counters are not those of any token."""
    return _gumbel(_words(seed, position, torch.arange(pieces, device=seed.device)[None], 1)[0])


def noise_of_tokens(seed: torch.Tensor, position: torch.Tensor, piece: torch.Tensor) -> torch.Tensor:
    """(rows, PIECE) of the same for the tokens of one piece a row."""
    quarter = PIECE // 4
    counter = piece[:, None] * quarter + torch.arange(quarter, device=seed.device)[None]
    return _gumbel(torch.cat(_words(seed, position, counter, 0), -1))


def _words(seed: torch.Tensor, position: torch.Tensor, counter: torch.Tensor, kind: int) -> tuple[torch.Tensor, ...]:
    """Four random words for each number of `counter` (rows or 1, any)."""
    seed, nothing = seed[:, None], torch.zeros_like(counter[:1])
    return philox((counter, position.long()[:, None] & _WORD, nothing + kind, nothing), (seed & _WORD, (seed >> 32) & _WORD))


def _gumbel(words: torch.Tensor) -> torch.Tensor:
    return (words >> 9).float().add_(0.5).mul_(2.0**-23).log_().neg_().log_().neg_()


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
        edge = torch.full_like(scaled[:, :1], -torch.inf)
        edge[cut] = threshold_reference(scaled if len(cut) == len(warm) else scaled[cut], how.top_k[warm][cut], how.top_p[warm][cut])
        scaled.masked_fill_(scaled < edge, -torch.inf)
    best[warm] = _drawn(scaled, best[warm], how.seed[warm], how.position[warm])
    return best


def _drawn(scaled: torch.Tensor, best: torch.Tensor, seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(rows,): each token as often as the softmax of `scaled` says. `best` is its argmax."""
    rows, vocab = scaled.shape
    pieces = -(-vocab // PIECE)
    top = scaled.gather(1, best[:, None])
    if vocab % PIECE:
        scaled = torch.nn.functional.pad(scaled, (0, pieces * PIECE - vocab), value=-torch.inf)
    # What is out of reach anyway is clamped: exp of minus infinity takes CPUs five times as long as of a number.
    weight = (scaled - top).clamp_(min=-80).exp_().view(rows, pieces, PIECE).sum(-1)
    piece = (weight.log_() + noise_of_pieces(seed, position, pieces)).argmax(-1)
    scaled = scaled.view(rows, pieces, PIECE)
    inside = scaled[torch.arange(rows, device=piece.device), piece]
    return piece * PIECE + (inside + noise_of_tokens(seed, position, piece)).argmax(-1)
