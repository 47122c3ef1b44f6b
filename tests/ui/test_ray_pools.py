"""A pool on Ray as status, dash and charts show it: nodes, a dead one in red, and what moved when. From facts alone; no Ray."""

from __future__ import annotations

import time
from typing import Any

from holynb.pools import PoolInfo
from holynb.ui.commands import pool_nodes
from holynb.ui.live.memory import MoveMonitor
from holynb.ui.output import mark_name
from holynb.ui.panel import pooltable


def info(*nodes: dict[str, Any]) -> PoolInfo:
    return PoolInfo("p", "m", "ready", 1, "here", on="ray://10.0.0.1:10001", nodes=nodes)


def node(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "alive": True, "replicas": [0], "ranks": 1, **more}


DEAD = node("10.0.0.3", alive=False, replicas=[], lost_at=time.time() - 60, moved=7, why="gone")


def test_status_names_each_node_its_replicas_and_what_moved():
    one, two, dead = pool_nodes.nodes(
        info(node("10.0.0.1", devices=["cpu"]), node("10.0.0.2", replicas=[1, 2], devices=["cuda:0", "cuda:3"]), DEAD)
    )
    assert one == "10.0.0.1 replica 0"
    assert two == "10.0.0.2 replicas 1, 2 on cuda:0, cuda:3"
    assert dead.startswith("10.0.0.3 no replica, lost one ")
    assert dead.endswith(", 7 rows moved")


def test_a_dead_node_is_red_in_the_dash_and_its_words_are_text():
    page = pooltable.table([info(node("10.0.0.1"), {**DEAD, "address": "<b>3"})])
    red = [part for part in page.split("<span") if "--jp-error-color1" in part.partition(">")[0]]
    assert len(red) == 1
    assert "&lt;b&gt;3 no replica" in red[0]


def move(at: float, what: str, rows: int = 0) -> dict[str, Any]:
    return {"at": at, "replica": 1, "nodes": ["10.0.0.3"], "what": what, "why": "", "rows": rows}


def test_what_becomes_of_replicas_in_a_run_is_noted_once_and_marked_in_its_charts():
    monitor = MoveMonitor("p")
    old = move(1.0, "lost", 3)
    assert monitor.update([old]) == [], "it was before the run"
    notes = monitor.update([old, move(2.0, "lost", 4), move(3.0, "asked for"), move(4.0, "added"), move(5.0, "removed")])
    assert [n.text for n in notes] == [
        "pool/p lost a replica on 10.0.0.3; 4 rows of it went elsewhere.",
        "pool/p has one replica more on 10.0.0.3.",
        "pool/p has one replica fewer on 10.0.0.3.",
    ]
    assert [mark_name(n) for n in notes] == ["lost", "+1", "−1"]
    assert monitor.update([old, move(2.0, "lost", 4)]) == []
