"""A pool on Ray whose server Ray started again, in a cluster that is short for a while: it waits and serves again, and does not end. No cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pool_fake import byte_model

from holynb.pool.ray.config import VERSION, RayConfig
from holynb.pool.server import Identity, Service
from holynb.pool.server.dispatch import Outstanding
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.metrics import ReplicaStats

CONFIG = RayConfig("p", "m", Path("/home"), dp=(2, 2))


class FakeReplica:
    """Ready at once, or ended for the reason that its place has for it."""

    def __init__(self, ranks: Any, on_end: Callable[[Any, str, list[Any]], None], number: int) -> None:
        self.number, self.end_reason, self._on_end = number, None, on_end
        self.ranks: list[Any] = []
        self.generations: dict[int, Any] = {}
        self.stats: ReplicaStats = {}
        self.waiting, self.load = 0, Outstanding()

    async def start(self) -> None:
        if reason := World.now.deaths.pop(self.number, None):
            self.die(reason)

    async def wait_ready(self) -> bool:
        await asyncio.sleep(0)
        return self.end_reason is None

    async def stop(self, grace: float = 0.0) -> None:
        """It has no processes."""

    def die(self, reason: str) -> None:
        self.end_reason = reason  # type: ignore[assignment]  # a fake of `Replica`, which has it so
        self._on_end(self, reason, [])


class FakeSeat:
    """Its methods are an actor's: `await seat.method.remote()`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self, f"_{name}"))

    async def _prepare(self, key: str) -> dict[str, str]:
        return {"folder": "/model"}

    async def _card(self, folder: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in World.now.model.iterdir()}

    async def _stage(self) -> tuple[str, None]:
        return "starting", None

    async def _begin(self, *_: Any) -> int:
        return 1

    _hand = _begin


class FakePlace:
    """A placement; where the cluster has no room, it waits as the real one does."""

    def __init__(self, config: RayConfig, number: int, stages: Any = (), name: str = "") -> None:
        self.config, self.number, self.name = config, number, name
        self.facts: list[dict[str, Any]] = []
        self.seats: list[Any] = []
        self.folders: list[str] = []
        self.nodes = [f"10.0.0.{number}"]

    async def place(self, seconds: float | None, tell: Callable[[str], None]) -> None:
        from holynb.pool.ray.group import NoPlace

        tell(f"replica {self.number} waits for a place: 1 CPU")
        if not World.now.room.is_set() and seconds is not None:
            raise NoPlace("the cluster has no such place free")
        await World.now.room.wait()
        if errors := World.now.errors.get(self.number):
            raise errors.pop()
        await self.find()

    async def find(self) -> None:
        self.seats = [FakeSeat(self.number)]
        facts = {"node": str(self.number), "address": self.nodes[0], "device": "cpu", "version": VERSION, "pool": self.config.same}
        self.facts = [facts]

    async def answers(self) -> bool:
        return World.now.answers

    def remove(self) -> None:
        World.now.removed.append(self.number)


