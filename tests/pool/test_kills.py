"""Random kills of ranks, server and clients: no orphan process, no lost row, no hang. 10 rounds by default, 200 as `-m slow`."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from typing import Any

import psutil
import pytest
from pool_fake import Pool, Pools

ROWS = 8
PATIENCE_S = 10.0
VICTIMS = ("one rank", "all ranks but one", "all ranks", "server", "clients", "frozen rank")


def text_of(row: int) -> str:
    return f"row {row}: " + "한글 text " * 3


class Client(threading.Thread):
    """Asks for one row. `ended` is ok, error or gone, with what was said."""

    def __init__(self, pool: Pool, row: int) -> None:
        super().__init__(daemon=True)
        self.connection = pool.connect(timeout=PATIENCE_S)
        self.row = row
        self.ended: tuple[str, Any] | None = None

    def run(self) -> None:
        body = {"messages": [{"role": "user", "content": text_of(self.row)}], "max_tokens": 200}
        try:
            self.connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
            answer = self.connection.getresponse()
            said = json.loads(answer.read())
            self.ended = ("ok", said["choices"][0]["message"]["content"]) if answer.status == 200 else ("error", said["error"]["message"])
        except TimeoutError:
            self.ended = ("hang", None)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self.ended = ("gone", exc)
        finally:
            self.connection.close()


def kill(pool: Pool, victim: str, clients: list[Client], rng: random.Random) -> None:
    ranks = [r.pid for r in pool.record.ranks]
    rng.shuffle(ranks)
    chosen = {
        "one rank": ranks[:1],
        "all ranks but one": ranks[1:],
        "all ranks": ranks,
        "server": [pool.process.pid],
        "frozen rank": ranks[:1],
    }
    if victim == "clients":
        for client in clients[: ROWS // 2]:
            if (sock := client.connection.sock) is not None:
                sock.shutdown(2)
        return
    for pid in chosen[victim]:
        if victim == "frozen rank":
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def one_round(pools: Pools, rng: random.Random) -> None:
    pool = pools.start("--devices", "cpu,cpu,cpu", HOLYNB_FAKE_STEP="0.005")
    pids = [pool.process.pid, *(r.pid for r in pool.record.ranks)]
    victim = rng.choice(VICTIMS)
    clients = [Client(pool, row) for row in range(ROWS)]
    for client in clients:
        client.start()
    time.sleep(rng.uniform(0, 0.4))
    kill(pool, victim, clients, rng)
    end = time.monotonic() + PATIENCE_S
    for client in clients:
        client.join(max(0.0, end - time.monotonic()))
    for client in clients:
        assert client.ended is not None, (victim, "a row without an end")
        how, said = client.ended
        assert how != "hang", victim
        if how == "ok":
            assert said == text_of(client.row), (victim, said)
        if how == "error":
            assert "SIGKILL" in said, (victim, said)
        if victim in {"one rank", "all ranks but one", "frozen rank"}:
            assert how == "ok", (victim, said)
        if victim == "clients" and client.row >= ROWS // 2:
            assert how == "ok", (victim, said)
    pool.process.terminate()
    pool.process.wait(PATIENCE_S)
    gone, left = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], timeout=5)
    assert not left, (victim, left, gone)


def test_ten_random_kills(pools: Pools) -> None:
    rng = random.Random(10)
    for _ in range(10):
        one_round(pools, rng)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_random_kills(pools: Pools) -> None:
    rng = random.Random(200)
    for _ in range(200):
        one_round(pools, rng)
