"""Levels of how much a model thinks, as `reasoning_effort` and its like name them on all wires: their order, and which is nearest. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["EFFORTS", "nearest", "rank"]

#: Least first.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def rank(effort: str) -> int:
    """The place of a level among EFFORTS; one that no other wire has stands in the middle."""
    return EFFORTS.index(effort) if effort in EFFORTS else EFFORTS.index("medium")


def nearest(efforts: Iterable[str], effort: str) -> str:
    """Of some levels the one nearest to this; of two as near the one that thinks more."""
    at = rank(effort)
    return min(efforts, key=lambda e: (abs(rank(e) - at), -rank(e)))
