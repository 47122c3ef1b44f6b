"""What one Ray cluster on this machine is asked, for the tests beside it: a pool behind Serve, and a data set in shards. Prints JSON.

A process of its own, since Ray's warnings, threads and signal handlers are no business of the tests'. `python session.py FOLDER`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "benchmarks")]

import pool_fake  # noqa: E402 - the path comes first
import ray_cluster  # noqa: E402 - as above
import shards as counting  # noqa: E402 - as above

PROMPT = "a stream of some length that is on its way while its replica is replaced"


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """Asks the deployed pool over HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stream(self, prompt: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = {"model": "bytes", "messages": [{"role": "user", "content": prompt}], "stream": True, "max_tokens": 200}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        return connection, connection.getresponse()


def said(raw: bytes) -> str:
    """The text of a stream's events."""
    events = [json.loads(block[6:]) for block in raw.decode().split("\n\n") if block.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


def until(what: Any, seconds: float = 180.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)
    return value


def deploy(folder: Path, port: int, *more: str) -> dict[str, Any]:
    model = folder / "bytes"
    argv = [sys.executable, "-m", "holynb.pool.serve", "--model", str(model), "--name", "bytes", "--port", str(port), "--cpus", "0.2"]
    done = subprocess.run([*argv, *more], capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise RuntimeError(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def served(folder: Path, port: int) -> dict[str, Any]:
    """A pool deployed, asked, streamed, left by a client, and replaced while a stream is on its way."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    import holynb
    from holynb.pool.serve.deployment import build

    facts: dict[str, Any] = {}
    facts["deployed"] = deploy(folder, port, "--replicas", "1..2")
    client = Client(port)
    with contextlib.suppress(RayServeException):
        serve.run(build({"model": str(folder / "bytes"), "name": "another"}), name="another", route_prefix="/")
        raise AssertionError("two answer at one address")
    facts["health"] = client.ask("/health")
    facts["models"] = client.ask("/v1/models")
    run = holynb.infer(["by a notebook"], "ray/bytes", api_base=f"http://127.0.0.1:{port}/v1", max_tokens=50, cache=False).wait()
    facts["notebook"] = run.frame()["text"].tolist()
    facts["refused"] = client.ask("/v1/chat/completions", {"model": "another", "messages": [{"role": "user", "content": "x"}]})
    # A client that leaves: its row ends at the next step.
    connection, answer = client.stream("x" * 190)
    answer.read(1)
    facts["under_way"] = client.ask("/health")[1]["requests"]
    answer.close()
    connection.close()
    facts["left"] = until(lambda: client.ask("/health")[1]["replicas"][0]["running"] == 0)
    # A rolling update: what is on its way on the old replica comes to its end there.
    connection, answer = client.stream(PROMPT)
    first = answer.read(1)
    before = client.ask("/health")[1]["idle_s"], replica_processes(folder)
    updated = {"model": str(folder / "bytes"), "name": "bytes", "replicas": "1..2", "cpus": 0.2, "version": "2"}
    rolled = threading.Thread(target=lambda: serve.run(build(updated), name="bytes", route_prefix="/"))
    rolled.start()
    facts["streamed"] = said(first + answer.read())
    rolled.join()
    facts["replaced"] = bool(before[1]) and not set(before[1]) & set(until(lambda: replica_processes(folder) - before[1]) - before[1])
    facts["answers_after"] = client.ask("/v1/completions", {"model": "bytes", "prompt": "again", "max_tokens": 5})[1]["choices"][0]["text"]
    return facts


def running() -> int:
    """Replicas that Serve has, as it says."""
    from ray import serve

    states = serve.status().applications["bytes"].deployments["pool"].replica_states
    return sum(n for state, n in states.items() if state == "RUNNING")


def scaled(folder: Path, port: int) -> dict[str, Any]:
    """More requests than a replica is meant for bring a second one, and quiet takes it away."""
    facts: dict[str, Any] = {"deployed": deploy(folder, port, "--replicas", "1..2", "--target", "2", "--cool-down", "4", "--version", "3")}
    client, enough = Client(port), threading.Event()

    def load() -> None:
        while not enough.is_set():
            client.ask("/v1/completions", {"model": "bytes", "prompt": "x" * 60, "max_tokens": 60})

    until(lambda: running() == 1, 120)
    began = time.monotonic()
    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        facts["grew_in_s"] = until(lambda: running() == 2 and time.monotonic() - began, 150)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    began = time.monotonic()
    facts["shrank_in_s"] = until(lambda: running() == 1 and time.monotonic() - began, 150)
    return facts


def survived(folder: Path, port: int) -> dict[str, Any]:
    """A rank is killed under rows, which go on; it is killed until none is started again, and Serve replaces the replica."""
    import holynb

    client, facts = Client(port), {"killed": 0}

    def rows(count: int) -> Any:
        options = {"api_base": f"http://127.0.0.1:{port}/v1", "max_tokens": 100, "cache": False, "retries": 6}
        return holynb.infer([f"row {i} " * 12 for i in range(count)], "ray/bytes", **options)

    def tokens() -> int:
        with contextlib.suppress(OSError, ValueError, KeyError):  # Serve says in other words that nobody is there
            return int(client.ask("/health")[1]["tokens_out"])
        return 0

    def kill() -> set[int]:
        """Kill the rank, as soon as it writes; the processes that there were."""
        writes = tokens()
        until(lambda: tokens() > writes, 120)
        victims = replica_processes(folder)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        facts["killed"] += 1
        return victims

    run = rows(8)
    kill()
    began, before = time.monotonic(), tokens()
    facts["again_s"] = until(lambda: tokens() > before and time.monotonic() - began, 120)
    facts["rows"] = [str(text)[:6] for text in run.wait().frame()["text"]]
    run = rows(8)
    dead = set[int]()
    for _ in range(3):
        dead |= kill()
    began = time.monotonic()
    facts["replaced_in_s"] = until(lambda: tokens() and time.monotonic() - began, 200)
    facts["rows_after"] = [str(text)[:6] for text in run.wait().frame()["text"]]
    facts["attempts"] = [int(n) for n in run.frame()["attempts"]]
    facts["left"] = len(dead & replica_processes(folder))
    return facts


def divided(folder: Path) -> dict[str, Any]:
    """A data set in shards, whose task is killed in the middle; and the same again."""
    import psutil
    import ray

    from holynb.errors import UserError
    from holynb.shards import Shards, infer

    rows, asked, killed = 400, Counter[int](), []
    base = counting.serve(asked)
    shards = Shards("id", 3, "many", folder / "logs")

    def has_log(process: Any) -> bool:
        with contextlib.suppress(psutil.Error):
            return any("/logs/many/" in f.path for f in process.open_files())
        return False

    def kill() -> None:
        until(lambda: len(asked) > rows // 4, 600)
        victim = until(lambda: [p for p in psutil.process_iter() if p.pid != os.getpid() and has_log(p)])[0]
        killed.append(victim.pid)
        victim.kill()

    def run() -> list[dict[str, Any]]:
        options = {"api_base": base, "concurrency": 8, "max_tokens": 16}
        answered: list[dict[str, Any]] = infer(ray.data.range(rows), "Row {{ id }} of many", "vllm/m", shards, **options).take_all()
        return answered

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    answers = run()
    killer.join(600)
    before = asked.total()
    again = run()
    paid = counting.payments(folder / "logs")
    with contextlib.suppress(UserError):
        infer(ray.data.range(rows), "x", "vllm/m", Shards("id", 4, "many", folder / "logs"))
        raise AssertionError("another number of shards was taken")
    return {
        "killed": len(killed),
        "right": sorted(a["id"] for a in answers) == list(range(rows)) and all(a["answer"] == f"row {a['id']}" for a in answers),
        "asked_twice": sum(times > 1 for times in asked.values()),
        "paid_more_than_asked": sum(paid[row] > asked[row] for row in paid),
        "again": [len(again), asked.total() - before],
        "logs": sorted(p.name for p in (folder / "logs" / "many").iterdir()),
    }


def replica_processes(folder: Path) -> set[int]:
    """The ranks' processes."""
    import psutil

    return {p.pid for p in psutil.process_iter(["cmdline"]) if "holynb-pool:bytes-serve-" in " ".join(p.info["cmdline"] or ())}


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "240",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
        "RAY_prestart_worker_first_driver": "0",  # a driver waits for them without end where they come too late
        "RAY_TMPDIR": str(folder / "r"),
    }
    os.environ |= {"HOLYNB_HOME": str(folder / "home"), "HOLYNB_POOL_RUNNER": "fake_runner:Runner", "HOLYNB_FAKE_STEP": "0.03"}
    os.environ["PYTHONPATH"] = f"{TESTS.parent}:{TESTS}"
    import ray

    ray_cluster.be_patient()
    pool_fake.byte_model(folder / "bytes")
    context = ray.init(num_cpus=4, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    try:
        port = free_port()
        wanted = {"served": served, "scaled": scaled, "survived": survived}
        facts: dict[str, Any] = {name: do(folder, port) for name, do in wanted.items()}
        facts["divided"] = divided(folder)
    finally:
        from ray import serve

        serve.shutdown()
        ray.shutdown()
    facts["left_behind"] = len(until(lambda: replica_processes(folder) or [0]) - {0}) if replica_processes(folder) else 0
    print(json.dumps(facts))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
