"""A scheduler's counters and sizes, as a rank tells them. Knows no frames and no torch."""

from __future__ import annotations

from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.rankstats import RankStats

__all__ = ["batch_figures"]


def batch_figures(scheduler: BatchScheduler) -> RankStats:
    """What of a rank's stats its scheduler knows."""
    blocks, speculation = scheduler.blocks, scheduler.speculation
    return {
        "running": len(scheduler.running),
        "waiting": len(scheduler.waiting),
        "batch": scheduler.batch_cap,
        "oom": scheduler.ooms,
        "preempted": scheduler.preempted,
        # As if nothing slid: a token has a place in each group.
        "kv_used": (blocks.total - blocks.free) * blocks.size // blocks.groups,
        "kv_total": blocks.total * blocks.size // blocks.groups,
        "tokens_in": scheduler.tokens_in,
        "tokens_out": scheduler.tokens_out,
        "tokens_shared": scheduler.tokens_shared,
        "tokens_guessed": speculation.guessed,
        "tokens_accepted": speculation.accepted,
    }
