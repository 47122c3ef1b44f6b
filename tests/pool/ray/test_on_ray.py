"""Pools on a Ray cluster of two raylets: started, asked, found again, scaled, killed, stopped. One cluster for all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pool_fake import byte_model
from ray_cluster import RayCluster, have_ray

import holynb
from holynb import pools
from holynb.pools import PoolInfo

pytestmark = pytest.mark.skipif(not have_ray(), reason="needs the extra ray")

FAKE = "fake_runner:Runner"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    made = RayCluster(2, 4, tmp_path_factory.mktemp("nodes"), HOLYNB_FAKE_STEP="0.02")
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
        folder = options.pop("model", str(model))
        return pools.start(folder, name=name, on=cluster.on, **options)

    yield starts
    pools.stop("all")
    cluster.wait_gone("holynb.pool.worker")
    cluster.wait_gone("ray::Seat")


def ask(name: str, rows: int, **options: Any) -> Any:
    """A run of as many rows, whose answers echo them."""
    return holynb.infer([f"row {i} " * 8 for i in range(rows)], f"pool/{name}", max_tokens=60, cache=False, temperature=0, **options)


def check(run: Any, rows: int) -> None:
    """Every row is there, once, with its own answer."""
    assert run.wait(120)
    frame = run.frame()
    assert list(frame["status"]) == ["ok"] * rows, frame[["status", "error"]].to_string()
    assert [text[:6].strip() for text in frame["text"]] == [f"row {i}"[:6].strip() for i in range(rows)]


def wait(what: Any, seconds: float = 40.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return value


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
    cluster.wait_gone("ray::PoolServer")
    cluster.wait_gone("holynb.pool.worker")
