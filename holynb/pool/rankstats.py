"""The counters and sizes that a rank tells its server. Knows no frames and no torch."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["RankStats"]


class RankStats(TypedDict, total=False):
    """A rank's counters and sizes, for metrics. What a runner does not know is left out. `memory_*` are of its device, in bytes.

    `tokens_guessed`: looked up ahead and verified; `tokens_accepted`: those that were right.
    """

    running: int
    waiting: int
    batch: int
    oom: int
    preempted: int
    kv_used: int
    kv_total: int
    tokens_in: int
    tokens_out: int
    tokens_shared: int
    tokens_guessed: int
    tokens_accepted: int
    weights_bytes: int
    kv_bytes: int
    device: str
    memory_total: int
    memory_used: int
    memory_ours: int | None
    dtype: str
    max_len: int | None
    stage: int
    flights: int
    busy: float | None
