"""Random kills of ranks, leaders and followers, server and clients: no orphan process, no lost row, no hang.

10 rounds by default; 200, and 30 with real models, as `-m slow`.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
from pool_fake import Pool, Pools, byte_model

ROWS = 8
#: Seconds within which every row ends, on idle cores. Ranks that divide a model wait for each other some hundred times, and each
#: time for a core, so a busy machine gets more; never as much as the 30 s after which a silent rank is ended.
HANG_S, SILENCE_S = 10.0, 25.0
VICTIMS = ("one rank", "all ranks but one", "all ranks", "server", "clients", "frozen rank")


SHAPES: dict[str, tuple[str, ...]] = {
    "three": ("--devices", "cpu,cpu,cpu"),
    "dp2 tp2": ("--devices", "cpu,cpu,cpu,cpu", "--tp", "2"),
    "dp2 pp2": ("--devices", "cpu,cpu,cpu,cpu", "--pp", "2"),
    "tp2": ("--devices", "cpu,cpu", "--tp", "2"),
    "tp2 pp2": ("--devices", "cpu,cpu,cpu,cpu", "--tp", "2", "--pp", "2"),
}


def text_of(row: int) -> str:
    return f"row {row}: " + "한글 text " * 3


@dataclass(frozen=True)
class Scene:
    """The requests to a pool, and the expected answer to each row."""

    flags: tuple[str, ...]
    right: Mapping[int, str]
    env: Mapping[str, str]
    path: str = "/v1/chat/completions"

    def body(self, row: int) -> dict[str, Any]:
        if self.path.endswith("/chat/completions"):
            return {"messages": [{"role": "user", "content": text_of(row)}], "max_tokens": 200}
        return {"prompt": tiny.prompts(ROWS, 256)[row], "max_tokens": 60, "temperature": 0, "ignore_eos": True}

    def text(self, answer: Any) -> str:
        choice = answer["choices"][0]
        return str(choice["message"]["content"] if "message" in choice else choice["text"])


FAKE = Scene((), {row: text_of(row) for row in range(ROWS)}, {"HOLYNB_FAKE_STEP": "0.005"})


class Client(threading.Thread):
    """Requests one row. `ended`: ok, error, gone or hang, with the text or the error."""

    def __init__(self, pool: Pool, row: int, scene: Scene) -> None:
        super().__init__(daemon=True)
        self.scene = scene
        self.connection = pool.connect(timeout=SILENCE_S)
        self.row = row
        self.ended: tuple[str, Any] | None = None

    def run(self) -> None:
        try:
            self.connection.request("POST", self.scene.path, json.dumps(self.scene.body(self.row)).encode())
            answer = self.connection.getresponse()
            body = json.loads(answer.read())
            self.ended = ("ok", self.scene.text(body)) if answer.status == 200 else ("error", body["error"]["message"])
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


def one_round(pools: Pools, rng: random.Random, scene: Scene, shape: str) -> str:
    """One pool, one kill. Returns who was killed."""
    pool = pools.start(*scene.flags, *SHAPES[shape], **scene.env)
    size = {"three": 1, "tp2 pp2": 4}.get(shape, 2)
    pids = [pool.process.pid, *(r.pid for r in pool.record.ranks)]
    victim = rng.choice(VICTIMS)
    clients = [Client(pool, row, scene) for row in range(ROWS)]
    for client in clients:
        client.start()
    time.sleep(rng.uniform(0, 0.4))
    kill(pool, victim, clients, rng)
    end = time.monotonic() + patience()
    for client in clients:
        client.join(max(0.0, end - time.monotonic()))
    survives = (victim in {"one rank", "frozen rank"} and len(pids) - 1 > size) or (victim == "all ranks but one" and size == 1)
    for client in clients:
        assert client.ended is not None, (shape, victim, "a row without an end")
        outcome, result = client.ended
        assert outcome != "hang", (shape, victim)
        if outcome == "ok":
            assert result == scene.right[client.row], (shape, victim, result)
        if outcome == "error":
            assert "SIGKILL" in result, (shape, victim, result)
        if survives:
            assert outcome == "ok", (shape, victim, result)
        if victim == "clients" and client.row >= ROWS // 2:
            assert outcome == "ok", (shape, victim, result)
    pool.process.terminate()
    pool.process.wait(SILENCE_S)
    gone, left = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], timeout=30)
    assert not left, (shape, victim, left, gone)
    return victim


def patience() -> float:
    """Seconds for a row, as many times ten as there are processes that want each core."""
    return min(SILENCE_S, HANG_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def test_ten_random_kills(pools: Pools) -> None:
    rng = random.Random(10)
    for i in range(10):
        one_round(pools, rng, FAKE, [*SHAPES][i % len(SHAPES)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_random_kills(pools: Pools) -> None:
    rng = random.Random(200)
    for i in range(200):
        one_round(pools, rng, FAKE, [*SHAPES][i % len(SHAPES)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_random_kills_of_real_ranks(pools: Pools, tmp_path: Path) -> None:
    """Tiny random models, gloo between the ranks: one of them dies in the middle of a sum or a transfer."""
    pytest.importorskip("torch")
    folder = byte_model(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    tiny.make("llama", folder)
    flags = ("--runner", "holynb.pool.engine.runner:Runner", "--model", str(folder))
    env = {"OMP_NUM_THREADS": "1"}
    scene = Scene(flags, {}, env, "/v1/completions")
    alone = pools.start(*flags, **env)
    right = {row: scene.text(alone.ask(scene.path, scene.body(row))[1]) for row in range(ROWS)}
    rng = random.Random(30)
    shapes = [name for name in SHAPES if name != "three"]
    outcomes: Counter[str] = Counter()
    for i in range(30):
        shape = shapes[i % len(shapes)]
        outcomes[f"{shape}: {one_round(pools, rng, Scene(flags, right, env, '/v1/completions'), shape)}"] += 1
    print(json.dumps(outcomes, indent=1))
