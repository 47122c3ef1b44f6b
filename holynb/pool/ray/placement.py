"""Where a pool's ranks lie in a cluster: bundles, strategy, and which stage of which replica goes to which node. Pure: imports no Ray.

A bundle is a stage: its tensor-parallel ranks share one, so that they are on one node whatever the strategy. Without stages the group has
one bundle (STRICT_PACK); stages lie on as few nodes as can be (PACK), or, where that is asked for, on many (SPREAD). `pool plan` shows what
`lay` says, and a start asks Ray for the same places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holynb.pool.ray.config import RayConfig

__all__ = ["ClusterNode", "Places", "bundles", "counted", "fitting", "lay", "nodes", "refusal", "strategy", "where", "why_not"]

#: Ray's resource that says a node's kind of GPU.
_KIND = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node that is alive: what it has in all and, where that was asked, what of it nobody uses (None: all).

    `kind`: of its GPUs, as Ray names it (H100); `gpu_memory`: bytes of one; `memory`: bytes that Ray counts for its processes.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    kind: str = ""
    gpu_memory: int | None = None
    memory: int | None = None
    free: tuple[float, float] | None = None
    """CPUs and GPUs."""

    @property
    def shown(self) -> str:
        return f"{self.address}: {self.gpus:g} GPUs, {self.cpus:g} CPUs" if self.gpus else f"{self.address}: {self.cpus:g} CPUs"


def nodes(listed: Sequence[Mapping[str, object]], free: Mapping[str, Mapping[str, float]] | None = None) -> list[ClusterNode]:
    """Of Ray's own list, those that are alive, by address. `free`: by node what Ray has left to give, where it was asked."""
    out = []
    for one in listed:
        resources = one["Resources"]
        if one["Alive"] and isinstance(resources, dict):
            name = str(one["NodeID"])
            left = None if free is None else free.get(name, {})
            out.append(
                ClusterNode(
                    name,
                    str(one["NodeManagerAddress"]),
                    resources.get("CPU", 0.0),
                    resources.get("GPU", 0.0),
                    next((word.removeprefix(_KIND) for word in resources if word.startswith(_KIND)), ""),
                    memory=int(resources["memory"]) if "memory" in resources else None,
                    free=None if left is None else (left.get("CPU", 0.0), left.get("GPU", 0.0)),
                )
            )
    return sorted(out, key=lambda node: _by_address(node.address))


