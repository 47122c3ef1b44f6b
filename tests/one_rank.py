"""One rank of the engine in this process, over a tiny model: its runner, and what it answers."""

from __future__ import annotations

from pathlib import Path

import tiny
from pool_fake import byte_model

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.runner import Runner
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.protocol import Job


def bytes_model(path: Path) -> Path:
    """A random model whose first 256 tokens are bytes."""
    byte_model(path)
    tiny.make("qwen3", path)
    return path


def runner(folder: Path, *, blocks: int | None = None, share: bool = True, **limits: int) -> Runner:
    """A runner with another cache and other limits than the machine would give it. `blocks`: for each group of layers."""
    made = Runner(folder)
    made.blocks = BlockAllocator(
        blocks * made.blocks.groups if blocks else made.blocks.total, made.blocks.size, share=share, windows=made.blocks.windows
    )
    made.scheduler = BatchScheduler(made.blocks, BatchLimits(**{"batch": 64, "chunk": 512, "max_len": 512} | limits))
    return made


def answers(made: Runner, jobs: list[Job]) -> dict[int, list[int]]:
    """Job → its tokens."""
    said: dict[int, list[int]] = {j.id: [] for j in jobs}
    for job in jobs:
        made.add(job)
    while not made.idle:
        for emit in made.step():
            said[emit.id] += emit.tokens
    return said
