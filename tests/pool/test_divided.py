"""Pools whose replicas are several processes, over HTTP: they say what one process says, and one dead rank ends its replica alone."""

from __future__ import annotations

import base64
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny
from pool_fake import Pool, Pools

from holynb import pools
from holynb.errors import BadRoute
from holynb.ui.commands import pool as pool_command

pytest.importorskip("torch")

PROMPTS = tiny.prompts(6, 256)
TOKENS = 12
REAL = ("--runner", "holynb.pool.engine.runner:Runner")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, with a tokenizer of bytes."""
    return tiny.talking(tmp_path_factory.mktemp("tiny"))


class Tiny(Pools):
    """Pools of the real runner over one tiny model."""

    def __init__(self, home: Path, model: Path) -> None:
        super().__init__(home)
        self._model = model

    def start_parallel(self, *flags: str, dp: int = 1, tp: int = 1, pp: int = 1, **env: str) -> Pool:
        devices = ",".join(["cpu"] * (dp * tp * pp))
        more = ["--tp", str(tp), "--pp", str(pp), "--devices", devices, "--model", str(self._model), *REAL, *flags]
        return self.start(*more, OMP_NUM_THREADS="1", **env)


@pytest.fixture
def tiny_pools(tmp_path: Path, folder: Path) -> Iterator[Tiny]:
    tiny_pools = Tiny(tmp_path, folder)
    yield tiny_pools
    tiny_pools.end()


def ask(pool: Pool, ids: list[int], tokens: int) -> dict[str, Any]:
    status, answer = pool.ask("/v1/completions", {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True})
    assert status == 200, answer
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def all_of(pool: Pool, more: int = 0) -> list[str]:
    """The answers to all prompts, asked at once."""
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i, p=p: texts.update({i: ask(pool, p, TOKENS + i + more)["text"]})) for i, p in enumerate(PROMPTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [texts[i] for i in range(len(PROMPTS))]


def figures(pool: Pool) -> dict[str, float]:
    """The page of /metrics."""
    lines = [line.rpartition(" ") for line in pool.ask("/metrics")[1].splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    """What one process answers."""
    from holynb.pool.engine.runner import Runner
    from holynb.pool.protocol import Job
    from holynb.pool.server.tokenizer import ChatTokenizer

    runner, text = Runner(folder), ChatTokenizer(folder)
    tokens: dict[int, list[int]] = {i: [] for i in range(len(PROMPTS))}
    for i, ids in enumerate(PROMPTS):
        runner.add(Job(i, tuple(ids), TOKENS + i, ignore_eos=True))
    while not runner.idle:
        for emit in runner.step():
            tokens[emit.id] += emit.tokens
    return [text.decode(ids_out) for ids_out in tokens.values()]


def alone(folder: Path) -> list[Any]:
    """The vectors that one process makes of the prompts."""
    from holynb.pool.engine.runner import Runner
    from holynb.pool.protocol import Job

    runner, vectors = Runner(folder), {}
    for i, ids in enumerate(PROMPTS):
        runner.add(Job(i, tuple(ids), 1, pooling="mean"))
    while not runner.idle:
        vectors.update({e.id: np.frombuffer(base64.b64decode(e.vector), "<f4") for e in runner.step()})
    return [vectors[i] for i in range(len(PROMPTS))]


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)


def pids_of(pool: Pool) -> list[int]:
    record = pool.now()
    assert record is not None
    return [r.pid for r in record.ranks]


def running(pool: Pool) -> list[bool]:
    return [bool(r.get("running")) for r in pool.ask("/health")[1]["replicas"]]


def test_tensor_parallel_says_the_same_and_a_killed_server_takes_all_ranks_along(
    tiny_pools: Tiny, expected: list[str], folder: Path
) -> None:
    pool = tiny_pools.start_parallel(tp=2)
    assert all_of(pool) == expected
    status, answer = pool.ask("/v1/embeddings", {"input": PROMPTS, "encoding_format": "float"})
    assert status == 200, answer
    np.testing.assert_allclose([d["embedding"] for d in answer["data"]], alone(folder), atol=1e-4, rtol=0)
    assert len(pids_of(pool)) == 2
    pool.process.kill()
    pool.wait(lambda: gone([r.pid for r in pool.record.ranks]), 5)


def test_a_pipeline_says_the_same_tells_how_busy_its_stages_are_and_ends_cleanly(tiny_pools: Tiny, expected: list[str]) -> None:
    pool = tiny_pools.start_parallel("--micro", "3", pp=2)
    pids = pids_of(pool)
    assert all_of(pool) == expected
    status, answer = pool.ask("/v1/embeddings", {"input": PROMPTS})
    assert (status, answer["error"]["message"].partition(",")[0]) == (400, "This pool divides its model into 2 stages (--pp)")
    pool.wait(lambda: all(s.get("busy") for r in pool.ask("/health")[1]["replicas"] for s in r["ranks"]))
    (replica,) = pool.ask("/health")[1]["replicas"]
    metrics = figures(pool)
    for stage, share in enumerate(replica["stages"]):
        assert 0 < share <= 1
        assert 0 < metrics[f'holynb_stage_busy_share{{replica="0",stage="{stage}"}}'] <= 1
    assert len(replica["stages"]) == 2
    assert metrics['holynb_pipeline_batches{replica="0"}'] == 3
    assert all(metrics[f'holynb_device_memory_bytes{{device="cpu",part="ours",replica="0",rank="{n}"}}'] for n in range(2))
    each = [s["weights_bytes"] for s in replica["ranks"]]
    assert metrics['holynb_weights_bytes{replica="0"}'] == sum(each)
    assert max(each) < 0.75 * sum(each), "no rank holds the whole model"
    pool.process.terminate()
    assert pool.process.wait(10) == 0
    assert gone(pids)
    assert "was killed" not in pool.log(), "the leader let its follower go"
    assert "Traceback" not in pool.log()


def test_two_replicas_of_two_say_the_same_and_a_killed_follower_ends_one_of_them(tiny_pools: Tiny, expected: list[str]) -> None:
    pool = tiny_pools.start_parallel(dp=2, tp=2)
    pids = pids_of(pool)
    assert all_of(pool) == expected
    answers: list[list[str]] = []
    asking = threading.Thread(target=lambda: answers.append(all_of(pool, more=40)))
    asking.start()
    pool.wait(lambda: all(running(pool)))
    os.kill(pids[3], signal.SIGKILL)
    pool.wait(lambda: gone(pids[2:]), 5)
    asking.join(60)
    assert [text[: len(e) - 6] for text, e in zip(answers[0], expected, strict=True)] == [e[: len(e) - 6] for e in expected]
    assert [gone([p]) for p in pids] == [False, False, True, True]
    health = pool.ask("/health")[1]
    assert len(health["replicas"]) == 1
    (how,) = health["deaths"]
    assert how.startswith(f"rank 1 of 2, process {pids[3]} was killed by SIGKILL")


def test_a_dead_replica_comes_back_where_that_is_wanted_and_then_says_why_it_does_not(tiny_pools: Tiny, expected: list[str]) -> None:
    pool = tiny_pools.start_parallel("--restart", "1", tp=2)
    before = pids_of(pool)
    os.kill(before[1], signal.SIGKILL)
    pool.wait(lambda: gone(before), 5)
    assert all_of(pool) == expected, "rows waited for it"
    after = pids_of(pool)
    assert not set(after) & set(before)
    assert len(after) == 2
    answers: list[Any] = []
    body = {"prompt": [5, 6, 7], "max_tokens": 400, "temperature": 0, "ignore_eos": True}
    asking = threading.Thread(target=lambda: answers.append(pool.ask("/v1/completions", body)))
    asking.start()
    pool.wait(lambda: any(running(pool)))
    os.kill(after[1], signal.SIGKILL)
    asking.join(10)
    status, answer = answers[0]
    assert (status, answer["error"]["code"]) == (500, "replica_died")
    assert f"rank 1 of 2, process {after[1]} was killed by SIGKILL" in answer["error"]["message"]
    assert pool.process.wait(10) == 1
    assert gone(after)
    assert list((pool.home / "run").iterdir()) == []


@pytest.mark.parametrize(("sizes", "words"), [({"tp": 3}, "--tp can be 1, 2, 4, 8"), ({"pp": 5}, "--pp can be 1 to 4")])
def test_a_cut_that_does_not_divide_says_what_does(folder: Path, home: Path, sizes: dict[str, int], words: str) -> None:
    with pytest.raises(BadRoute, match=words) as caught:
        pools.start(str(folder), devices="cpu", **sizes)  # type: ignore[arg-type]
    assert "did not start: 8 heads, 4 KV heads" in str(caught.value) or "did not start: 4 layers" in str(caught.value)
    assert list((home / "run").iterdir()) == []
    assert not list((home / "logs").glob("*.rank*")), "no rank was started"


def test_from_the_command_line(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text, _ = pool_command.run(["start", str(folder), "--name", "t", "--tp", "2", "--devices", "cpu"], lambda text: None)
    try:
        assert text.startswith("pool/t is ready")
        info = pools.status("t")
        assert (len(info.ranks), info.parallelism) == (2, "--tp 2")
        assert "as         --tp 2" in pool_command.run(["status", "t"], lambda text: None)[0]
    finally:
        pools.stop("t")