def _by_address(address: str) -> tuple[object, ...]:
    """10.0.0.9 before 10.0.0.10."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in address.split("."))


def bundles(config: RayConfig) -> list[dict[str, float]]:
    """What each stage of a replica needs of one node."""
    stage: dict[str, float] = {"CPU": config.tp * config.cpus}
    if config.gpu:
        stage["GPU"] = config.tp
    return [dict(stage) for _ in range(config.pp)]


def strategy(config: RayConfig) -> str:
    """How Ray lays the bundles."""
    return "STRICT_PACK" if config.pp == 1 else "SPREAD" if config.spread else "PACK"


def _places(config: RayConfig, cpus: float, gpus: float) -> int:
    """How many stages so many CPUs and GPUs of one node hold."""
    by_cpus = cpus // (config.tp * config.cpus)
    return int(min(by_cpus, gpus // config.tp) if config.gpu else by_cpus)


def fitting(config: RayConfig, cluster: Sequence[ClusterNode]) -> int:
    """How many replicas the nodes hold in all, where nobody else uses them. Stages are alike, so that counting them is exact."""
    return sum(_places(config, n.cpus, n.gpus) for n in cluster) // config.pp


@dataclass(frozen=True, slots=True)
class Places:
    """`replicas`: of each that has a place, the node's id of each of its stages. `left`: by node's id, the CPUs and GPUs that stay free."""

    replicas: tuple[tuple[str, ...], ...]
    left: Mapping[str, tuple[float, float]]


def lay(config: RayConfig, cluster: Sequence[ClusterNode], wanted: int | None = None) -> Places:
    """Lay as many replicas as there is room for on what is free, `wanted` (the fewest of `--dp`) at most.

    A replica goes where most room is left, so that a node that dies takes as few with it as can be.
    """
    wanted = config.dp[0] if wanted is None else wanted
    room = {n.id: _places(config, *(n.free or (n.cpus, n.gpus))) for n in cluster}
    replicas = []
    for _ in range(min(wanted, sum(room.values()) // config.pp)):
        stages = _spread(config.pp, room) if config.spread else _packed(config.pp, room)
        for node in stages:
            room[node] -= 1
        replicas.append(stages)
    used = [node for stages in replicas for node in stages]
    cpus, gpus = config.tp * config.cpus, config.tp if config.gpu else 0
    left = {n.id: (n.free or (n.cpus, n.gpus)) for n in cluster}
    return Places(tuple(replicas), {node: (c - used.count(node) * cpus, g - used.count(node) * gpus) for node, (c, g) in left.items()})


def _packed(stages: int, room: Mapping[str, int]) -> tuple[str, ...]:
    """On as few nodes as can be: the roomiest first. Neighbours in the pipeline are neighbours in the cluster."""
    out: list[str] = []
    for node in sorted(room, key=lambda n: -room[n]):
        out += [node] * min(stages - len(out), room[node])
    return tuple(out)


def _spread(stages: int, room: Mapping[str, int]) -> tuple[str, ...]:
    """On as many nodes as can be, the roomiest first."""
    out: list[str] = []
    for _ in range(stages):
        out.append(min((n for n in room if room[n] > out.count(n)), key=lambda n: (out.count(n), out.count(n) - room[n])))
    return tuple(sorted(out, key=out.index))


def where(config: RayConfig, cluster: Sequence[ClusterNode]) -> str:
    """What the cluster has and what of it the pool takes, in a line."""
    hosts = [n for n in cluster if n.gpus or not config.gpu]
    has = ", ".join(n.shown for n in hosts if n.gpus or n.cpus) or "no node with " + ("GPUs" if config.gpu else "CPUs")
    rank = f"{'1 GPU, ' if config.gpu else ''}{config.cpus} CPU{'s' if config.cpus > 1 else ''} a rank"
    fits = fitting(config, cluster)
    return f"{fits} replica{'s' if fits != 1 else ''} of {config.size} ({rank}, {strategy(config)}) fit on {has}"


def refusal(config: RayConfig, cluster: Sequence[ClusterNode]) -> str | None:
    """Why the pool cannot be placed, with what could be; None where it can."""
    fits, wants = fitting(config, cluster), config.dp[0]
    if fits >= wants:
        return None
    could = f"Start fewer (--dp {fits})" if fits else "Start it with smaller --tp or --pp"
    return f"{config.flags} does not fit this cluster: {where(config, cluster)}. {could}, or wait for nodes: --wait-nodes 10m."


def counted(n: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def why_not(config: RayConfig, cluster: Sequence[ClusterNode]) -> str | None:
    """Why not all replicas have a place now, in a sentence without a dot; None where they have."""
    placed = len(lay(config, cluster).replicas)
    if placed >= config.dp[0]:
        return None
    has = f"{placed or 'none'} of {counted(config.dp[0], 'replica')} {'have' if placed > 1 else 'has'} a place"
    stage = f"{counted(config.tp, 'GPU')} and " * config.gpu + f"{counted(config.tp * config.cpus, 'CPU')} of one node"
    needs = f"{has}: {'each stage' if config.pp > 1 else 'each'} needs {stage}"
    most = max((n.gpus if config.gpu else n.cpus for n in cluster), default=0)
    if most < (config.tp if config.gpu else config.tp * config.cpus):
        return f"{needs}, and no node has more than {counted(int(most), 'GPU' if config.gpu else 'CPU')}"
    if fitting(config, cluster) >= config.dp[0]:
        return f"{needs}, and others use what is missing"
    if config.gpu and fitting(config, [n for n in cluster if n.gpus]) < sum(int(n.gpus // config.tp) for n in cluster) // config.pp:
        return f"{needs}, and the nodes have GPUs but not the CPUs: --cpus {config.cpus} is of each rank"
    return f"{needs}, and the nodes have room for {fitting(config, cluster)}"
