"""Pools on a Ray cluster of two raylets: started, asked, found again, scaled, killed, stopped. One cluster for all of them.

All are `slow`: a start loads Ray in four processes, and a raylet gives up where that takes more than half a minute beside other tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
from pool_fake import byte_model
from ray_cluster import RayCluster, have_ray
from servers.unix import connect

import holynb
from holynb import pools
from holynb.errors import HolynbError
from holynb.pools import PoolInfo

# A machine with much other work starts the cluster in five minutes.
pytestmark = [pytest.mark.skipif(not have_ray(), reason="needs the extra ray"), pytest.mark.timeout(1500)]

FAKE = "fake_runner:Runner"
#: How long Ray may take to end what it was told to end, on a busy machine.
GONE_S = 60.0


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this machine that the nodes do not see."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, hidden: Path) -> Iterator[RayCluster]:
    # Four GPUs that nobody has: what is planned with them is real, and the fake runner asks for none.
    made = RayCluster(2, 4, tmp_path_factory.mktemp("nodes"), [range(4)] * 2, HOLYNB_FAKE_STEP="0.02", HIDDEN=str(hidden))
    yield made
    made.end()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_model(tmp_path_factory.mktemp("model") / "bytes")


@pytest.fixture
def start(cluster: RayCluster, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts pools of the fake runner, each test's in a home of its own, and ends them."""
    monkeypatch.setenv("HOLYNB_POOL_RUNNER", FAKE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def starts(name: str, **options: Any) -> PoolInfo:
        return pools.start(str(options.pop("model", model)), name=name, **{"on": cluster.on, "devices": "cpu", **options})

    yield starts
    pools.stop("all")
    cluster.wait_gone("holynb.pool.worker", GONE_S)
    cluster.wait_gone("ray::Seat", GONE_S)


def ask(name: str, rows: int, **options: Any) -> Any:
    """A run of as many rows, whose answers echo them."""
    return holynb.infer([f"row {i} " * 8 for i in range(rows)], f"pool/{name}", max_tokens=60, cache=False, temperature=0, **options)


def check(run: Any, rows: int) -> None:
    """Every row is there, once, with its own answer."""
    assert run.wait(300)
    frame = run.frame()
    assert list(frame["status"]) == ["ok"] * rows, frame[["status", "error"]].to_string()
    assert [text[:6].strip() for text in frame["text"]] == [f"row {i}"[:6].strip() for i in range(rows)]


def wait(what: Any, seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return value


@pytest.mark.slow
def test_two_replicas_answer_and_lose_no_row_where_actors_ranks_and_the_client_are_killed(start: Any, cluster: RayCluster):
    info = start("two", dp=2)
    assert (info.state, info.dp, info.on) == ("ready", 2, cluster.on)
    run = ask("two", 32)
    victims = [("holynb.pool.worker", signal.SIGSTOP), ("ray::Seat", signal.SIGKILL), ("ray::PoolServer", signal.SIGKILL)]
    for word, number in victims:
        time.sleep(0.7)  # in the middle of the run
        cluster.named(word)[0].send_signal(number)
    time.sleep(0.5)
    os.kill(info.pid, signal.SIGKILL)  # the client's process: the pool lives on, and is found again
    check(run, 32)
    again = pools.status("two")
    assert again.pid != info.pid
    wait(lambda: len(pools.status("two").replicas) == 2)
    logs = pools.logs("two", 5)
    assert sum("loaded bytes on cpu" in line for line in logs) >= 1, "the log of every rank, from its node"
    assert pools.stop("two") == ["two"]
    cluster.wait_gone("ray::PoolServer", GONE_S)
    cluster.wait_gone("holynb.pool.worker", GONE_S)


@pytest.mark.slow
def test_a_server_that_is_killed_comes_again_to_the_ranks_that_it_had(start: Any, cluster: RayCluster):
    start("kept", dp=2, tp=2)
    ranks = {p.pid for p in cluster.named("holynb.pool.worker")}
    run = ask("kept", 48)
    wait(lambda: pools.status("kept").requests)
    cluster.named("ray::PoolServer")[0].kill()
    check(run, 48)
    info = pools.status("kept")
    assert [m["what"] for m in info.moves] == ["taken over"] * 2
    assert len(info.replicas) == 2
    assert {p.pid for p in cluster.named("holynb.pool.worker")} == ranks, "their weights were not loaded anew"


@pytest.mark.slow
def test_rows_of_a_rank_that_is_killed_or_stopped_go_on_elsewhere_within_seconds(start: Any, cluster: RayCluster):
    start("moves", dp=2)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        wait(lambda: len(pools.status("moves").replicas) == 2)
        run = ask("moves", 48)
        wait(lambda: pools.status("moves").requests)
        at = time.time()
        cluster.named("holynb.pool.worker")[0].send_signal(number)
        check(run, 48)
        move = next(m for m in pools.status("moves").moves if m["what"] == "lost" and m["at"] >= at)
        assert move["rows"] > 0
        assert move["at"] - at + move["again_s"] < 20, "on a quiet machine 5"


def refused(start: Any, name: str, **options: Any) -> str:
    with pytest.raises(HolynbError) as caught:
        start(name, **options)
    return str(caught.value)


@pytest.mark.slow
def test_what_cannot_be_is_one_line_that_says_what_to_do(start: Any, cluster: RayCluster):
    assert "No Ray cluster answers at ray://127.0.0.1:1 (Connection refused)" in refused(start, "nobody", on="ray://127.0.0.1:1")
    said = refused(start, "large", tp=5)
    assert "0 replicas of 5 (1 CPU a rank, STRICT_PACK) fit on 127.0.0.3: 4 GPUs, 4 CPUs, 127.0.0.4: 4 GPUs, 4 CPUs" in said
    assert "--wait-nodes" in said
    started = time.monotonic()
    assert "needs 8 CPU, and the cluster has no such place free" in refused(start, "waits", cpus=8, wait_nodes=1.0)
    assert time.monotonic() - started < 180
    assert "0 replicas of 5 (1 GPU, 1 CPU a rank, STRICT_PACK) fit on 127.0.0.3: 4 GPUs" in refused(start, "gpus", devices="gpu", tp=5)
    assert "needs 5 CPU, 5 GPU, and the cluster" in refused(start, "later", devices="gpu", tp=5, wait_nodes=1.0)


@pytest.mark.slow
def test_a_client_of_another_ray_is_told_so(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.59.0'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    said = refused(start, "other")
    assert "2.59.0" in said
    assert "Install the same Ray and Python minor as the cluster has" in said


@pytest.mark.slow
def test_a_name_that_is_taken_from_another_machine_is_refused_with_its_model(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
):
    start("one")
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "another"))  # a home of its own is as good as a machine
    said = refused(start, "one", model=byte_model(tmp_path / "bytes2"))
    assert "a pool named one is already running there" in said
    assert "Choose another --name" in said
    start("one")  # the same model: it is found by the cluster's address
    check(ask("one", 4), 4)
    monkeypatch.setenv("HOLYNB_HOME", str(home))


@pytest.mark.slow
def test_variables_and_a_folder_of_a_runtime_env_reach_the_ranks(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    env = {"env_vars": {"HOLYNB_FAKE_FAIL": "as its runtime_env says"}}
    assert "as its runtime_env says" in refused(start, "told", runtime_env=json.dumps(env))
    code = tmp_path / "code"
    code.mkdir()
    (code / "runner_from_afar.py").write_text("from fake_runner import Runner\n")
    monkeypatch.setenv("HOLYNB_POOL_RUNNER", "runner_from_afar:Runner")
    start("afar", runtime_env=json.dumps({"working_dir": str(code)}))
    check(ask("afar", 4), 4)
    said = refused(start, "nowhere", runtime_env=json.dumps({"working_dir": str(tmp_path / "no")}))
    assert "--runtime-env is not taken" in said


@pytest.mark.slow
def test_replicas_lie_where_the_plan_said_and_a_full_cluster_says_so(start: Any, cluster: RayCluster):
    def plan(**options: Any) -> dict[str, Any]:
        return pools.plan("Qwen/Qwen3-8B", on=cluster.on, gpus="80GB", **options)

    with pytest.raises(HolynbError, match="does not say how much memory"):
        pools.plan("8B", on=cluster.on)
    assert plan(dp=8, tp=2)["would"] == "--dp 4 --tp 2"
    planned = plan(tp=2)
    assert planned["best"]["flags"] == "--dp 4 --tp 2"
    start("placed", dp=4, tp=2, devices="gpu")
    lies = {node["address"]: node["replicas"] for node in pools.status("placed").nodes}
    assert lies == {node["address"]: [r["replica"] for r in node["replicas"]] for node in planned["nodes"]}
    assert "others use what is missing" in plan(dp=1, tp=2)["says"]


@pytest.mark.slow
def test_a_folder_of_this_machine_alone_is_sent_to_the_nodes(start: Any, cluster: RayCluster, hidden: Path):
    if not cluster.hides:
        pytest.skip("needs the right to mount")
    folder = byte_model(hidden / "mine")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes() + bytes(20_000_000))  # three pieces
    start("sent", model=folder, dp=2, cpus=3)  # one on each node
    check(ask("sent", 4), 4)
    sizes = {p.name: p.stat().st_size for p in folder.iterdir()}
    copies = list(cluster.home.glob("node*/models/sent-*"))
    assert [{p.name: p.stat().st_size for p in copy.iterdir()} for copy in copies] == [sizes, sizes], "once a node"
    assert any(line.startswith("sent ") and line.endswith(" s") for line in pools.logs("sent", 200))
    pools.stop("sent")
    for copy in copies:
        shutil.rmtree(copy)
    assert "is no folder on node" in refused(start, "nowhere", model="/no/such/model")


@pytest.mark.slow
def test_a_pool_grows_by_its_queue_and_nobody_s_lease_ends_it(start: Any, cluster: RayCluster, home: Path):
    info = start("grows", dp="1..2", lease=4.0)
    check(ask("grows", 60), 60)
    assert [m["what"] for m in pools.status("grows").moves] == ["asked for", "added"]
    assert {node["address"] for node in pools.status("grows").nodes} <= {"127.0.0.3", "127.0.0.4"}
    os.kill(info.pid, signal.SIGKILL)  # and nobody of this machine asks for it any more
    cluster.wait_gone("ray::PoolServer", GONE_S)
    cluster.wait_gone("holynb.pool.worker", GONE_S)


@pytest.mark.slow
def test_ranks_that_are_divided_over_nodes_say_what_one_says(
    start: Any, cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HOLYNB_POOL_RUNNER", "holynb.pool.engine.runner:Runner")
    folder = tiny.talking(tmp_path / "tiny")
    start("divided", model=folder, tp=2, pp=2, spread=True, max_len=128, dtype="float32")
    ids = tiny.prompts(1, 256)[0]
    expected = tiny.greedy(transformers.AutoModelForCausalLM.from_pretrained(folder), ids, 8)
    connection = connect(str(pools.find("divided").socket), 60)  # type: ignore[union-attr]  # it runs
    body = {"prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert len(pools.status("divided").nodes) == 2
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert answer["choices"][0]["text"] == tokenizer.decode(expected)


def node_of(cluster: RayCluster, process: psutil.Process) -> int:
    """The number of the node that this process runs on."""
    return next(cluster.raylets.index(p.pid) for p in process.parents() if p.pid in cluster.raylets)


@pytest.mark.slow
def test_a_server_that_comes_again_is_on_the_head_and_waits_until_there_are_places_for_its_replicas(start: Any, cluster: RayCluster):
    """Its nodes are others after it."""
    start("bare", dp=2, cpus=3)  # one on each node
    run = ask("bare", 32)
    wait(lambda: pools.status("bare").requests)
    for node in range(1, len(cluster.raylets)):
        cluster.do("remove", node=node)
    for _ in range(2):
        server = cluster.named("ray::PoolServer")[0]
        assert node_of(cluster, server) == 0, "also where Ray started it again"
        server.kill()
        wait(lambda old=server.pid: any(p.pid != old for p in cluster.named("ray::PoolServer")))
        wait(lambda: "waits for a place: 3 CPU" in pools.status("bare").progress)
    time.sleep(40)  # longer than a first start waits
    info = pools.status("bare")
    assert (info.state, run.done) == ("starting", False)
    cluster.do("add")
    check(run, 32)
    assert pools.status("bare").requests == 0
    cluster.do("add")
    wait(lambda: len(pools.status("bare").replicas) == 2)


@pytest.mark.slow
def test_a_cluster_that_dies_while_a_pool_starts_is_one_line(start: Any, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch):
    """The last one: the cluster is gone after it."""
    words: list[str] = []

    def starts() -> None:
        words.append(refused(start, "dies", runtime_env=json.dumps({"env_vars": {"HOLYNB_FAKE_LOAD": "60"}})))

    thread = threading.Thread(target=starts)
    thread.start()
    wait(lambda: cluster.named("holynb.pool.worker"))
    for process in cluster.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    thread.join(180)
    assert "\n" not in words[0]
    assert "cluster" in words[0]
