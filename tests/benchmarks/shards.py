"""Rows in shards over a Ray cluster of three raylets on this machine, one of which is killed in the middle: what is lost, and what is asked twice.

    .venv/bin/python tests/benchmarks/shards.py [--rows 100000] [--shards 16] [--kill-at 0.4]

`holynb.shards.infer` over `ray.data.range(ROWS)`, against a server of this process that counts how often it was asked each row. The raylet is
killed with SIGKILL when that share of the rows is answered. Then the same name again, which must ask nothing. Prints JSON; an exit status other
than 0 where a row is lost, the logs have more payments of it than it was asked, or more were asked twice than were under way at the kill.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
}

AT_ONCE, LATENCY_S = 32, 0.02
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Counting(asyncio.Protocol):
    """One connection of a chat server that says `ok` and counts who asks."""

    def __init__(self, asked: Counter[int]) -> None:
        self._asked, self._left = asked, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._left += data
        while (end := self._left.find(b"\r\n\r\n")) >= 0:
            head = self._left[:end].lower()
            start = head.find(b"content-length:")
            size = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._left) < end + 4 + size:
                return
            body, self._left = json.loads(self._left[end + 4 : end + 4 + size]), self._left[end + 4 + size :]
            row = int(body["messages"][-1]["content"].split()[1])
            self._asked[row] += 1
            asyncio.get_running_loop().call_later(LATENCY_S, self._answer, row)

    def _answer(self, row: int) -> None:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"row {row}"}}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        body = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}).encode()
        if not self._transport.is_closing():
            self._transport.write(HEAD % (len(body), body))


def serve(asked: Counter[int]) -> str:
    """Start the server on a thread; returns its address."""
    started, address = threading.Event(), []

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Counting(asked), "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        started.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    started.wait(10)
    return address[0]


def payments(home: Path) -> Counter[int]:
    """How often each row of the data set was paid in the logs of the shards."""
    paid: Counter[int] = Counter()
    for path in home.glob("*/shard-*/runs.sqlite"):
        with sqlite3.connect(path) as log:
            rows = log.execute("SELECT r.body FROM payments p JOIN requests r ON r.run = p.run AND r.row = p.row WHERE p.what = 'answer'")
            paid.update(int(json.loads(body)["messages"][-1][1].split()[1]) for (body,) in rows)
    return paid


def measure(rows: int, shards: int, kill_at: float, folder: Path) -> dict[str, Any]:
    os.environ |= {"RAY_TMPDIR": str(folder / "ray"), "HOLYNB_HOME": str(folder / "home")}
    import ray
    from ray.cluster_utils import Cluster

    from holynb.shards import Shards, infer

    asked: Counter[int] = Counter()
    base = serve(asked)
    small = {"num_cpus": 2, "object_store_memory": 100_000_000}
    started = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    nodes = [cluster.add_node(**small) for _ in range(2)]
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, log_to_driver=False)
    facts: dict[str, Any] = {"rows": rows, "shards": shards, "cluster_s": time.monotonic() - started}
    try:
        killed: dict[str, Any] = {}

        def kill() -> None:
            while len(asked) < kill_at * rows:
                time.sleep(0.05)
            killed["asked"] = len(asked)
            cluster.remove_node(nodes[0], allow_graceful=False)

        def run() -> list[dict[str, Any]]:
            data = ray.data.range(rows)
            options = {"api_base": base, "concurrency": AT_ONCE, "max_tokens": 16}
            divided = Shards("id", shards, "many", folder / "logs")
            answered = infer(data, "Row {{ id }} of many", "vllm/m", divided, **options)
            return answered.select_columns(["id", "answer", "answer_status", "answer_cached"]).take_all()

        threading.Thread(target=kill, daemon=True).start()
        at, work = time.monotonic(), time.process_time()
        answers = run()
        facts["seconds"], facts["driver_cpu_s"] = time.monotonic() - at, time.process_time() - work
        twice = [row for row, times in asked.items() if times > 1]
        facts |= {"killed_at": killed.get("asked"), "asked": asked.total(), "asked_twice": len(twice)}
        right = {a["id"]: a["answer_status"] == "ok" and a["answer"] == f"row {a['id']}" for a in answers}
        facts["lost"] = rows - sum(right.values())
        paid = payments(folder / "logs")
        again = {row for row, times in paid.items() if times > 1}
        facts |= {"paid": paid.total(), "paid_twice": len(again), "paid_twice_asked_once": len(again - set(twice))}
        facts["log_mb"] = sum(f.stat().st_size for f in (folder / "logs").rglob("*") if f.is_file()) / 1e6
        before, at = asked.total(), time.monotonic()
        run()
        facts |= {"again_asked": asked.total() - before, "again_s": time.monotonic() - at}
    finally:
        ray.shutdown()
        cluster.shutdown()
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--kill-at", type=float, default=0.4)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))  # short: Ray's sockets lie under it
    try:
        facts = measure(args.rows, args.shards, args.kill_at, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in facts.items()}))
    most = 2 * AT_ONCE * 2  # what the tasks of the raylet had under way, and as much again whose answers were on their way to the disk
    bad = facts["lost"] or facts["paid_twice_asked_once"] or facts["again_asked"] or facts["asked_twice"] > most
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
