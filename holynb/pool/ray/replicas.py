"""The replicas of a pool on Ray: placed, loaded, started again where they die, more or fewer as the queue asks. Knows seats; no HTTP.

A dead replica's group is removed and Ray is asked for a new one, wherever there is room: the server waits for no node that may be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from holynb.pool.fit import Mesh
from holynb.pool.protocol import LoadModel
from holynb.pool.ray import sending
from holynb.pool.ray.config import VERSION, RayConfig
from holynb.pool.ray.group import NoPlace, Placement, brief
from holynb.pool.ray.moves import Moves, written_again
from holynb.pool.ray.placement import lay
from holynb.pool.ray.remote import Door, RemoteRank
from holynb.pool.ray.resources import free_now
from holynb.pool.server import Service, lifecycle
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.pooling import read_pooling
from holynb.pool.server.rank import Pings
from holynb.pool.server.replica import Replica
from holynb.pool.server.tokenizer import ChatTokenizer, TokenizerFileError

__all__ = ["RayReplicas"]

#: A rank that hangs: 3 s of silence, then a second in which its peers may say why, and its rows are sent elsewhere.
_PINGS = Pings(0.6, 5)
#: Where the cluster has room, how long Ray may take to find it.
_PLACE_S = 30.0
#: Pauses between starts of a replica that dies before it is ready; after the last one it stays away.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: How long a rank's process may take to connect.
_CONNECT_S = 60.0
#: How long a client may take to send a model.
_SEND_S = 3600.0


class RayReplicas:
    """The replicas of one pool. Owned by the server's loop."""

    def __init__(self, config: RayConfig, service: Service, door: Door, key: str) -> None:
        self.config, self._service, self._door, self._key = config, service, door, key
        self.needs: dict[str, str] = {}
        """Nodes that lack the model, each with the name of a seat there: a client that has it sends it."""
        self.groups: dict[int, Placement] = {}
        self.replicas: dict[int, Replica] = {}
        self.taking: set[Replica] = set()
        """Those that are being taken over, of which the pool knows nothing yet."""
        self.moves = Moves()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures = 0
        self._delivered = asyncio.Event()
        self._refusal = ""
        self._card = tempfile.TemporaryDirectory(prefix="holynb-card-")

    # -- start and stop ------------------------------------------------------------------------------------------------
    async def start(self, taken: Sequence[Replica] = ()) -> None:
        """Serve the fewest replicas: those taken over, or else placed and loaded. Raises StartError."""
        config, service = self.config, self._service
        low, _ = config.dp
        try:
            groups = [self.groups[replica.number] for replica in taken] or await self._placed(low)
            await self._read_card(groups[0])
            service.set_stage(service.stage if service.stage.startswith("loading") else "loading the weights")
            for replica in taken or [await self.launch(group) for group in groups]:
                service.add_replica(replica)
        except NoPlace as exc:
            raise StartError(str(exc)) from exc
        except RayError as exc:
            raise StartError(brief(exc)) from exc
        try:
            tokenizer = await asyncio.to_thread(ChatTokenizer, Path(self._card.name))
        except TokenizerFileError as exc:
            raise StartError(str(exc)) from exc
        for ready in asyncio.as_completed([r.wait_ready() for r in [*self.replicas.values()]]):
            if not await ready:
                why = next((r.end_reason for r in self.replicas.values() if r.end_reason), None)
                raise StartError(f"a replica did not start: {why}")
        service.restart_replica = self._restart
        service.pipe, service.pooling = config.pp, read_pooling(Path(self._card.name))
        service.set_ready(tokenizer)
        lifecycle.log(f"ready: {config.name} on {', '.join(dict.fromkeys(n for g in groups for n in g.nodes))}")
        for number in set(range(low)) - set(self.replicas):
            service.expect_replica()
            self.keep(self._relaunch(number))

    async def _placed(self, count: int) -> list[Placement]:
        """Places for so many replicas, with the model on their nodes. Raises NoPlace, StartError, RayError."""
        self._service.set_stage("waiting for a place in the cluster")
        stages = await self._lay(count)
        groups = await asyncio.gather(*(self._group(n, max(self.config.wait, _PLACE_S), on) for n, on in enumerate(stages)))
        await self.ready_weights(groups)
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
        self._card.cleanup()

    def delivered(self, refusal: str) -> None:
        """A client has sent the model to the nodes that lacked it, or says why it cannot."""
        self._refusal = refusal
        self._delivered.set()

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
        await group.place(seconds, self._service.set_stage if self._service.state == "starting" else lambda text: None)
        if strange := next((f for f in group.facts if f["version"] != VERSION), None):
            raise StartError(
                f"the node {strange['address']} has holynb {strange['version']}, and this is {VERSION}. "
                "Install the same on every node, or pass --runtime-env."
            )
        return group

    async def ready_weights(self, groups: list[Placement]) -> None:
        """See to it that each node has the model: found, fetched there, or sent. Raises StartError, RayError."""
        self._service.set_stage("making the weights ready on the nodes")
        telling = asyncio.create_task(self._tell_stage(groups[0].seats[0]))
        try:
            for last in (False, True):
                answers = await asyncio.gather(*(seat.prepare.remote(self._key) for g in groups for seat in g.seats))
                places = [(f["address"], g.seats[i]) for g in groups for i, f in enumerate(g.facts)]
                if error := next((f"{f['error']} (on node {a})" for f, (a, _) in zip(answers, places, strict=True) if "error" in f), None):
                    raise StartError(error)
                lacking = {a: seat for f, (a, seat) in zip(answers, places, strict=True) if "missing" in f}
                if not lacking:
                    break
                if last or not self._key:
                    raise StartError(
                        f"{self.config.model} is no folder on node {', '.join(lacking)}, nor on the machine that asks. "
                        "Give a path that every node has, a hub id (org/name), or a folder of this machine."
                    )
                await self._deliver(lacking, groups)
        finally:
            telling.cancel()
        rest = iter(answers)
        for group in groups:
            group.folders = [next(rest)["folder"] for _ in group.seats]

    async def _deliver(self, lacking: dict[str, Any], groups: list[Placement]) -> None:
        """Send the model to the nodes that lack it, from one that has it, or by a client. Raises StartError, RayError."""
        have = [(g.seats[0], g.folders[0]) for g in self.groups.values() if g.folders and g not in groups]
        if have:
            seat, folder = have[0]
            pieces = await seat.pieces.remote(folder)
            await asyncio.to_thread(
                sending.send, pieces, lambda piece: seat.piece.remote(folder, *piece), [*lacking.values()], self._key, lambda share: None
            )
            return
        names = {f["address"]: f["name"] for g in groups for f in g.facts}
        self._delivered.clear()
        self.needs = {address: names[address] for address in lacking}
        self._service.set_stage(f"waiting for the model on {', '.join(lacking)}")
        try:
            async with asyncio.timeout(_SEND_S):
                await self._delivered.wait()
        except TimeoutError:
            raise StartError(f"nobody sent {self.config.model} to {', '.join(lacking)}") from None
        finally:
            self.needs = {}
        if self._refusal:
            raise StartError(self._refusal)

    async def _tell_stage(self, seat: Any) -> None:
        with contextlib.suppress(RayError):
            while True:
                await asyncio.sleep(1.0)
                stage, share = await seat.stage.remote()
                if stage != "starting" and self._service.state == "starting":
                    self._service.set_stage(stage, share)

    async def _read_card(self, group: Placement) -> None:
        """The model's small files, and how it fits. Raises StartError, RayError."""
        seat, folder = group.seats[0], group.folders[0]
        for name, data in (await seat.card.remote(folder)).items():
            path = Path(self._card.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        here = group.facts[0]["node"]
        fit = await seat.forecast.remote(folder, sum(f["node"] == here for g in self.groups.values() for f in g.facts))
        if isinstance(fit, str):
            raise StartError(fit)
        if fit is not None:
            self._service.set_stage(fit[0])
            lifecycle.log(fit[1])

    async def launch(self, group: Placement, *, loaded: bool = False) -> Replica:
        """Start a replica's ranks and send them their loads; `loaded`: they run already, with their weights. Raises OSError, RayError."""
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
        if loaded:
            self.taking.add(replica)
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
        if replica in self.taking:
            return
        nodes = self.groups[replica.number].nodes if replica.number in self.groups else []
        if self.replicas.get(replica.number) is replica and self._service.state == "ready":
            self.keep(written_again(self.moves.note(replica.number, nodes, "lost", reason, rows=len(unfinished)), unfinished))
        self._service.on_replica_end(replica, reason, unfinished)

    def _restart(self, replica: Replica) -> bool:
        """Begin to start a dead replica again. Returns whether."""
        if self.replicas.get(replica.number) is not replica or self._failures >= len(_PAUSES_S):
            return False
        self.keep(self._relaunch(replica.number))
        return True

    def keep(self, work: Any) -> None:
        """Run this until the pool ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relaunch(self, number: int) -> None:
        await asyncio.sleep(_PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)])
        if await self.bring(number):
            self._failures = 0
            self._service.add_replica(self.replicas[number], restarted=True)
            self.moves.note(number, self.groups[number].nodes, "started again")

    async def bring(self, number: int) -> bool:
        """Place and load a replica of a pool that serves; waits for a place as long as it takes. False where it died before it was ready.

        `on_replica_end` has been called then, which may begin the next try.
        """
        while True:
            try:
                group = await self._group(number, None)
                await self.ready_weights([group])
                replica = await self.launch(group)
            except (RayError, StartError) as exc:  # its node died under it, or it has no model: the next place may be better
                self.moves.note(number, [], "did not start", brief(exc))
                await asyncio.sleep(_PAUSES_S[-1] / 4)
                continue
            except OSError:  # the replica has called on_replica_end
                self._failures += 1
                return False
            if await replica.wait_ready():
                return True
            self._failures += 1
            return False
