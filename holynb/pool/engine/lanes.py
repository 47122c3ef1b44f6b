"""Rows over the batches that are in flight at a time on a pipeline. Knows sequences; no blocks and no torch."""

from __future__ import annotations

from collections.abc import Sequence

from holynb.pool.engine.sequence import Seq

__all__ = ["balance"]


def balance(running: Sequence[Seq], count: int) -> bool:
    """If the fullest and the emptiest of `count` lanes differ by more than a quarter of the fullest, half of the difference moves over.

    Returns whether they did.
    """
    lanes: list[list[Seq]] = [[] for _ in range(count)]
    for seq in running:
        if seq.prefilled:
            lanes[seq.lane].append(seq)
    fullest, emptiest = max(lanes, key=len), min(lanes, key=len)
    difference = len(fullest) - len(emptiest)
    if difference <= 1 or 4 * difference <= len(fullest):
        return False
    target = lanes.index(emptiest)
    for seq in fullest[-(difference // 2) :]:
        seq.lane = target
    return True
