"""One token per row out of its logits: greedy, or by temperature, top-k and top-p, each row with its own seed, independent of the batch.

Gumbel-max sampling (Gumbel 1954; Maddison, Tarlow & Minka 2014, "A* Sampling", arXiv:1411.0030): the argmax of logits plus Gumbel noise
is distributed as their softmax. The noise comes from a counter-based generator, Philox4x32 (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011), over (seed, position, token), so a row's token depends on nothing but the row.
Two levels: first a piece of the vocabulary by the logsumexp of its logits, then a token of that piece; all other tokens need no noise.
Top-k (Fan et al. 2018, arXiv:1805.04833) and top-p (nucleus sampling, Holtzman et al. 2019, arXiv:1904.09751) become one threshold on
the logit; tokens that tie with it are kept.
This is the plain torch reference; `sampler.py` is the Triton side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = [
    "NOT_FINITE",
    "PHILOX_ROUNDS",
    "PIECE_TOKENS",
    "SamplingParams",
    "marked",
    "philox",
    "piece_gumbel_noise",
    "sample_reference",
    "threshold_reference",
    "token_gumbel_noise",
]

#: The fewest rounds that pass all of BigCrush (the paper's table 2).
PHILOX_ROUNDS = 7

#: A token's noise is word i // (PIECE_TOKENS / 4) of counter i % (PIECE_TOKENS / 4), i its index in the piece: a GPU thread uses all four
#: words that it draws.
PIECE_TOKENS = 2048

#: In the place of a token where the row's logits are no numbers: no token is the likeliest then. It travels to the host as tokens do,
#: so that nobody waits for it.
NOT_FINITE = -1

_U32_MAX = 0xFFFFFFFF


@dataclass(slots=True)
class SamplingParams:
    """Each (rows,): temperature float32 (0: greedy), top_k int32 (0: all), top_p float32 (1: all), seed int64, position int32."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seed: torch.Tensor
    position: torch.Tensor


