"""A replica that dies is started again as often as was asked for, also when it dies while it loads; rows wait, and hear why in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pool_fake import Pool, Pools

from holynb.pool.protocol import Job, LoadModel
from holynb.pool.server import config
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.rank import Pings, Rank, root_cause
from holynb.pool.server.replica import Generation, Replica
from kernels_support.jupyter.supervisor import Command

HERE = Path(__file__).parent.parent


def workers(pool: Pool) -> list[int]:
    """Ranks that live now, found among the server's children."""
    pids = []
    for child in psutil.Process(pool.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if child.status() != psutil.STATUS_ZOMBIE and "holynb.pool.worker" in " ".join(child.cmdline()):
                pids.append(child.pid)
    return pids


def other(pool: Pool, before: int) -> int:
    """The rank that was started in its place."""
    pids: list[int] = pool.wait(lambda: [p for p in workers(pool) if p != before])
    return pids[0]


def test_it_comes_back_also_when_it_dies_while_loading(pools: Pools) -> None:
    pool = pools.start("--restart", "2", HOLYNB_FAKE_LOAD="0.5")
    first = pool.record.ranks[0].pid
    got: list[Any] = []
    body = {"messages": [{"role": "user", "content": "hello there"}]}
    os.kill(first, signal.SIGKILL)
    asking = threading.Thread(target=lambda: got.append(pool.ask("/v1/chat/completions", body)))
    second = other(pool, first)
    asking.start()
    os.kill(second, signal.SIGKILL)
    third = other(pool, second)
    asking.join(20)
    assert got[0][0] == 200
    assert got[0][1]["choices"][0]["message"]["content"] == "hello there"
    health = pool.ask("/health")[1]
    assert (health["state"], len(health["replicas"]), len(health["deaths"])) == ("ready", 1, 2)
    assert [c["what"] for c in health["changes"]] == ["lost", "lost", "came back"]
    assert health["restarting"] == 0
    os.kill(third, signal.SIGKILL)
    assert pool.process.wait(10) == 1
    assert "its last replica is gone" in pool.log()
    assert "was started again" in pool.log()


def test_rows_that_wait_hear_why_it_does_not_come_back(pools: Pools) -> None:
    pool = pools.start("--restart", "1", HOLYNB_FAKE_LOAD="0.5")
    first = pool.record.ranks[0].pid
    os.kill(first, signal.SIGKILL)
    second = other(pool, first)
    got: list[Any] = []
    asking = threading.Thread(target=lambda: got.append(pool.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})))
    asking.start()
    pool.wait(lambda: pool.ask("/health")[1]["requests"])
    os.kill(second, signal.SIGKILL)
    asking.join(10)
    status, answer = got[0]
    assert (status, answer["error"]["code"]) == (500, "replica_died")
    assert "SIGKILL" in answer["error"]["message"]
    assert pool.process.wait(10) == 1


def test_a_pool_that_is_told_to_end_starts_nothing_again(pools: Pools) -> None:
    pool = pools.start("--restart", "9", HOLYNB_FAKE_LOAD="0.5")
    first = pool.record.ranks[0].pid
    os.kill(first, signal.SIGKILL)
    second = other(pool, first)
    pool.process.terminate()
    assert pool.process.wait(10) == 0
    assert not psutil.pid_exists(second) or psutil.Process(second).status() == psutil.STATUS_ZOMBIE


def dead(code: int | None, words: str | None = None, *, oom: bool = False) -> Any:
    return SimpleNamespace(child=SimpleNamespace(code=code), error=words, oom=oom)


@pytest.mark.parametrize(
    ("ranks", "number"),
    [
        ([dead(1, "failed: RuntimeError: [gloo] Connection closed by peer"), dead(-9)], 1),
        ([dead(1, "failed: RuntimeError: Connection reset by peer"), dead(1, "failed: OutOfMemoryError: CUDA out of memory")], 1),
        ([dead(None), dead(0), dead(None)], 1),
        ([dead(1, "failed: NCCL error"), dead(1, "failed: NCCL error")], 0),
        ([dead(None), dead(1, "failed: connection closed by peer"), dead(-11)], 2),
        ([dead(None), dead(None, "could not be started: Too many open files")], 1),
        ([dead(0), dead(None, "sent something that is not a frame")], 1),
        ([dead(1, "failed: FileNotFoundError"), dead(1, "ran out of memory", oom=True)], 1),
        ([dead(-6), dead(1, "ran out of memory", oom=True)], 1),
    ],
)
def test_the_rank_that_ended_the_others_is_named(ranks: list[Rank], number: int) -> None:
    assert ranks.index(root_cause(ranks)) == number


