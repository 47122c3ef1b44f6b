"""Attention over a paged KV cache (PagedAttention, Kwon et al. 2023, arXiv:2309.06180) in plain torch: the reference for `paged.py`.

The cache is (KV heads, slots, size) for one layer; a sequence's tokens lie in ranges of slots. One range is a view, so a sequence
whose blocks are consecutive costs no copy; several ranges are concatenated first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels_support.gpu.quantize_fp8 import FP8

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


def attend_reference(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None = None, *, spans: Sequence[Span]
) -> torch.Tensor:
    """(tokens, heads, size) → the same shape. Query heads are grouped over KV heads in order.

    `scales`: float32 (2, KV heads) of keys and values in FP8, which are widened to q's dtype.
    """
    kv, size = keys.shape[0], q.shape[2]
    by_key, by_value = (None, None) if scales is None else scales.to(q.dtype)
    out = torch.empty_like(q)
    for span in spans:
        n = span.stop - span.start
        k, v = _gather(keys, span.runs, q.dtype, by_key), _gather(values, span.runs, q.dtype, by_value)
        queries = q[span.start : span.stop].view(n, kv, -1, size)
        queries = queries if n == 1 else queries.permute(1, 2, 0, 3).reshape(1, kv, -1, size)
        attended = scaled_dot_product_attention(queries, k[None], v[None], attn_mask=span.mask)
        if n > 1:
            attended = attended.view(kv, -1, n, size).permute(2, 0, 1, 3)
        out[span.start : span.stop] = attended.reshape(n, -1, size)
    return out


def _gather(cache: torch.Tensor, ranges: list[tuple[int, int]], dtype: torch.dtype, scale: torch.Tensor | None) -> torch.Tensor:
    tokens = cache[:, ranges[0][0] : ranges[0][1]] if len(ranges) == 1 else torch.cat([cache[:, a:b] for a, b in ranges], 1)
    return tokens if scale is None or cache.dtype != FP8 else tokens.to(dtype) * scale[:, None, None]
