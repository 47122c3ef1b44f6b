"""What a pool on Ray shows of itself beyond a local one: nodes, who lies where, what moved, the logs of its ranks. Knows seats and ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from holynb.pool.ray import placement
from holynb.pool.server.metrics import device_memory

if TYPE_CHECKING:
    from holynb.pool.ray.replicas import RayReplicas

__all__ = ["health_of", "rank_logs", "watch_nodes"]

#: Seconds between two looks at Ray's list of nodes.
_LOOK_S = 2.0
#: How long a node may take to answer with a log.
_LOG_S = 3.0


async def watch_nodes(replicas: RayReplicas) -> None:
    """Know which nodes are alive, as Ray says it, for as long as the pool runs: a rank that died says nothing of its node."""
    while True:
        with contextlib.suppress(RayError, ConnectionError, RuntimeError):
            replicas.nodes_alive = frozenset(n.address for n in placement.nodes(await asyncio.to_thread(ray.nodes)))
        await asyncio.sleep(_LOOK_S)


def health_of(replicas: RayReplicas) -> dict[str, Any]:
    """For `/health`: nodes of the pool, now and before, each with its replicas, ranks and devices, and when it was lost."""
    nodes: dict[str, dict[str, Any]] = {}

    def node_at(address: str) -> dict[str, Any]:
        alive = replicas.nodes_alive is None or address in replicas.nodes_alive
        return nodes.setdefault(address, {"address": address, "alive": alive, "replicas": [], "ranks": 0, "devices": []})

    for group in replicas.groups.values():
        replica = replicas.replicas.get(group.number)
        for facts in group.facts:
            node = node_at(facts["address"])
            if replica is not None and replica.end_reason is not None:
                continue
            node["ranks"] += 1
            if facts["device"] not in node["devices"]:
                node["devices"].append(facts["device"])
            if group.number not in node["replicas"]:
                node["replicas"].append(group.number)
    for move in replicas.moves.entries:
        for address in move["nodes"]:
            node = node_at(address)
            if move["what"] == "lost":
                node |= {"lost_at": move["at"], "moved": move["rows"], "why": move["why"]}
    return {
        "nodes": sorted(nodes.values(), key=lambda n: str(n["address"])),
        "moves": replicas.moves.entries[-20:],
        "devices": _devices(replicas),
    }


def _devices(replicas: RayReplicas) -> list[dict[str, Any]]:
    """Each rank's device with its memory, named by its node."""
    out = []
    for number, replica in replicas.replicas.items():
        facts = replicas.groups[number].facts if number in replicas.groups and replica.end_reason is None else []
        for rank, where in zip(replica.ranks, facts, strict=False):
            if (parts := device_memory(rank.stats)) is not None:
                out.append({**parts, "device": f"{where['address']} {parts['device']}"})
    return out


def rank_logs(app: ASGIApp, replicas: RayReplicas) -> ASGIApp:
    """The application, with the last lines of every rank's log at `/logs?lines=N`."""

    async def with_logs(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/logs":
            word = Request(scope).query_params.get("lines", "50")
            answer = JSONResponse(await _logs(replicas, min(int(word), 10_000) if word.isdigit() else 50))
            await answer(scope, receive, send)
        else:
            await app(scope, receive, send)

    return with_logs


async def _logs(replicas: RayReplicas, lines: int) -> list[dict[str, Any]]:
    async def read(number: int, seat: Any, address: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_LOG_S):
                tail = await seat.log.remote(lines)
        except (RayError, TimeoutError) as exc:
            tail = [f"(its node does not answer: {type(exc).__name__})"]
        return {"rank": number, "node": address, "lines": tail}

    wanted = [
        read(group.number * group.config.size + n, seat, facts["address"])
        for group in replicas.groups.values()
        for n, (seat, facts) in enumerate(zip(group.seats, group.facts, strict=False))
    ]
    return sorted(await asyncio.gather(*wanted), key=lambda entry: int(entry["rank"]))
