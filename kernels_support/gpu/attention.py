"""Attention over a paged KV cache (PagedAttention, Kwon et al. 2023, arXiv:2309.06180) in plain torch: the reference for `paged.py`.

The cache is (KV heads, slots, size) for one layer; a sequence's tokens lie in ranges of slots. One range is a view, so a sequence
whose blocks are consecutive costs no copy; several ranges are concatenated first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["Span", "attend_reference", "causal", "runs"]


@dataclass(slots=True)
class Span:
    """Queries `start` to `stop` belong to one sequence, whose keys lie in `runs` of slots. `mask`: (1, 1, group × queries, keys)."""

    start: int
    stop: int
    runs: list[tuple[int, int]]
    mask: torch.Tensor | None = None


def runs(blocks: Sequence[int], size: int, length: int) -> list[tuple[int, int]]:
    """Half-open ranges of slots that hold `length` tokens, in order."""
    ranges: list[tuple[int, int]] = []
    left = length
    for block in blocks:
        if left <= 0:
            break
        first = block * size
        n = min(size, left)
        left -= n
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], first + n)
        else:
            ranges.append((first, first + n))
    return ranges


def causal(queries: int, keys: int, group: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor | None:
    """Causal mask of the last `queries` of `keys` positions, repeated for each query head of a group; None where nothing is masked."""
    if queries == 1:
        return None
    mask = torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu_(keys - queries + 1)
    return mask.repeat(group, 1)[None, None]


def attend_reference(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """(tokens, heads, size) → the same shape. Query heads are grouped over KV heads in order."""
    kv, size = keys.shape[0], q.shape[2]
    out = torch.empty_like(q)
    for span in spans:
        n = span.stop - span.start
        k, v = _gather(keys, span.runs), _gather(values, span.runs)
        queries = q[span.start : span.stop].view(n, kv, -1, size)
        queries = queries if n == 1 else queries.permute(1, 2, 0, 3).reshape(1, kv, -1, size)
        attended = scaled_dot_product_attention(queries, k[None], v[None], attn_mask=span.mask)
        if n > 1:
            attended = attended.view(kv, -1, n, size).permute(2, 0, 1, 3)
        out[span.start : span.stop] = attended.reshape(n, -1, size)
    return out


def _gather(cache: torch.Tensor, ranges: list[tuple[int, int]]) -> torch.Tensor:
    if len(ranges) == 1:
        return cache[:, ranges[0][0] : ranges[0][1]]
    return torch.cat([cache[:, a:b] for a, b in ranges], 1)
