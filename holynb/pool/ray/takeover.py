"""The ranks of a server that is gone, taken over with their weights by the one that Ray starts in its place. Knows seats; no HTTP.

What was under way there is nobody's now: clients send it again. A replica of which a rank, a seat or a node does not answer is not taken
over: its place is removed, and a new one is asked for. Ray may have none for minutes, until it knows that a node is gone: the pool waits.
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

__all__ = ["come_again"]

#: How long a replica may take to answer: its seats, and its ranks in the middle of a step.
_ANSWER_S = 10.0


async def come_again(replicas: RayReplicas) -> None:
    """Serve with the replicas that answer; where none does, with the first that has a place again, however long that takes."""
    replicas.again = True
    taken = await _take_over(replicas)
    for replica in taken:
        with contextlib.suppress(RayError, StartError, TimeoutError):  # its node is gone meanwhile
            async with asyncio.timeout(_ANSWER_S):
                await replicas.weights.read_card(replicas.groups[replica.number])
            break
    alive = [r for r in taken if r.end_reason is None and replicas.weights.tokenizer is not None]
    for number in set(replicas.groups) - {r.number for r in alive}:  # it ended while others were asked
        replicas.replicas.pop(number, None)
        replicas.keep(asyncio.to_thread(replicas.groups.pop(number).remove))
    for number in set(range(replicas.config.dp[0])) - {r.number for r in alive}:
        replicas.keep(replicas.relaunch(number))
    if alive:
        replicas.serve(alive)


async def _take_over(replicas: RayReplicas) -> list[Replica]:
    """The replicas that answer, ready. `replicas` has them and their places; the pool's service does not have them yet."""
    places = await asyncio.to_thread(left_behind, replicas.config)
    return [r for r in await asyncio.gather(*(_taken(replicas, place) for place in places)) if r is not None]


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
    await asyncio.to_thread(place.remove)
    return None


async def _answering(replicas: RayReplicas, place: Placement) -> Replica:
    """The replica at this place, ready or ended. Raises ValueError, StartError, OSError, RayError."""
    await place.find()
    if any(f["version"] != VERSION or f["pool"] != replicas.config.same for f in place.facts):
        raise ValueError("it is another pool's")
    await replicas.weights.ready([place])
    replicas.groups[place.number] = place
    replica = await replicas.launch(place, loaded=True)
    await replica.wait_ready()
    return replica
