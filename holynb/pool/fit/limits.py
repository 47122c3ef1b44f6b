"""How much an engine takes at once. What a plan decides, and a scheduler holds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MIN_KV_TOKENS", "BatchLimits"]

#: KV tokens that a pool should have to be worth starting.
MIN_KV_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`batch`: sequences at once. `chunk`: prompt tokens in one step. `max_len`: tokens of one sequence, prompt and answer.

    `firm`: this `max_len` is wanted, and a cache that holds no such sequence is too small; else sequences are as long as it holds.
    """

    batch: int = 256
    chunk: int = 8192
    max_len: int = 4096
    firm: bool = False

    @property
    def least_cache(self) -> int:
        """Tokens that a replica's KV cache has to hold."""
        return self.max_len if self.firm else min(MIN_KV_TOKENS, self.max_len)
