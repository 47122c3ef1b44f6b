"""The order in which rows go to a pool: those whose prompts begin alike follow each other, so that each beginning is prefilled once. Pure.

A pool finds a beginning that it has computed in its KV cache as long as that has room for it. Rows whose documents take turns drive each
other's out. This is the depth-first order of the tree of their prefixes, which shares as much as a cache can (SGLang: Zheng et al. 2023,
arXiv:2312.07104, theorem 3.1). Siblings stay in the order of the input, and so do rows that share nothing. Only this run's own rows are
moved: among runs a pool serves first come, first served. Results stand in the order of the input, as always.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from holynb.scheduler import WorkItem
from holynb.types import Request, Route

__all__ = ["arranged", "windows"]

#: Characters that are compared at once: about one block of a pool's KV cache.
BLOCK_CHARS = 64
#: Rows that are arranged together, so that none is moved far behind those of its neighbourhood.
WINDOW = 4_096


def arranged(items: Sequence[WorkItem]) -> list[WorkItem]:
    """The items, those for pools in the order of their prefixes."""
    if not any(item.request.route.provider == "pool" for item in items):
        return list(items)
    out: list[WorkItem] = []
    for start in range(0, len(items), WINDOW):
        window = items[start : start + WINDOW]
        texts = [_text(item.request) if item.request.route.provider == "pool" else "" for item in window]
        out += [window[i] for i in order(texts)]
    return out


def windows(items: Iterator[WorkItem], route: Route) -> Iterator[WorkItem]:
    """Items for one route, arranged as they are taken, a window at a time."""
    if route.provider != "pool":
        yield from items
        return
    while window := list(islice(items, WINDOW)):
        yield from arranged(window)


def _text(request: Request) -> str:
    return "\0".join((str(request.route), *(part for m in request.messages for part in (m.role, m.content))))


def order(texts: Sequence[str]) -> list[int]:
    """Numbers of the texts, those with the same beginning after each other."""
    out: list[int] = []
    groups = [(list(range(len(texts))), 0)] if texts else []
    while groups:
        group, at = groups.pop()
        low, high = min(texts[i] for i in group), max(texts[i] for i in group)
        while low[at : at + BLOCK_CHARS] == high[at : at + BLOCK_CHARS] and at < len(low):
            at += BLOCK_CHARS  # what these two share, all share
        parts: dict[str, list[int]] = {}
        for i in group:
            parts.setdefault(texts[i][at : at + BLOCK_CHARS], []).append(i)
        if len(group) < 3 or len(parts) in (1, len(group)):
            out += group
        else:
            groups += [(part, at + BLOCK_CHARS) for part in reversed(parts.values())]
    return out
