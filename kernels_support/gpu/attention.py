"""Attention over a paged KV cache, in plain torch: queries of many sequences, keys and values wherever their blocks lie.

The cache is (KV heads, slots, size) for one layer; a sequence's tokens lie in runs of slots. One run is a view, so a sequence
that could grow in place costs no copy; several are joined first. `paged.py` beside this does the same by Triton.
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
    found: list[tuple[int, int]] = []
    left = length
    for block in blocks:
        if left <= 0:
            break
        first = block * size
        n = min(size, left)
        left -= n
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], first + n)
        else:
            found.append((first, first + n))
    return found


def causal(queries: int, keys: int, group: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor | None:
    """What the last `queries` of `keys` positions may see, once for each query head of a group; None where they may see all."""
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
        k, v = _joined(keys, span.runs), _joined(values, span.runs)
        rows = q[span.start : span.stop].view(n, kv, -1, size)
        rows = rows if n == 1 else rows.permute(1, 2, 0, 3).reshape(1, kv, -1, size)
        said = scaled_dot_product_attention(rows, k[None], v[None], attn_mask=span.mask)
        if n > 1:
            said = said.view(kv, -1, n, size).permute(2, 0, 1, 3)
        out[span.start : span.stop] = said.reshape(n, -1, size)
    return out


def _joined(pages: torch.Tensor, spans: list[tuple[int, int]]) -> torch.Tensor:
    if len(spans) == 1:
        return pages[:, spans[0][0] : spans[0][1]]
    return torch.cat([pages[:, a:b] for a, b in spans], 1)
