"""What became of a pool's replicas: when, which, where, why, and how long their rows were without one. Knows neither seats nor Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from holynb.pool.server import lifecycle
from holynb.pool.server.replica import Generation

__all__ = ["Moves", "written_again"]

#: How many are kept.
_KEPT = 50
#: How often rows that moved are looked at.
_LOOK_S = 0.02


class Moves:
    """Of one pool; owned by its loop. `entries`: the last ones, for status and charts."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def note(self, number: int, nodes: list[str], what: str, why: str = "", rows: int = 0) -> dict[str, Any]:
        """Write down what became of replica `number`; `rows`: that went elsewhere."""
        entry = {"at": time.time(), "replica": number, "nodes": nodes, "what": what, "why": why, "rows": rows}
        self.entries.append(entry)
        del self.entries[:-_KEPT]
        lifecycle.log(
            f"replica {number} on {', '.join(nodes) or '?'}: {what}{f' ({why})' if why else ''}{f', {rows} rows moved' if rows else ''}"
        )
        return entry


async def written_again(entry: dict[str, Any], rows: Sequence[Generation]) -> None:
    """Add to an entry `again_s`: how long after it the last of its rows had a token elsewhere, or ended."""
    while any(not g.tokens and not g.done for g in rows):  # noqa: ASYNC110 - nobody else waits for them
        await asyncio.sleep(_LOOK_S)
    entry["again_s"] = round(time.time() - entry["at"], 2)
