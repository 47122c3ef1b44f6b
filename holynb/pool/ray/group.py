"""One replica's place in the cluster: a detached placement group, and in it a seat for each rank. Knows Ray; no frames, no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from holynb.pool.ray.config import NAMESPACE, RayConfig
from holynb.pool.ray.placement import bundles, strategy
from holynb.pool.ray.seat import Seat

__all__ = ["NoPlace", "Placement", "brief", "left_behind", "sweep"]

#: All GPUs of a node are visible to each rank, as on one machine: ranks of one tensor group read each other's memory.
_SEES_ALL_GPUS = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
#: Seconds between two looks whether Ray has found a place.
_LOOK_S = 1.0
#: Ray's label of a node, which is its id.
_NODE = "ray.io/node-id"
#: How long the nodes that were free when they were looked at are waited for, before any others are taken.
_SURE_S = 3.0


class NoPlace(Exception):
    """Ray found no place for a replica; the message says what it needs."""


class Placement:
    """A replica's placement group and seats. Made anew for each start: what is left of an old one is removed.

    `number`: of the replica; `stages`: the node's id of each of its stages, where that was planned; `name`: of a group that is there, and
    whose seats are looked for.
    """

    def __init__(self, config: RayConfig, number: int, stages: Sequence[str] = (), name: str = "") -> None:
        self.config, self.number, self.stages = config, number, stages
        self.facts: list[dict[str, Any]] = []
        self.seats: list[Any] = []
        self.folders: list[str] = []
        self._mark = name.rpartition("/")[2].split(".")[1] if name else secrets.token_hex(3)
        self.name = name or f"{config.name}/replica-{number}.{self._mark}"
        self._placed: PlacementGroup | None = None

    @property
    def nodes(self) -> list[str]:
        """The addresses of its nodes, the first rank's first."""
        return list(dict.fromkeys(f["address"] for f in self.facts))

    async def place(self, seconds: float | None, tell: Callable[[str], None] = lambda text: None) -> None:
        """Wait until Ray has placed it, and its seats answer. Raises NoPlace after `seconds` (None: never), RayError."""
        config = self.config
        group = self._placed = await self._ask_ray(self.stages)
        if self.stages and not await asyncio.to_thread(group.wait, _SURE_S):  # somebody was quicker
            await asyncio.to_thread(self.remove)
            group = self._placed = await self._ask_ray(())
        waited = 0.0
        while not await asyncio.to_thread(group.wait, _LOOK_S):
            waited += _LOOK_S
            need = " + ".join(", ".join(f"{n:g} {k}" for k, n in b.items()) for b in bundles(config))
            if seconds is not None and waited >= seconds:
                raise NoPlace(f"replica {self.number} needs {need}, and the cluster has no such place free")
            tell(f"replica {self.number} waits for a place: {need} ({waited:.0f} s)")
        remote = ray.remote(Seat)
        for rank, name in enumerate(self._names):
            self.seats.append(
                remote.options(
                    name=name,
                    namespace=NAMESPACE,
                    lifetime="detached",
                    max_restarts=0,  # a rank's end is its replica's, and a new group is asked for
                    max_concurrency=64,
                    num_cpus=config.cpus,
                    num_gpus=1 if config.gpu else 0,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank // config.tp),
                    runtime_env=_runtime_env(config),
                ).remote(config, self.number * config.size + rank)
            )
        await self._ask()

    async def find(self) -> None:
        """Find the group and its seats, which another server has placed. Raises ValueError where one is gone, RayError."""
        self._placed = await asyncio.to_thread(ray.util.get_placement_group, self.name)
        self.seats = [await asyncio.to_thread(ray.get_actor, name, NAMESPACE) for name in self._names]
        await self._ask()

    async def answers(self) -> bool:
        """Whether all its seats are there, and answer soon."""
        try:
            async with asyncio.timeout(_SURE_S):
                await self._ask()
        except (RayError, TimeoutError):
            return False
        return True

    async def _ask(self) -> None:
        self.facts = list(await asyncio.gather(*(seat.facts.remote() for seat in self.seats)))
        for name, facts in zip(self._names, self.facts, strict=True):
            facts["name"] = name

    @property
    def _names(self) -> list[str]:
        """The names of its seats' actors."""
        first = self.number * self.config.size
        return [f"{self.config.name}/rank-{n}.{self._mark}" for n in range(first, first + self.config.size)]

    async def _ask_ray(self, stages: Sequence[str]) -> PlacementGroup:
        """A placement group that Ray looks for a place for: on these nodes, or on any."""
        config = self.config
        if self.stages and not stages:
            self.name += ".any"
        on: dict[str, Any] = {"bundle_label_selector": [{_NODE: stage} for stage in stages]} if stages else {}
        return await asyncio.to_thread(
            placement_group, bundles(config), strategy=strategy(config), name=self.name, lifetime="detached", **on
        )

    def remove(self) -> None:
        """Give its resources back: Ray ends whatever runs in it, also a process that is stopped."""
        with contextlib.suppress(RayError, ValueError):  # ValueError: it is gone
            remove_placement_group(self._placed or ray.util.get_placement_group(self.name))


def _runtime_env(config: RayConfig) -> dict[str, Any]:
    given = dict(config.runtime_env)
    return {**given, "env_vars": {**_SEES_ALL_GPUS, **given.get("env_vars", {})}}


def left_behind(config: RayConfig) -> list[Placement]:
    """The places of a server that is gone, one for each replica, unseen; what else it has is removed."""
    out: dict[int, Placement] = {}
    for name in _groups(config.name):
        number = int(name.removeprefix(f"{config.name}/replica-").partition(".")[0])
        place = Placement(config, number, name=name)
        if number < config.dp[1] and number not in out:
            out[number] = place
        else:
            place.remove()
    return [out[n] for n in sorted(out)]


def sweep(name: str) -> int:
    """Remove every group that a pool of this name has. Returns how many were there."""
    alive = _groups(name)
    for group in alive:
        with contextlib.suppress(ValueError, RayError):  # gone meanwhile
            remove_placement_group(ray.util.get_placement_group(group))
    return len(alive)


def _groups(name: str) -> list[str]:
    return [g["name"] for g in placement_group_table().values() if g["name"].startswith(f"{name}/replica-") and g["state"] != "REMOVED"]


def brief(exc: BaseException) -> str:
    """An error of Ray's in one line: it has the traceback of the node with it."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[-1] if lines else type(exc).__name__)[:300]
