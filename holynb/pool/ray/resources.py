"""What a cluster has: its nodes, what of them nobody uses, the memory of their GPUs. Knows Ray; decides nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from holynb.pool.fit.cards import card_memory
from holynb.pool.ray import placement
from holynb.pool.ray.placement import ClusterNode

__all__ = ["free_now", "with_gpu_memory"]

#: How long a node may take to answer: a process starts there for it.
_ANSWER_S = 30.0


def free_now() -> list[ClusterNode]:
    """The nodes that are alive, with what of them nobody uses. Raises RayError."""

    def free() -> dict[str, dict[str, float]]:  # inside, so that it goes to a node as it is: there may be no holynb there
        from ray._private.state import available_resources_per_node  # Ray has no public name for it

        left: dict[str, dict[str, float]] = available_resources_per_node()
        return left

    remote = ray.util.client.ray.is_connected()  # a client is no part of the cluster, and asks one of its nodes
    return placement.nodes(ray.nodes(), ray.get(ray.remote(num_cpus=0)(free).remote(), timeout=_ANSWER_S) if remote else free())


def with_gpu_memory(nodes: Sequence[ClusterNode]) -> list[ClusterNode]:
    """The nodes with the memory of a GPU: by the kind that Ray names, else as the node itself says; None where it does not in time."""

    def least() -> int | None:  # goes to the node as it is, too
        import subprocess

        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
            return min(int(word) for word in answer.split()) * 2**20
        except (OSError, ValueError, subprocess.SubprocessError):
            return None

    def ask(node: ClusterNode) -> Any:
        pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return ray.remote(num_cpus=0, scheduling_strategy=pinned)(least).remote()

    sizes = {node.id: card_memory(node.kind) for node in nodes}
    answers = {node.id: ask(node) for node in nodes if node.gpus and sizes[node.id] is None}
    ready, _ = ray.wait([*answers.values()], num_returns=len(answers), timeout=_ANSWER_S) if answers else ([], [])
    for name, answer in answers.items():
        if answer in ready:
            with contextlib.suppress(RayError):  # a node that died meanwhile
                sizes[name] = ray.get(answer)
    return [replace(node, gpu_memory=sizes[node.id]) for node in nodes]
