"""What the index of `--compare` and `--samples` says: which rows answer the same prompt, by which route. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["compared_routes", "pairs", "prompt_labels", "variants"]

#: The index levels that `--compare` and `--samples` add.
VARIANT_LEVELS = ["asked_route", "sample"]


def pairs(index: Any) -> list[tuple[str, int]]:
    """Route and sample of each row of one prompt, from the levels that a crossed index ends in; empty of any other index."""
    if index is None or list(index.names[-2:]) != VARIANT_LEVELS or not len(index):
        return []
    return list(dict.fromkeys((str(label[-2]), int(label[-1])) for label in index.tolist()))


def variants(index: Any) -> tuple[str, ...]:
    """Routes, samples, or both, from the levels that a crossed index ends in; `()` of any other index, or where there is one."""
    if index is None or list(index.names[-2:]) != VARIANT_LEVELS or not len(index):
        return ()
    pairs = list(dict.fromkeys(label[-2:] for label in index.tolist()))
    if len(pairs) == 1:
        return ()
    routes, samples = {r for r, _ in pairs}, {k for _, k in pairs}
    if len(samples) == 1:
        return tuple(str(r) for r, _ in pairs)
    return tuple(f"sample {k}" if len(routes) == 1 else f"{r}, sample {k}" for r, k in pairs)


def compared_routes(index: Any) -> tuple[str, ...]:
    """The route of each of the rows of one prompt, which follow each other, where `--compare` sent it to several; else `()`."""
    if not variants(index):
        return ()
    pairs = list(dict.fromkeys(label[-2:] for label in index.tolist()))
    routes = tuple(str(route) for route, _ in pairs)
    return routes if len(set(routes)) > 1 else ()


def prompt_labels(index: Any) -> Sequence[object]:
    """The index labels of the input, one per row, of an index that has `variants`."""
    from holynb.results import index_labels

    def of_input(_row: int, label: Any) -> object:
        return label[0] if len(label) == len(VARIANT_LEVELS) + 1 else tuple(label[: -len(VARIANT_LEVELS)])

    return index_labels.changed(index_labels.labels(index), of_input)
