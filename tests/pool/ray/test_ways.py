"""Which replica lies where in a cluster, and what `pool plan --on` says of it: on clusters that are made up, without Ray."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.errors import BadOption, UserError
from holynb.pool.fit.cards import card_memory
from holynb.pool.fit.known import KNOWN
from holynb.pool.fit.spec import parse_spec
from holynb.pool.ray import placement
from holynb.pool.ray.config import RayConfig
from holynb.pool.ray.placement import ClusterNode, lay, why_not
from holynb.pool.ray.ways import cluster_plan
from holynb.ui.commands import pool

GB = 10**9
QWEN8, LLAMA70 = (parse_spec(KNOWN[name]) for name in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-70B"))


def host(number: int, gpus: int = 4, cpus: int = 64, size: int = 80, free: tuple[float, float] | None = None) -> ClusterNode:
    return ClusterNode(f"id{number}", f"10.0.0.{number}", float(cpus), float(gpus), "H100", size * GB, 400 * GB, free)


def config(**more: Any) -> RayConfig:
    """Sizes that are not given are chosen."""
    return RayConfig("p", "m", Path("/home"), **{"dp": (0, 0), "tp": 0, "pp": 0, "gpu": True, **more})


@st.composite
def wishes(draw: st.DrawFn) -> tuple[RayConfig, list[ClusterNode]]:
    """A pool, and a cluster of unlike nodes that others use in part."""
    numbers = st.integers(0, 8)
    cluster = []
    for number in range(draw(st.integers(0, 6))):
        gpus, cpus = draw(numbers), draw(st.integers(0, 40))
        free = draw(st.none() | st.tuples(st.integers(0, cpus).map(float), st.integers(0, gpus).map(float)))
        cluster.append(host(number, gpus, cpus, free=free))
    sizes = {"tp": draw(st.sampled_from([1, 2, 3, 4, 8])), "pp": draw(st.integers(1, 5)), "cpus": draw(st.integers(1, 3))}
    return config(dp=(draw(st.integers(1, 12)),) * 2, gpu=draw(st.booleans()), spread=draw(st.booleans()), **sizes), cluster


@settings(max_examples=100, deadline=None)
@given(wishes())
def test_no_place_is_given_twice_and_none_is_left_that_would_do(wish: tuple[RayConfig, list[ClusterNode]]) -> None:
    wanted, cluster = wish
    places = lay(wanted, cluster)
    stages = Counter(node for replica in places.replicas for node in replica)
    room = {}
    for node in cluster:
        cpus, gpus = node.free or (node.cpus, node.gpus)
        held = stages[node.id]
        left = (cpus - held * wanted.tp * wanted.cpus, gpus - held * wanted.tp * wanted.gpu)
        assert places.left[node.id] == left
        assert min(left) >= 0, "a stage, with all of its tensor-parallel ranks, has its own GPUs and CPUs of one node"
        room[node.id] = int(min(left[0] // (wanted.tp * wanted.cpus), left[1] // wanted.tp if wanted.gpu else left[0]))
    assert all(len(replica) == wanted.pp for replica in places.replicas)
    assert len(places.replicas) == wanted.dp[0] or sum(room.values()) < wanted.pp, "as many as there is room for"
    assert (why_not(wanted, cluster) is None) == (len(places.replicas) == wanted.dp[0])


@settings(max_examples=60, deadline=None)
@given(wishes())
def test_stages_are_packed_on_few_nodes_or_spread_over_many(wish: tuple[RayConfig, list[ClusterNode]]) -> None:
    wanted, cluster = wish
    before = {n.id: placement._places(wanted, *(n.free or (n.cpus, n.gpus))) for n in cluster}
    for replica in lay(wanted, cluster).replicas:
        nodes, roomiest = Counter(replica), sorted(before.values(), reverse=True)
        if wanted.spread:
            assert len(nodes) == min(wanted.pp, sum(r > 0 for r in roomiest))
        else:
            fewest = next(n for n in range(1, len(roomiest) + 1) if sum(roomiest[:n]) >= wanted.pp)
            assert len(nodes) == fewest
        assert list(replica) == sorted(replica, key=replica.index), "neighbours in the pipeline are neighbours in the cluster"
        before = {node: room - nodes[node] for node, room in before.items()}


def test_eight_replicas_of_two_lie_on_four_hosts_of_four_by_themselves() -> None:
    result = cluster_plan("m", QWEN8, [host(n) for n in (1, 2, 3, 10)], config(dp=(8, 8), tp=2))
    assert result["says"].startswith("m fits on 4 nodes of 4x H100 80GB as --dp 8 --tp 2 in bfloat16: 8.19 GB of weights per device")
    assert result["says"].endswith("8 replicas on 4 nodes, each on one node.")
    assert [[r["replica"] for r in n["replicas"]] for n in result["nodes"]] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert {n["left_gpus"] for n in result["nodes"]} == {0.0}
    assert (result["why"], result["best"]["flags"]) == (None, "--dp 8 --tp 2")


@pytest.mark.parametrize(
    ("more", "nodes", "why", "would"),
    [
        ({"dp": (8, 8), "tp": 2}, [host(1), host(2)], "4 of 8 replicas have a place: each needs 2 GPUs and 2 CPUs", "--dp 4 --tp 2"),
        ({"tp": 8}, [host(1), host(2)], "no node has more than 4 GPUs", "--dp 8"),
        ({"dp": (2, 2), "tp": 2}, [host(1, free=(9.0, 1.0)), host(2)][:2], None, "--dp 2 --tp 2"),
        ({"dp": (2, 2), "tp": 2}, [host(1, free=(9.0, 1.0)), host(2, free=(2.0, 4.0))], "others use what is missing", "--tp 2"),
        ({"dp": (2, 2), "tp": 4}, [host(1), host(2, cpus=3)], "have GPUs but not the CPUs", "--tp 4"),
    ],
    ids=["too many", "too wide", "fits", "used", "few CPUs"],
)
def test_what_has_no_place_says_why_and_what_would(more: Any, nodes: list[ClusterNode], why: str | None, would: str) -> None:
    result = cluster_plan("m", QWEN8, nodes, config(**more))
    if why is None:
        assert (result["why"], result["best"]["flags"]) == (None, would)
    else:
        assert why in result["says"]
        assert (result["ways"], result["would"]) == ([], would)
        assert f"It would fit as {would}." in result["says"]


def test_weights_that_are_too_large_say_so_with_the_dtype_or_the_division_that_would_do() -> None:
    result = cluster_plan("m", LLAMA70, [host(1, size=24), host(2, size=24)], config(tp=2, pp=1))
    assert "as --dp 1 --tp 2 --pp 1 in bfloat16: the weights are 141 GB, 70.6 GB of them on a GPU of 24 GB." in result["says"]
    assert result["would"] == "--tp 4 --pp 2"
    result = cluster_plan("m", LLAMA70, [host(1, size=24)], config())
    assert "does not fit on 1 node of 4x H100 24GB in bfloat16: the weights are 141 GB, and its GPUs have 96 GB" in result["says"]
    assert result["would"] == "--tp 4 --dtype fp8"
    old = replace(host(1, size=24), kind="A100")
    assert "fp8" not in cluster_plan("m", LLAMA70, [old], config())["says"], "its GPUs have no units for it"
    with pytest.raises(UserError, match="no FP8 units"):
        cluster_plan("m", QWEN8, [host(2), old], config(dtype="fp8"))
    moe = parse_spec(KNOWN["Qwen/Qwen3-30B-A3B"])
    assert cluster_plan("m", moe, [host(1, gpus=2, size=24)], config())["would"] == "--tp 2 --dtype fp8"
    four = cluster_plan("m", moe, [host(1, gpus=1, size=24)], config())
    assert "It would fit in four bits (files of AWQ or GPTQ), as one replica on one device." in four["says"]
    assert four["would"] is None, "those files are another model's"
    assert result["replicas"] == []


def test_across_nodes_a_replica_says_which_stage_lies_where() -> None:
    result = cluster_plan("m", LLAMA70, [host(1), host(2)], config(tp=4, pp=2))
    assert result["says"].endswith("1 replica on 2 nodes, across nodes (PACK).")
    assert result["replicas"] == [["10.0.0.1", "10.0.0.2"]]
    assert result["nodes"][1]["replicas"] == [{"replica": 0, "stages": [1], "divided": True}]


def test_on_cpus_there_is_a_replica_a_node_and_ranks_share_its_memory() -> None:
    nodes = [ClusterNode(f"n{i}", f"10.0.0.{i}", 8.0, 0.0, memory=20 * GB) for i in (1, 2, 3)]
    result = cluster_plan("m", QWEN8, nodes, config(gpu=False))
    assert "does not fit on 3 nodes of 8 CPUs" in result["says"], "32 GB of float32"
    nodes = [ClusterNode(f"n{i}", f"10.0.0.{i}", 8.0, 0.0, memory=100 * GB) for i in (1, 2, 3)]
    assert cluster_plan("m", QWEN8, nodes, config(gpu=False))["best"]["flags"] == "--dp 3"
    assert cluster_plan("m", QWEN8, nodes, config(gpu=False, dp=(9, 9)))["ways"] == [], "three on a node share 100 GB"


def test_ray_s_own_list_is_read_with_its_kinds_and_what_is_free() -> None:
    listed = [
        {
            "NodeID": "b",
            "Alive": True,
            "NodeManagerAddress": "10.0.0.10",
            "Resources": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0},
        },
        {"NodeID": "a", "Alive": True, "NodeManagerAddress": "10.0.0.9", "Resources": {"CPU": 4.0, "memory": 7e9}},
        {"NodeID": "c", "Alive": False, "NodeManagerAddress": "10.0.0.1", "Resources": {}},
    ]
    first, second = placement.nodes(listed, {"b": {"CPU": 3.0}})
    assert (first.id, first.memory, first.free) == ("a", 7 * GB, (0.0, 0.0))
    assert (second.kind, second.free, second.gpus) == ("L4", (3.0, 0.0), 2.0)
    assert [card_memory(kind) for kind in ("L4", "A100-80G", "A100", "")] == [24 * GB, 80 * GB, None, None]
    with pytest.raises(UserError, match="--gpus 80GB"):
        cluster_plan("m", QWEN8, [second], config())
    with pytest.raises(UserError, match="no node with GPUs"):
        cluster_plan("m", QWEN8, [first], config())


def plan(monkeypatch: pytest.MonkeyPatch, nodes: list[ClusterNode], *words: str, **more: Any) -> str:
    """What the command prints for a cluster that is made up."""
    made = cluster_plan("Qwen/Qwen3-8B", QWEN8, nodes, config(**more))
    monkeypatch.setattr("holynb.pools.plan", lambda model, **options: json.loads(json.dumps(made)))
    return pool.run(["plan", "Qwen/Qwen3-8B", "--on", "ray", *words], lambda text: None, command="holynb pool")[0]


def test_the_table_names_each_node_and_the_command_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = plan(monkeypatch, [host(1), host(2)], "--tp", "2", "--spread", tp=2, spread=True)
    assert "10.0.0.1  4x H100 80GB, 64 CPUs  4 GPUs, 64 CPUs  0, 2      0 GPUs, 60 CPUs" in text
    assert text.endswith("Start it: holynb pool start Qwen/Qwen3-8B --dp 4 --tp 2 --on ray --spread")
    text = plan(monkeypatch, [host(1), host(2)], "--dp", "8", "--tp", "2", dp=(8, 8), tp=2)
    assert text.endswith("What fits: holynb pool start Qwen/Qwen3-8B --dp 4 --tp 2 --on ray")
    text = plan(monkeypatch, [host(1), host(2)], tp=4, pp=2)
    assert "0 (stage 0)  0 GPUs, 60 CPUs" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--on", "somewhere"], "--on takes ray"),
        (["--cpus", "2"], "--cpus belongs to --on ray"),
        (["--dp", "2..4"], "belongs to --on ray"),
        (["--on", "ray", "--devices", "0"], "--devices takes cpu or gpu"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_is_asked(words: list[str], why: str) -> None:
    with pytest.raises(BadOption, match=why):
        pool.run(["plan", "8B", *words], lambda text: None)
