"""How much an engine takes at once. What a plan decides, and a scheduler holds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BatchLimits"]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`batch`: sequences at once. `chunk`: prompt tokens in one step. `max_len`: tokens of one sequence, prompt and answer."""

    batch: int = 256
    chunk: int = 8192
    max_len: int = 4096
