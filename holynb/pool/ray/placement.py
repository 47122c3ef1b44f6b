"""Where a pool's ranks can lie in a cluster: bundles, strategy, and what fits, as numbers. Imports no Ray.

A bundle is a stage: its tensor-parallel ranks share one, so that they are on one node whatever the strategy. Without stages the group has
one bundle (STRICT_PACK); stages lie on as few nodes as can be (PACK), or, where that is asked for, on many (SPREAD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holynb.pool.ray.config import RayConfig

__all__ = ["ClusterNode", "bundles", "fitting", "refusal", "strategy", "where"]


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node that is alive, and what it has in all."""

    id: str
    address: str
    cpus: float
    gpus: float

    @property
    def shown(self) -> str:
        return f"{self.address}: {self.gpus:g} GPUs, {self.cpus:g} CPUs" if self.gpus else f"{self.address}: {self.cpus:g} CPUs"


def nodes(listed: Sequence[Mapping[str, object]]) -> list[ClusterNode]:
    """Of Ray's own list, those that are alive, by address."""
    out = []
    for one in listed:
        resources = one["Resources"]
        if one["Alive"] and isinstance(resources, dict):
            out.append(
                ClusterNode(str(one["NodeID"]), str(one["NodeManagerAddress"]), resources.get("CPU", 0.0), resources.get("GPU", 0.0))
            )
    return sorted(out, key=lambda node: node.address)


def bundles(config: RayConfig) -> list[dict[str, float]]:
    """What each stage of a replica needs of one node."""
    stage: dict[str, float] = {"CPU": config.tp * config.cpus}
    if config.gpu:
        stage["GPU"] = config.tp
    return [dict(stage) for _ in range(config.pp)]


def strategy(config: RayConfig) -> str:
    """How Ray lays the bundles."""
    return "STRICT_PACK" if config.pp == 1 else "SPREAD" if config.spread else "PACK"


def fitting(config: RayConfig, cluster: Sequence[ClusterNode]) -> int:
    """How many replicas the nodes hold in all, where nobody else uses them. Stages are alike, so that counting them is exact."""
    gpus, cpus = (config.tp if config.gpu else 0), config.tp * config.cpus
    stages = sum(int(min(n.cpus // cpus, n.gpus // gpus if gpus else n.cpus // cpus)) for n in cluster)
    return stages // config.pp


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