class World:
    """A cluster that is made up, and the pool's server in it. `left`: numbers of the replicas that are there still."""

    now: World

    def __init__(self, model: Path, left: tuple[int, ...], config: RayConfig) -> None:
        from holynb.pool.ray.replicas import RayReplicas

        World.now = self
        self.model, self.left, self.config = model, left, config
        self.room = asyncio.Event()
        self.errors: dict[int, list[Exception]] = {}
        self.deaths: dict[int, str] = {}
        self.answers = True
        self.removed: list[int] = []
        self.service = Service(Identity(config.name, config.model))
        self.replicas = RayReplicas(config, self.service, SimpleNamespace(), "")  # type: ignore[arg-type]  # nobody comes by it

    async def ready(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.service.state != "ready" or len(self.service.replicas) < count:  # noqa: ASYNC110 - the pool tells nobody
                await asyncio.sleep(0.01)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Plays a scene with such a cluster; pauses are short there."""
    pytest.importorskip("ray")
    from holynb.pool.ray import replicas, takeover

    for module in (replicas, takeover):
        monkeypatch.setattr(module, "Placement", FakePlace)
    monkeypatch.setattr(replicas, "Replica", FakeReplica)
    monkeypatch.setattr(replicas, "_PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr(takeover, "left_behind", lambda config: [FakePlace(config, n, name="there") for n in World.now.left])
    model = byte_model(tmp_path / "bytes")

    def plays(scene: Callable[[World], Coroutine[Any, Any, None]], *left: int, **config: Any) -> None:
        async def whole() -> None:
            world = World(model, left, replace(CONFIG, **config))
            try:
                await scene(world)
            finally:
                await world.replicas.stop()

        asyncio.run(whole())

    return plays


async def come_again() -> None:
    from holynb.pool.ray.takeover import come_again

    await come_again(World.now.replicas)


def test_a_server_that_comes_again_waits_for_a_place_and_a_first_one_does_not(play: Any) -> None:
    async def scene(world: World) -> None:
        await come_again()
        await asyncio.sleep(0.1)
        assert world.service.state == "starting"
        assert world.service.stage.endswith("waits for a place: 1 CPU"), "this is what `pool status` says"
        world.room.set()
        await world.ready(2)
        assert world.service.health()["restarting"] == 0

    play(scene)

    async def first(world: World) -> None:
        world.replicas._lay = lambda count: asyncio.sleep(0, [()] * count)  # type: ignore[method-assign]  # no cluster is asked
        with pytest.raises(StartError, match="no such place free"):
            await world.replicas.start()

    play(first)


def test_it_serves_with_the_first_that_comes_and_a_start_that_fails_is_tried_again(play: Any) -> None:
    from ray.exceptions import RayActorError

    async def scene(world: World) -> None:
        world.errors = {0: [StartError("its node has another version")] * 2, 1: [RayActorError(error_msg="its node died")] * 40}
        world.deaths = {0: "rank 0 was killed"}  # and at the third try, its rank
        world.room.set()
        await come_again()
        await world.ready(1)
        assert [r.number for r in world.service.replicas] == [0]
        assert world.service.health()["restarting"] == 1
        assert [m["what"] for m in world.replicas.moves.entries if m["replica"] == 0] == ["did not start"] * 3 + ["started again"]
        await world.ready(2)
        assert world.service.health()["restarting"] == 0

    play(scene)


def test_it_goes_on_with_what_it_took_over_and_one_that_dies_meanwhile_comes_again(play: Any) -> None:
    async def scene(world: World) -> None:
        world.room.set()
        world.deaths = {0: "its node is gone"}
        await come_again()
        assert [r.number for r in world.service.replicas] == [1], "at once"
        assert 0 in world.removed
        await world.ready(2)

    play(scene, 0, 1)


def test_all_that_were_taken_over_may_die_before_the_pool_serves(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: World) -> None:
        read_card = world.replicas.weights.read_card

        async def read(group: Any) -> None:
            await read_card(group)
            for one in [*world.replicas.replicas.values()]:
                if not world.room.is_set():
                    one.die("its node is gone")  # type: ignore[attr-defined]  # of the fake

        monkeypatch.setattr(world.replicas.weights, "read_card", read)
        await come_again()
        assert (world.replicas.replicas, world.replicas.groups) == ({}, {}), "nothing of them is in the way of others"
        await asyncio.sleep(0.05)
        assert (world.service.state, world.service.replicas) == ("starting", ())
        world.room.set()
        await world.ready(2)

    play(scene, 0, 1)


@pytest.mark.parametrize("gone", [True, False])
def test_only_what_fails_by_itself_ends_the_pool_in_the_end(play: Any, gone: bool) -> None:
    class Failing(dict[int, str]):
        def pop(self, number: int, *_: Any) -> Any:
            return "no memory is left"

    async def scene(world: World) -> None:
        world.deaths, world.answers = Failing(), not gone
        world.room.set()
        await come_again()
        await asyncio.sleep(0.5)
        if gone:
            assert world.service.state == "starting", "nodes that go are no failure of the pool's"
            world.deaths = {}
            await world.ready(2)
        else:
            assert (world.service.state, world.service.why) == ("failed", "a replica did not start: no memory is left")

    play(scene)


def test_a_replica_that_fails_again_and_again_does_not_end_the_others(play: Any) -> None:
    from ray.exceptions import RayActorError

    class Failing(dict[int, str]):
        def pop(self, number: int, *_: Any) -> Any:
            return None if number else "no memory is left"

    async def scene(world: World) -> None:
        world.deaths = Failing()
        world.errors = {1: [RayActorError(error_msg="its node died")] * 30}
        world.room.set()
        await come_again()
        await world.ready(1)
        assert sum(m["replica"] == 0 and m["what"] == "did not start" for m in world.replicas.moves.entries) >= 5
        assert [r.number for r in world.service.replicas] == [1]

    play(scene)


def test_what_breaks_otherwise_is_said_instead_of_being_waited_for(play: Any) -> None:
    async def scene(world: World) -> None:
        world.errors = {0: [ZeroDivisionError("a fault of our own")]}
        world.room.set()
        await come_again()
        async with asyncio.timeout(10):
            await world.service.stopped.wait()
        assert world.service.why == "it cannot run: a fault of our own"

    play(scene, dp=(1, 1))


def test_a_replica_that_waits_for_a_place_keeps_no_other_from_being_asked_for(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.pool.ray import scaling

    monkeypatch.setattr(scaling, "_LOOK_S", 0.01)
    quick = partial(scaling.ScalePolicy, patience=0.0, pause=0.05)
    monkeypatch.setattr(scaling, "ScalePolicy", quick)

    async def scene(world: World) -> None:
        await come_again()
        world.room.clear()
        monkeypatch.setattr(Service, "queued", 9)
        scale = asyncio.create_task(scaling.scale(world.config, world.service, world.replicas))
        await asyncio.sleep(0.5)
        assert not scale.done(), "it looks for as long as the pool runs"
        world.room.set()
        await world.ready(3)
        assert [m["replica"] for m in world.replicas.moves.entries if m["what"] == "asked for"] == [1, 2]
        scale.cancel()

    play(scene, 0, dp=(1, 3))


def test_one_that_waits_for_a_place_does_not_let_the_only_one_go(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.pool.ray import scaling

    monkeypatch.setattr(scaling, "_LOOK_S", 0.01)
    monkeypatch.setattr(scaling, "ScalePolicy", partial(scaling.ScalePolicy, patience=0.0, pause=0.0, idle=0.05))

    async def scene(world: World) -> None:
        await come_again()
        world.room.clear()
        monkeypatch.setattr(Service, "queued", 9)
        scale = asyncio.create_task(scaling.scale(world.config, world.service, world.replicas))
        await asyncio.sleep(0.1)
        assert 1 in world.replicas.groups, "it is asked for"
        monkeypatch.setattr(Service, "queued", 0)
        await asyncio.sleep(0.3)
        assert [r.number for r in world.service.replicas] == [0]
        world.room.set()
        await asyncio.sleep(0.3)
        assert len(world.service.replicas) == 1, "one of two, which both serve, goes"
        assert [m["what"] for m in world.replicas.moves.entries][-2:] == ["added", "removed"]
        scale.cancel()

    play(scene, 0, dp=(1, 2))


def test_a_server_that_comes_again_and_has_nothing_to_do_ends_as_any_idle_one(play: Any) -> None:
    from holynb.pool.ray.server import PoolServer

    async def scene(world: World) -> None:
        server = object.__new__(PoolServer)  # without its thread
        server._config, server._renewed_at = world.config, asyncio.get_running_loop().time() + 60
        for served in (False, True):
            watch = asyncio.create_task(server._watch(world.service, served=served))
            await asyncio.sleep(0.3)
            assert (world.service.why == "it was idle for 0.1 s") is served
            watch.cancel()

    play(scene, idle=0.1)


def test_whoever_attaches_while_ray_starts_the_server_again_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from ray.exceptions import ActorUnavailableError

    from holynb.pool.ray import cluster

    answers: list[Any] = [ActorUnavailableError("it is restarting", None)] * 2 + [{"config": CONFIG}]

    def get(*_: object, **__: object) -> Any:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    server = SimpleNamespace(renew=SimpleNamespace(remote=lambda: None))
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(get_actor=lambda *_: server, get=get))
    assert cluster.obtain(CONFIG) == (CONFIG, server)


def test_the_server_is_asked_for_on_the_head_alone_where_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from holynb.pool.ray import cluster

    asked: dict[str, Any] = {}

    class Actor:
        renew = SimpleNamespace(remote=lambda: None)

        def options(self, **options: Any) -> Actor:
            asked.update(options)
            return self

        def remote(self, *_: Any) -> Actor:
            return self

    def get_actor(*_: str) -> Any:
        raise ValueError

    nodes = [
        {"NodeID": n, "NodeManagerAddress": n, "Alive": True, "Resources": {"CPU": 4.0, f"node:{n}": 1.0}} for n in ("10.0.0.2", "10.0.0.1")
    ]
    nodes[1]["Resources"]["node:__internal_head__"] = 1.0  # type: ignore[index]  # a dict
    fake = SimpleNamespace(get_actor=get_actor, nodes=lambda: nodes, remote=lambda _: Actor(), get=lambda *_, **__: {"config": CONFIG})
    monkeypatch.setattr(cluster, "ray", fake)
    cluster.obtain(CONFIG)
    assert asked["resources"] == {"node:__internal_head__": 0.0001}, "Ray holds to a resource at each restart, not to a soft affinity"
    assert asked["num_cpus"] == 0