def philox(
    counter: tuple[torch.Tensor, ...], key: tuple[torch.Tensor, torch.Tensor], rounds: int = PHILOX_ROUNDS
) -> tuple[torch.Tensor, ...]:
    """Philox4x32: four counter words and two key words, int64 tensors of 32-bit values that broadcast → four random words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # The products need 64 bits: int64 wraps, and masking drops the sign.
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((b >> 32) & _U32_MAX) ^ c1 ^ k0, b & _U32_MAX, ((a >> 32) & _U32_MAX) ^ c3 ^ k1, a & _U32_MAX
        k0, k1 = (k0 + 0x9E3779B9) & _U32_MAX, (k1 + 0xBB67AE85) & _U32_MAX
    return c0, c1, c2, c3


def piece_gumbel_noise(seed: torch.Tensor, position: torch.Tensor, pieces: int) -> torch.Tensor:
    """(rows, pieces) of Gumbel noise, float32, from 23 random bits each. Their counters differ from those of all tokens."""
    return _gumbel(_random_words(seed, position, torch.arange(pieces, device=seed.device)[None], 1)[0])


def token_gumbel_noise(seed: torch.Tensor, position: torch.Tensor, piece: torch.Tensor) -> torch.Tensor:
    """(rows, PIECE_TOKENS) of Gumbel noise for the tokens of one piece per row."""
    quarter = PIECE_TOKENS // 4
    counter = piece[:, None] * quarter + torch.arange(quarter, device=seed.device)[None]
    return _gumbel(torch.cat(_random_words(seed, position, counter, 0), -1))


def _random_words(seed: torch.Tensor, position: torch.Tensor, counter: torch.Tensor, stream: int) -> tuple[torch.Tensor, ...]:
    """Four random words for each number of `counter` (rows or 1, any). `stream`: 0 for tokens, 1 for pieces."""
    seed, zero = seed[:, None], torch.zeros_like(counter[:1])
    words = counter, position.long()[:, None] & _U32_MAX, zero + stream, zero
    return philox(words, (seed & _U32_MAX, (seed >> 32) & _U32_MAX))


def _gumbel(words: torch.Tensor) -> torch.Tensor:
    return (words >> 9).float().add_(0.5).mul_(2.0**-23).log_().neg_().log_().neg_()


def threshold_reference(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, head: int = 256) -> torch.Tensor:
    """(rows, 1): the smallest scaled logit that is kept; top-k first, then top-p over what top-k kept, in transformers' order.

    `head`: how many of the largest logits are tried first. They nearly always suffice, and sorting all of them takes 25 times as long.
    """
    vocab = scaled.shape[-1]
    keep = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab).long()[:, None]
    ordered = scaled.topk(head, -1).values if head < vocab else scaled.sort(-1, descending=True).values
    rank = torch.arange(ordered.shape[-1], device=scaled.device)[None]
    weight = (ordered - ordered[:, :1]).exp().masked_fill(rank >= keep, 0.0)
    total = torch.where(keep < vocab, weight.sum(-1, keepdim=True), (scaled - ordered[:, :1]).exp().sum(-1, keepdim=True))
    mass = weight / total
    # With top_p = 1 nothing is dropped because the sum before it was rounded up to 1.
    kept = ((mass.cumsum(-1) - mass < top_p[:, None]) | (top_p[:, None] >= 1)) & (rank < keep)
    kept[:, 0] = True
    threshold = ordered.gather(1, kept.sum(-1, keepdim=True) - 1)
    # Where a row keeps more than its head, the head shows neither the threshold nor, with top-k, the total mass.
    unsettled = ((kept[:, -1:] | (keep < vocab)) & (keep > ordered.shape[-1]))[:, 0].nonzero()[:, 0]
    if len(unsettled):
        threshold[unsettled] = threshold_reference(scaled[unsettled], top_k[unsettled], top_p[unsettled], 16 * head)
    return threshold


def sample_reference(logits: torch.Tensor, params: SamplingParams, min_p: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, vocabulary) → (rows,) int64, NOT_FINITE of rows without numbers. Ties go to the smaller token.

    `min_p` (rows,): tokens less probable than that share of the most probable one are dropped, too, as in transformers after top-p
    (Nguyen et al. 2024, arXiv:2407.01082).
    """
    best = logits.argmax(-1)
    tokens = best.clone()
    random = (params.temperature > 0).nonzero()[:, 0]
    if not len(random):
        return marked(tokens, logits, best)
    scaled = logits[random].float() / params.temperature[random, None]
    cut = ((params.top_k[random] > 0) | (params.top_p[random] < 1)).nonzero()[:, 0]
    if len(cut):
        threshold = torch.full_like(scaled[:, :1], -torch.inf)
        top_k, top_p = params.top_k[random][cut], params.top_p[random][cut]
        threshold[cut] = threshold_reference(scaled if len(cut) == len(random) else scaled[cut], top_k, top_p)
        scaled.masked_fill_(scaled < threshold, -torch.inf)
    if min_p is not None:
        scaled.masked_fill_(scaled < scaled.amax(-1, keepdim=True) + min_p[random, None].log(), -torch.inf)
    tokens[random] = _sample_softmax(scaled, tokens[random], params.seed[random], params.position[random])
    return marked(tokens, logits, best)


def marked(tokens: torch.Tensor, logits: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """The tokens, NOT_FINITE of rows whose logits are no numbers. `best`: the argmax, which is NaN where one of them is."""
    return tokens.masked_fill(~(logits.gather(-1, best[:, None])[:, 0] > -torch.inf), NOT_FINITE)


def _sample_softmax(scaled: torch.Tensor, best: torch.Tensor, seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(rows,): tokens distributed as the softmax of `scaled`. `best` is its argmax."""
    rows, vocab = scaled.shape
    pieces = -(-vocab // PIECE_TOKENS)
    peak = scaled.gather(1, best[:, None])
    if vocab % PIECE_TOKENS:
        scaled = torch.nn.functional.pad(scaled, (0, pieces * PIECE_TOKENS - vocab), value=-torch.inf)
    # Clamped where it cannot matter: on CPUs exp of minus infinity takes five times as long as exp of a finite number.
    weight = (scaled - peak).clamp_(min=-80).exp_().view(rows, pieces, PIECE_TOKENS).sum(-1)
    piece = (weight.log_() + piece_gumbel_noise(seed, position, pieces)).argmax(-1)
    scaled = scaled.view(rows, pieces, PIECE_TOKENS)
    inside = scaled[torch.arange(rows, device=piece.device), piece]
    return piece * PIECE_TOKENS + (inside + token_gumbel_noise(seed, position, piece)).argmax(-1)
