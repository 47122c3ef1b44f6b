"""What a pool on Ray says of its nodes: which are alive is Ray's word, which hold a replica is its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


def test_a_node_whose_rank_died_is_alive_and_holds_no_replica() -> None:
    pytest.importorskip("ray")
    from holynb.pool.ray.moves import Moves
    from holynb.pool.ray.view import health_of

    def group(number: int, address: str) -> Any:
        return SimpleNamespace(number=number, nodes=[address], facts=[{"address": address, "device": "cpu"}])

    def replica(why: str | None) -> Any:
        return SimpleNamespace(end_reason=why, ranks=[])

    moves = Moves()
    for number, address in ((1, "b"), (2, "c")):
        moves.note(number, [address], "lost", "it is gone", rows=3)
    replicas: Any = SimpleNamespace(
        groups={0: group(0, "a"), 1: group(1, "b")},
        replicas={0: replica(None), 1: replica("it is gone"), 2: replica("it is gone")},
        moves=moves,
        nodes_alive=frozenset("ab"),
    )
    told = {n["address"]: (n["alive"], n["replicas"], n["ranks"], n.get("moved")) for n in health_of(replicas)["nodes"]}
    assert told == {"a": (True, [0], 1, None), "b": (True, [], 0, 3), "c": (False, [], 0, 3)}
