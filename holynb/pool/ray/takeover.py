"""The ranks of a server that is gone, taken over with their weights by the one that Ray starts in its place. Knows seats; no HTTP.

What was under way there is nobody's now: clients send it again. A replica of which a rank, a seat or a node does not answer is not taken
over: its place is removed, and a new one is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ray.exceptions import RayError

from holynb.pool.ray.config import VERSION
from holynb.pool.ray.group import Placement, brief, left_behind
from holynb.pool.server.lifecycle import StartError

if TYPE_CHECKING:
    from holynb.pool.ray.replicas import RayReplicas
    from holynb.pool.server.replica import Replica

__all__ = ["take_over"]

#: How long a replica may take to answer: its seats, and its ranks in the middle of a step.
_ANSWER_S = 10.0


async def take_over(replicas: RayReplicas) -> list[Replica]:
    """The replicas that answer, ready. `replicas` has them and their places; the pool's service does not have them yet."""
    places = await asyncio.to_thread(left_behind, replicas.config)
    answers = await asyncio.gather(*(_taken(replicas, place) for place in places))
    replicas.taking.clear()
    alive = [replica for replica in answers if replica is not None and replica.end_reason is None]
    for number in set(replicas.replicas) - {replica.number for replica in alive}:  # it ended while others were asked
        del replicas.replicas[number]
    return alive


async def _taken(replicas: RayReplicas, place: Placement) -> Replica | None:
    why = "it does not answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            try:
                replica = await _answering(replicas, place)
            except (RayError, StartError, OSError, ValueError) as exc:
                why = brief(exc)
            else:
                if replica.end_reason is None:
                    replicas.moves.note(place.number, place.nodes, "taken over")
                    return replica
                why = replica.end_reason
    replicas.moves.note(place.number, place.nodes, "not taken over", why)
    replicas.groups.pop(place.number, None)
    if (left := replicas.replicas.pop(place.number, None)) is not None:
        await left.stop(0.0)
        replicas.taking.discard(left)
    await asyncio.to_thread(place.remove)
    return None


async def _answering(replicas: RayReplicas, place: Placement) -> Replica:
    """The replica at this place, ready or ended. Raises ValueError, StartError, OSError, RayError."""
    await place.find()
    if any(f["version"] != VERSION or f["pool"] != replicas.config.same for f in place.facts):
        raise ValueError("it is another pool's")
    await replicas.ready_weights([place])
    replicas.groups[place.number] = place
    replica = await replicas.launch(place, loaded=True)
    await replica.wait_ready()
    return replica
