"""The replicas of a pool on Ray: placed, loaded, started again where they die, more or fewer as the queue asks. Knows seats; no HTTP.

A dead replica's group is removed and Ray is asked for a new one, wherever there is room: the server waits for no node that may be gone.
Only a pool that never served ends for want of a place: one that did waits, until its lease or its idle time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ray.exceptions import RayError

from holynb.pool.fit import Mesh
from holynb.pool.protocol import LoadModel
from holynb.pool.ray.config import VERSION, RayConfig
from holynb.pool.ray.group import NoPlace, Placement, brief
from holynb.pool.ray.moves import Moves, written_again
from holynb.pool.ray.placement import lay
from holynb.pool.ray.remote import Door, RemoteRank
from holynb.pool.ray.resources import free_now
from holynb.pool.ray.weights import NodeWeights
from holynb.pool.server import Service, lifecycle
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.rank import Pings
from holynb.pool.server.replica import Replica

__all__ = ["RayReplicas"]

#: A rank that hangs: 3 s of silence, then a second in which its peers may say why, and its rows are sent elsewhere.
_PINGS = Pings(0.6, 5)
#: Where the cluster has room, how long Ray may take to find it.
_PLACE_S = 30.0
#: Pauses between starts of a replica that dies before it is ready; after the last one it stays away.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: How long a rank's process may take to connect.
_CONNECT_S = 60.0


class RayReplicas:
    """The replicas of one pool. Owned by the server's loop."""

    def __init__(self, config: RayConfig, service: Service, door: Door, key: str) -> None:
        self.config, self._service, self._door = config, service, door
        self.groups: dict[int, Placement] = {}
        self.replicas: dict[int, Replica] = {}
        self.weights = NodeWeights(config, service, key, self.groups)
        self.again = False
        """Whether Ray has started the server again, which serves nobody yet and waits for that as long as it takes."""
        self._apart: set[Replica] = set()
        """Made in that time: the pool's service knows nothing of them, and their end is not its end."""
        self.moves = Moves()
        self.nodes_alive: frozenset[str] | None = None
        """The addresses of the nodes that are; None: nobody has looked yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: Counter[int] = Counter()

    # -- start and stop ------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Place and load the fewest replicas, and serve them. Raises StartError."""
        low, _ = self.config.dp
        try:
            groups = await self._placed(low)
            await self.weights.check_fits(groups[0])
            self._service.set_stage(self._service.stage if self._service.stage.startswith("loading") else "loading the weights")
            replicas = [await self.launch(group) for group in groups]
            for replica in replicas:
                self._service.add_replica(replica)
            await self.weights.read_card(groups[0])
        except NoPlace as exc:
            raise StartError(str(exc)) from exc
        except RayError as exc:
            raise StartError(brief(exc)) from exc
        for ready in asyncio.as_completed([r.wait_ready() for r in replicas]):
            if not await ready:
                why = next((r.end_reason for r in replicas if r.end_reason), None)
                raise StartError(f"a replica did not start: {why}")
        self._set_ready()

    def serve(self, first: Sequence[Replica]) -> None:
        """Serve again, with these. Of the fewest that there are to be, the others are coming (`relaunch`)."""
        self.again = False
        self._apart -= {r for r in self.replicas.values() if r.end_reason is None}
        for replica in first:
            self._service.add_replica(replica)
        for _ in set(range(self.config.dp[0])) - {r.number for r in first}:
            self._service.expect_replica()
        self._set_ready()

    def _set_ready(self) -> None:
        service, tokenizer = self._service, self.weights.tokenizer
        assert tokenizer is not None  # noqa: S101 - whoever has a replica has read it
        service.restart_replica, service.pipe = self._restart, self.config.pp
        service.set_ready(tokenizer)
        nodes = [n for r in service.replicas for n in self.groups[r.number].nodes]
        lifecycle.log(f"ready: {self.config.name} on {', '.join(dict.fromkeys(nodes))}")

    async def _placed(self, count: int) -> list[Placement]:
        """Places for so many replicas, with the model on their nodes. Raises NoPlace, StartError, RayError."""
        self._service.set_stage("waiting for a place in the cluster")
        stages = await self._lay(count)
        groups = await asyncio.gather(*(self._group(n, max(self.config.wait, _PLACE_S), on) for n, on in enumerate(stages)))
        await self.weights.ready(groups)
        return groups

    async def stop(self) -> None:
        """End all ranks and give every resource back."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*(r.stop(1.0) for r in self.replicas.values()), return_exceptions=True)
        for group in self.groups.values():
            await asyncio.to_thread(group.remove)
        self.weights.close()

    # -- one replica ---------------------------------------------------------------------------------------------------
    async def _lay(self, count: int) -> list[Sequence[str]]:
        """For each of so many replicas the nodes of its stages, as `pool plan` says them; none without a place yet. Raises RayError."""
        laid = lay(self.config, await asyncio.to_thread(free_now), count).replicas
        return [*laid, *[()] * (count - len(laid))]

    async def _group(self, number: int, seconds: float | None, stages: Sequence[str] = ()) -> Placement:
        """A replica's place: on these nodes where they are free, or anywhere. Raises NoPlace, StartError, RayError."""
        if (old := self.groups.pop(number, None)) is not None:
            await asyncio.to_thread(old.remove)
        group = self.groups[number] = Placement(self.config, number, stages)
        await group.place(seconds, self._service.set_stage)
        if strange := next((f for f in group.facts if f["version"] != VERSION), None):
            raise StartError(
                f"the node {strange['address']} has holynb {strange['version']}, and this is {VERSION}. "
                "Install the same on every node, or pass --runtime-env."
            )
        return group

    async def launch(self, group: Placement, *, loaded: bool = False) -> Replica:
        """Start a replica's ranks and send them their loads; `loaded`: they run already, with their weights. Raises RayError."""
        config = self.config
        meeting = await group.seats[0].meeting.remote() if config.size > 1 and not loaded else ""
        ranks = []
        for rank, (seat, facts, folder) in enumerate(zip(group.seats, group.facts, group.folders, strict=True)):
            mesh = Mesh(config.tp, config.pp, rank, config.micro, meeting) if config.size > 1 else None
            beside = sum(f["node"] == facts["node"] for g in self.groups.values() for f in g.facts)
            share = config.memory if config.gpu else config.memory / max(1, beside)  # ranks on CPU share their node's memory
            load = LoadModel(folder, facts["device"], config.dtype, config.max_len, share, mesh, config.kv)
            how = partial(seat.hand.remote) if loaded else partial(seat.begin.remote, shared=len(group.nodes) == 1)
            ranks.append((partial(self._begin, seat, facts["address"], how), load))
        replica = Replica(ranks, self._on_replica_end, group.number)
        for one in replica.ranks:
            one.pings, one.loaded = _PINGS, loaded
        self.replicas[group.number] = replica
        if self.again:
            self._apart.add(replica)
        with contextlib.suppress(OSError):  # it has ended then, and says why
            await replica.start()
        return replica

    async def _begin(self, seat: Any, place: str, how: Callable[[tuple[str, int], bytes], Any]) -> RemoteRank:
        """Start one rank on its node, or have it connect to us (a `rank.Source`). Raises OSError where it does not come."""
        hello, coming = self._door.expect()
        try:
            async with asyncio.timeout(_CONNECT_S):
                pid = await how(self._door.address, hello)
                return RemoteRank(seat, await coming, pid, place)
        except (RayError, TimeoutError) as exc:
            raise OSError(f"its node {place} did not start it: {brief(exc)}") from exc
        finally:
            coming.cancel()

    # -- ends and restarts ---------------------------------------------------------------------------------------------
    def _on_replica_end(self, replica: Replica, reason: str, unfinished: list[Any]) -> None:
        if replica in self._apart:
            return
        nodes = self.groups[replica.number].nodes if replica.number in self.groups else []
        if self.replicas.get(replica.number) is replica and self._service.state == "ready":
            self.keep(written_again(self.moves.note(replica.number, nodes, "lost", reason, rows=len(unfinished)), unfinished))
        self._service.on_replica_end(replica, reason, unfinished)

    def _restart(self, replica: Replica) -> bool:
        """Begin to start a dead replica again. Returns whether."""
        if self.replicas.get(replica.number) is not replica or self._failures[replica.number] >= len(_PAUSES_S):
            return False
        self.keep(self.relaunch(replica.number))
        return True

    def keep(self, work: Any) -> None:
        """Run this until the pool ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            lifecycle.log(f"failed: {brief(exc)}")
            if self.again or not self._service.replicas:  # else the pool would wait for what nobody does any more
                self._service.fail(f"it cannot run: {brief(exc)}")

    async def relaunch(self, number: int) -> None:
        """Start this replica again, after a pause; the pool serves again with the first that comes."""
        await asyncio.sleep(_PAUSES_S[min(self._failures[number], len(_PAUSES_S) - 1)])
        if await self.bring(number) and not self._service.stopped.is_set():
            self._failures[number] = 0
            if self.again:
                self.serve([self.replicas[number]])
            else:
                self._service.add_replica(self.replicas[number], restarted=True)
            self.moves.note(number, self.groups[number].nodes, "started again")

    async def bring(self, number: int) -> bool:
        """Place and load a replica of a pool that has served; waits for a place as long as it takes.

        False where it died before it was ready: `on_replica_end` has been called then, which may begin the next try.
        """
        while True:
            try:
                group = await self._group(number, None)
                await self.weights.ready([group])
                if self.weights.tokenizer is None:
                    await self.weights.read_card(group)
                self._service.set_stage("loading the weights")
                replica = await self.launch(group)
            except (RayError, StartError, OSError) as exc:  # its node died under it, or it has no model: the next place may be better
                why = brief(exc)
            else:
                if await replica.wait_ready():
                    return True
                if await group.answers():  # a node that is gone is not the replica's failure
                    self._failures[number] += 1
                if replica not in self._apart:
                    return False
                why = replica.end_reason or "it ended"
            self.moves.note(number, [], "did not start", why)
            self._service.set_stage(f"replica {number} did not start, and is tried again: {why}")
            if self.again and min(self._failures[n] for n in range(self.config.dp[0])) >= len(_PAUSES_S):
                self._service.fail(f"a replica did not start: {why}")
            await asyncio.sleep(_PAUSES_S[-1] / 4)
