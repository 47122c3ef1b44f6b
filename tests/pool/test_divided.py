"""Pools whose replicas are several processes, over HTTP: they say what one process says, and one dead rank ends its replica alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
from pool_fake import Pool, Pools, byte_model

from holynb import pools
from holynb.errors import BadRoute
from holynb.ui import poolwords

pytest.importorskip("torch")

REAL = ("--runner", "holynb.pool.runner:Runner")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, with a tokenizer of bytes."""
    made = tmp_path_factory.mktemp("tiny")
    byte_model(made)
    (made / "model.safetensors").unlink()
    tiny.make("llama", made)
    return made


class Tiny(Pools):
    """Pools of the real runner over one tiny model."""

    def __init__(self, home: Path, model: Path) -> None:
        super().__init__(home)
        self._model = model

    def divided(self, *flags: str, dp: int = 1, tp: int = 1, pp: int = 1, **env: str) -> Pool:
        devices = ",".join(["cpu"] * (dp * tp * pp))
        more = ["--tp", str(tp), "--pp", str(pp), "--devices", devices, "--model", str(self._model), *REAL, *flags]
        return self.start(*more, OMP_NUM_THREADS="1", **env)


@pytest.fixture
def made(tmp_path: Path, folder: Path) -> Iterator[Tiny]:
    found = Tiny(tmp_path, folder)
    yield found
    found.end()


def ask(pool: Pool, ids: list[int], tokens: int) -> dict[str, Any]:
    status, said = pool.ask("/v1/completions", {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True})
    assert status == 200, said
    choice: dict[str, Any] = said["choices"][0]
    return choice


def all_of(pool: Pool, prompts: list[list[int]], tokens: int) -> list[str]:
    """The answers to prompts that are asked at once."""
    said: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i, p=p: said.update({i: ask(pool, p, tokens + i)["text"]})) for i, p in enumerate(prompts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [said[i] for i in range(len(prompts))]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> list[str]:
    """What one process answers."""
    pools = Tiny(tmp_path_factory.mktemp("one"), folder)
    try:
        return all_of(pools.divided(), tiny.prompts(6, 256), 12)
    finally:
        pools.end()


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)


@pytest.mark.parametrize(
    ("sizes", "flags"), [({"tp": 2}, ()), ({"pp": 2}, ("--micro", "3")), ({"dp": 2, "tp": 2}, ())], ids=["tp2", "pp2", "dp2 tp2"]
)
def test_the_same_answers_as_one_process(made: Tiny, expected: list[str], sizes: dict[str, int], flags: tuple[str, ...]) -> None:
    pool = made.divided(*flags, **sizes)  # type: ignore[arg-type]
    assert len(pool.record.ranks) == sizes.get("dp", 1) * sizes.get("tp", 1) * sizes.get("pp", 1)
    assert all_of(pool, tiny.prompts(6, 256), 12) == expected
    pids = [r.pid for r in pool.record.ranks]
    begin = time.monotonic()
    pool.process.terminate()
    pool.process.wait(10)
    assert gone(pids)
    assert time.monotonic() - begin < 10
    assert "was killed" not in pool.log()
    assert "Traceback" not in pool.log()


def test_a_killed_follower_ends_its_replica_and_the_other_serves_on(made: Tiny, expected: list[str]) -> None:
    pool = made.divided(dp=2, tp=2)
    pids = [r.pid for r in pool.record.ranks]
    said: list[list[str]] = []
    asking = threading.Thread(target=lambda: said.append(all_of(pool, tiny.prompts(6, 256), 100)))
    asking.start()
    pool.wait(lambda: all(r.get("running") for r in pool.ask("/health")[1]["replicas"]))
    os.kill(pids[3], signal.SIGKILL)
    pool.wait(lambda: gone(pids[2:]), 5)
    asking.join(60)
    assert [text[: len(e) - 6] for text, e in zip(said[0], expected, strict=True)] == [e[: len(e) - 6] for e in expected]
    assert not gone(pids[:1])
    assert not gone(pids[1:2])
    health = pool.ask("/health")[1]
    assert len(health["replicas"]) == 1
    assert health["deaths"] == [d for d in health["deaths"] if d.startswith(f"rank 1 of 2, process {pids[3]} was killed by SIGKILL")]
    assert len(health["deaths"]) == 1


def test_a_killed_follower_of_the_only_replica_is_an_error_that_says_why(made: Tiny) -> None:
    pool = made.divided(pp=2)
    pids = [r.pid for r in pool.record.ranks]
    found: list[Any] = []
    body = {"prompt": [5, 6, 7], "max_tokens": 400, "temperature": 0, "ignore_eos": True}
    asking = threading.Thread(target=lambda: found.append(pool.ask("/v1/completions", body)))
    asking.start()
    pool.wait(lambda: any(r.get("running") for r in pool.ask("/health")[1]["replicas"]))
    os.kill(pids[1], signal.SIGKILL)
    asking.join(10)
    status, said = found[0]
    assert (status, said["error"]["code"]) == (500, "replica_died")
    assert f"rank 1 of 2, process {pids[1]} was killed by SIGKILL" in said["error"]["message"]
    pool.process.wait(10)
    assert gone(pids)
    assert list((pool.home / "run").iterdir()) == []


def test_a_dead_replica_comes_back_where_that_is_wanted_and_its_rows_wait(made: Tiny, expected: list[str]) -> None:
    pool = made.divided("--restart", "1", tp=2)
    before = [r.pid for r in pool.record.ranks]
    os.kill(before[1], signal.SIGKILL)
    pool.wait(lambda: gone(before), 5)
    assert all_of(pool, tiny.prompts(6, 256), 12) == expected
    record = pool.now()
    assert record is not None
    after = [r.pid for r in record.ranks]
    assert len(after) == 2
    assert not set(after) & set(before)
    os.kill(after[0], signal.SIGKILL)
    assert pool.process.wait(10) == 1
    assert gone(after)


def test_a_killed_server_takes_all_ranks_along(made: Tiny) -> None:
    pool = made.divided(tp=2)
    pool.process.kill()
    pool.wait(lambda: gone([r.pid for r in pool.record.ranks]), 5)


@pytest.mark.parametrize(("sizes", "words"), [({"tp": 3}, "--tp can be 1, 2, 4, 8"), ({"pp": 5}, "--pp can be 1 to 4")])
def test_a_cut_that_does_not_divide_says_what_does(folder: Path, home: Path, sizes: dict[str, int], words: str) -> None:
    with pytest.raises(BadRoute, match=words):
        pools.start(str(folder), devices="cpu", **sizes)
    assert list((home / "run").iterdir()) == []
    assert not list((home / "logs").glob("*.rank*")), "no rank was started"


def test_from_the_command_line(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text, _ = poolwords.run(["start", str(folder), "--name", "t", "--tp", "2", "--devices", "cpu"], lambda text: None)
    try:
        assert text.startswith("pool/t is ready")
        assert len(pools.status("t").ranks) == 2
    finally:
        pools.stop("t")
