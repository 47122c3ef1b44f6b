"""Attention over a paged KV cache (PagedAttention, Kwon et al. 2023, arXiv:2309.06180) in plain torch: the reference for `paged.py`.

The cache is (KV heads, slots, size) for one layer; a sequence's tokens lie in ranges of slots. One range is a view, so a sequence
whose blocks are consecutive costs no copy; several ranges are concatenated first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels_support.gpu.quantize_fp8 import FP8

__all__ = ["PLAIN", "AttentionKind", "Span", "attend_reference", "attend_span", "causal", "runs"]


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """What tells the attention of one layer from another's. `scale` multiplies scores (None: size ** -0.5).

    `cap` bounds them, as cap · tanh(score / cap) (Gemma 2, arXiv:2408.00118; 0: not at all). `window`: how many keys a query sees, its own
    included (Longformer, Beltagy et al. 2020, arXiv:2004.05150; 0: all before it). `sinks` (heads,): one more score of each head, which
    takes its share of the softmax and has no value (gpt-oss, arXiv:2508.10925). `eights`: the product behind it takes FP8 with a scale a
    row, (tokens, heads · size), so that its output may come so.
    """

    scale: float | None = None
    cap: float = 0.0
    window: int = 0
    sinks: torch.Tensor | None = field(default=None, compare=False)
    eights: bool = False


#: Attention as most layers have it.
PLAIN = AttentionKind()


@dataclass(slots=True)
class Span:
    """Queries `start` to `stop` belong to one sequence, whose keys lie in `runs` of slots. `mask`: (1, 1, group × queries, keys)."""

    start: int
    stop: int
    runs: list[tuple[int, int]]
    mask: torch.Tensor | None = None


def runs(blocks: Sequence[int], size: int, length: int, start: int = 0) -> list[tuple[int, int]]:
    """Half-open ranges of slots that hold the tokens from `start` to `length`, in order."""
    ranges: list[tuple[int, int]] = []
    for index in range(start // size, -(-length // size)):
        skipped = max(0, start - index * size)
        first = blocks[index] * size + skipped
        n = min(size, length - index * size) - skipped
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], first + n)
        else:
            ranges.append((first, first + n))
    return ranges


def causal(  # noqa: PLR0917 - what a mask needs
    queries: int, keys: int, group: int, dtype: torch.dtype, device: torch.device | str = "cpu", window: int = 0
) -> torch.Tensor | None:
    """Causal mask of the last `queries` of `keys` positions, repeated for each query head of a group; None where nothing is masked.

    `window`: how many keys each query sees, its own included (0: all before it).
    """
    if queries == 1 and not 0 < window < keys:
        return None
    mask = torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu_(keys - queries + 1)
    if window:
        mask += torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).tril_(keys - queries - window)
    return mask.repeat(group, 1)[None, None]


def attend_span(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, kind: AttentionKind) -> torch.Tensor:
    """(1, heads, queries, size) over as many heads of keys and values; the mask is added to the scores.

    Several query heads may lie below each other as the queries of one head: each one's sink then counts for its share of them.
    """
    if not kind.cap and kind.sinks is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=kind.scale)
    scores = q.float() @ k.float().transpose(-1, -2) * (kind.scale or q.shape[-1] ** -0.5)
    scores = kind.cap * torch.tanh(scores / kind.cap) if kind.cap else scores
    scores = scores if mask is None else scores + mask
    if kind.sinks is None:
        return torch.softmax(scores, -1).to(q.dtype) @ v
    sinks = kind.sinks.float().view(q.shape[1], -1, 1).expand(-1, -1, q.shape[1] * q.shape[2] // kind.sinks.shape[0])
    weights = torch.softmax(torch.cat((scores, sinks.reshape(1, *q.shape[1:3], 1)), -1), -1)
    return weights[..., :-1].to(q.dtype) @ v


def attend_reference(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None = None,
    kind: AttentionKind = PLAIN,
    *,
    spans: Sequence[Span],
) -> torch.Tensor:
    """(tokens, heads, size) → the same shape. Query heads are grouped over KV heads in order.

    `scales`: float32 (2, KV heads) of keys and values in FP8, which are widened to q's dtype.
    """
    kv, size = keys.shape[0], q.shape[2]
    by_key, by_value = (None, None) if scales is None else scales.to(q.dtype)
    if len(spans) == 1 == q.shape[0] and scales is None:  # one row: what decides how fast it is here is the number of operations
        k, v = (_gather(cache, spans[0].runs, q.dtype, None)[None] for cache in (keys, values))
        return attend_span(q.view(1, kv, -1, size), k, v, spans[0].mask, kind).reshape(1, -1, size)
    out = torch.empty_like(q)
    for span in spans:
        n = span.stop - span.start
        k, v = _gather(keys, span.runs, q.dtype, by_key), _gather(values, span.runs, q.dtype, by_value)
        queries = q[span.start : span.stop].view(n, kv, -1, size)
        queries = queries if n == 1 else queries.permute(1, 2, 0, 3).reshape(1, kv, -1, size)
        attended = attend_span(queries, k[None], v[None], span.mask, kind)
        if n > 1:
            attended = attended.view(kv, -1, n, size).permute(2, 0, 1, 3)
        out[span.start : span.stop] = attended.reshape(n, -1, size)
    return out


def _gather(cache: torch.Tensor, ranges: list[tuple[int, int]], dtype: torch.dtype, scale: torch.Tensor | None) -> torch.Tensor:
    tokens = cache[:, ranges[0][0] : ranges[0][1]] if len(ranges) == 1 else torch.cat([cache[:, a:b] for a, b in ranges], 1)
    return tokens if scale is None or cache.dtype != FP8 else tokens.to(dtype) * scale[:, None, None]
