"""More replicas while rows wait, fewer while some have nothing to do: bounds, patience, a pause after each change. The policy is pure."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holynb.pool.ray.config import RayConfig

if TYPE_CHECKING:
    from holynb.pool.ray.replicas import RayReplicas
    from holynb.pool.server import Service
    from holynb.pool.server.replica import Replica

__all__ = ["ScalePolicy", "scale"]

#: Seconds between two looks.
_LOOK_S = 0.5


@dataclass(slots=True)
class ScalePolicy:
    """When to change the number of replicas. `rows`: that must wait for each replica; `patience`: seconds that it must last.

    `idle`: seconds without work in some replica before one goes; `pause`: seconds after a change in which there is no other.
    """

    low: int
    high: int
    rows: int = 1
    patience: float = 2.0
    idle: float = 60.0
    pause: float = 5.0
    _crowded: float | None = field(default=None, init=False)
    _spare: float | None = field(default=None, init=False)
    _changed: float = field(default=float("-inf"), init=False)

    def step(self, now: float, replicas: int, queued: int, unused: int) -> int:
        """+1, -1 or 0. `replicas`: that are there or coming; `queued`: rows that wait; `unused`: replicas without a row."""
        crowded, spare = queued >= self.rows * replicas and queued > 0, unused > 0 and queued == 0
        self._crowded = (self._crowded if self._crowded is not None else now) if crowded else None
        self._spare = (self._spare if self._spare is not None else now) if spare else None
        if now - self._changed < self.pause:
            return 0
        if self._crowded is not None and now - self._crowded >= self.patience and replicas < self.high:
            self._changed = now
            return 1
        if self._spare is not None and now - self._spare >= self.idle and replicas > self.low:
            self._changed, self._spare = now, None
            return -1
        return 0


async def scale(config: RayConfig, service: Service, replicas: RayReplicas) -> None:
    """Keep the number of replicas between the bounds of `--dp LOW..HIGH`, for as long as the pool runs."""
    low, high = config.dp
    if low == high:
        return
    policy = ScalePolicy(low, high)
    while True:
        await asyncio.sleep(_LOOK_S)
        if service.state != "ready":
            continue
        live = list(replicas.replicas.values())
        unused = [r for r in live if r.end_reason is None and not r.generations and r in service.replicas]
        there = {*replicas.replicas, *replicas.groups}  # also one that waits for a place
        change = policy.step(time.monotonic(), len(there), service.queued, len(unused))
        if change > 0:
            number = next(n for n in range(high) if n not in there)
            replicas.keep(_grow(number, service, replicas))
        elif change < 0 and unused and len(service.replicas) > low:  # one that waits for its place serves nobody yet
            replicas.keep(_shrink(unused[-1], service, replicas))


async def _grow(number: int, service: Service, replicas: RayReplicas) -> None:
    replicas.moves.note(number, [], "asked for", f"{service.queued} rows wait")
    service.expect_replica()
    if await replicas.bring(number):
        service.add_replica(replicas.replicas[number], restarted=True)
        replicas.moves.note(number, replicas.groups[number].nodes, "added")


async def _shrink(replica: Replica, service: Service, replicas: RayReplicas) -> None:
    number, nodes = replica.number, replicas.groups[replica.number].nodes
    service.retire(replica)
    while replica.generations:  # noqa: ASYNC110 - its rows end when they end
        await asyncio.sleep(_LOOK_S)
    del replicas.replicas[number]
    await replica.stop()
    group = replicas.groups.pop(number)
    await asyncio.to_thread(group.remove)
    replicas.moves.note(number, nodes, "removed", "nothing to do")
