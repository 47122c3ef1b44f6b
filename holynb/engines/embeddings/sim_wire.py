"""Simulated vectors: as long as one asks, of length 1, the same for the same text, near each other where texts share words. No network.

Faults, pauses and token counts are the simulator's (`-p fault=429`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from holynb.engines.sim import Sim, tokens
from holynb.types import Delta, Done, Request, Timeouts

__all__ = ["DIMENSIONS", "SimEmbeddings"]

#: Where nobody asks for another number.
DIMENSIONS = 64


class SimEmbeddings(Sim):
    """The simulator, giving vectors."""

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]:
        """One Done, with the vectors. Raises Fault, like any engine."""
        async for item in super().send(replace(request, stream=False), timeouts):
            if isinstance(item, Done):
                size = (request.embedding.dimensions if request.embedding else None) or DIMENSIONS
                embedded = tuple(_vector(m.content, size) for m in request.messages)
                usage = replace(item.completion.usage, tokens_out=0, tokens_reasoning=None)
                answer = replace(
                    item.completion, text="", finish_reason="stop", usage=usage, thinking=False, reasoning=None, vectors=embedded
                )
                yield Done(answer, item.limits)


def _vector(text: str, size: int) -> bytes:
    """The sum of its words' own vectors."""
    import numpy as np

    whole = np.zeros(size)
    for word in tokens(text.casefold()) or [text]:
        seed = int.from_bytes(hashlib.sha256(word.strip().encode("utf-8", "surrogatepass")).digest()[:8])
        whole += np.random.default_rng(seed).standard_normal(size)
    length = float(np.linalg.norm(whole)) or 1.0
    return (whole / length).astype("<f4").tobytes()
