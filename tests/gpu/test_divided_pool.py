"""Pools that divide a model over two GPUs, over HTTP: NCCL between the ranks says what one process on the CPU says, and nothing is left on a device."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from pool_fake import Pool, Pools

torch = pytest.importorskip("torch")

DEVICES = ("cuda:0", "cuda:1")
PROMPTS = tiny.prompts(6, 256)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.talking(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pools]:
    found = Pools(tmp_path)
    yield found
    found.end()


def start(pools: Pools, folder: Path, devices: tuple[str, ...], *flags: str) -> Pool:
    real = (
        "--runner",
        "holynb.pool.engine.runner:Runner",
        "--model",
        str(folder),
        "--dtype",
        "float32",
        "--memory",
        "0.1",
        "--max-len",
        "256",
    )
    pool = pools.start(*real, "--devices", ",".join(devices), *flags, ready=False)
    pool.wait(lambda: pool.ask("/health")[1]["state"] != "starting", 120)
    pool.record = pool.now() or pool.record
    return pool


def answers(pool: Pool) -> list[str]:
    body: dict[str, Any] = {"prompt": PROMPTS, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    status, said = pool.ask("/v1/completions", body)
    assert status == 200, (said, pool.log())
    return [choice["text"] for choice in said["choices"]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> list[str]:
    pools = Pools(tmp_path_factory.mktemp("one"))
    try:
        return answers(start(pools, folder, ("cpu",)))
    finally:
        pools.end()


@pytest.mark.parametrize("flags", [("--tp", "2"), ("--pp", "2", "--micro", "3")], ids=["tp2", "pp2"])
def test_two_gpus_say_the_same_and_are_given_back(made: Pools, folder: Path, expected: list[str], flags: tuple[str, ...]) -> None:
    pool = start(made, folder, DEVICES, *flags)
    assert answers(pool) == expected, pool.log()
    (replica,) = pool.ask("/health")[1]["replicas"]
    assert len(replica["ranks"]) == 2
    if "--pp" in flags:
        pool.wait(lambda: len(pool.ask("/health")[1]["replicas"][0]["stages"]) == 2)
    pool.process.terminate()
    assert pool.process.wait(20) == 0
    assert not [r for r in pool.record.ranks if r.alive]


def test_a_killed_rank_ends_its_peer_and_frees_both_gpus(made: Pools, folder: Path) -> None:
    pool = start(made, folder, DEVICES, "--tp", "2")
    ranks = pool.record.ranks
    os.kill(ranks[1].pid, signal.SIGKILL)
    pool.wait(lambda: not any(r.alive for r in ranks), 10)
    assert pool.process.wait(10) == 1
    assert "was killed by SIGKILL" in pool.log()