#: A rank that closes its socket and is killed some time later; and its peer, which sends its error first.
SLOW_TO_DIE = """
import os, signal, sys, time
from pathlib import Path
from kernels_support.jupyter import supervisor, wire
sock, flag = supervisor.control(), Path(sys.argv[1])
if sys.argv[2] == "peer":
    flag.touch()
    sock.sendall(wire.encode({"t": "failed", "message": "RuntimeError: Connection closed by peer"}))
    os._exit(1)
while not flag.exists():
    time.sleep(0.01)
time.sleep(0.3)
sock.close()
time.sleep(1.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_reason_is_known_also_where_the_dead_one_takes_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its peer says at once that it is gone; how, only its end tells, and a device that is let go holds that up."""
    monkeypatch.setattr("holynb.pool.server.replica._PEERS_GRACE_S", 1.0)
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    commands = [Command([sys.executable, "-c", SLOW_TO_DIE, str(tmp_path / "flag"), who], env=path) for who in ("victim", "peer")]

    load = LoadModel("/nowhere", "cpu", None, None, 0.9)

    async def work() -> str:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        replica = Replica([(c, load) for c in commands], lambda which, why, left: ended.set_result(why))
        await replica.start()
        why = await asyncio.wait_for(ended, 20)
        await replica.stop()
        return why

    assert "rank 0 of 2" in (why := asyncio.run(work()))
    assert "SIGKILL" in why


#: A rank that says that memory ran out, and is gone.
OUT_OF_MEMORY = """
import os
from kernels_support.jupyter import supervisor, wire
sock = supervisor.control()
next(wire.frames(sock))
sock.sendall(wire.encode({"t": "failed", "message": "MemoryError", "oom": True}))
os._exit(1)
"""


def test_what_a_rank_said_is_heard_also_where_a_row_reaches_it_too_late() -> None:
    """The server writes to a rank that is gone, and only then comes to read its last words."""
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}

    async def work() -> tuple[bool, str, int]:
        ended: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        command = Command([sys.executable, "-c", OUT_OF_MEMORY], env=path)
        replica = Replica(
            [(command, LoadModel("/nowhere", "cpu", None, None, 0.9))], lambda which, why, left: ended.set_result((why, len(left)))
        )
        await replica.start()
        assert replica.ranks[0].child is not None
        assert replica.ranks[0].child.wait(20), "the loop stands still meanwhile"
        replica.add(Generation(Job(1, (5, 6), 40)))
        said = await asyncio.wait_for(ended, 20)
        await replica.stop()
        return replica.oom, *said

    oom, why, left = asyncio.run(work())
    assert "ran out of memory (MemoryError)" in why
    assert (oom, left) == (True, 1)


def test_a_rank_that_is_stopped_is_ended_and_its_rows_hear_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It keeps its socket open: nothing but its silence tells."""
    monkeypatch.setattr("holynb.pool.server.rank.Rank.pings", Pings(0.1, 5))
    plan = PoolConfig("echo", "m", tmp_path, runner="fake_runner:Runner")
    command = replace(
        config.rank_command(plan, 0), env={"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "HOLYNB_FAKE_STEP": "0.7"}
    )

    async def work() -> tuple[Replica, list[Any]]:
        ended: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        replica = Replica(
            [(command, config.load_model(plan, tmp_path, 0, tmp_path / "meet"))], lambda *arguments: ended.set_result([*arguments])
        )
        await replica.start()
        assert await replica.wait_ready()
        row = Generation(Job(1, tuple(range(40)), 40))
        replica.add(row)
        while len(row.tokens) < 3:  # a step takes longer than the beats that may be missed: a rank that computes answers all the same
            await row.wait_update(0.0)
        assert replica.end_reason is None
        replica.processes[0].signal(signal.SIGSTOP)
        arguments = await asyncio.wait_for(ended, 10)
        await replica.stop()
        return replica, arguments

    replica, (which, why, left) = asyncio.run(work())
    assert which is replica
    assert "did not respond for 0.5 s (stopped or hung)" in why
    assert len(left) == 1
    assert replica.ranks[0].child is not None
    assert replica.ranks[0].child.code == -signal.SIGKILL
