"""A run in a process of its own, killed with SIGKILL in the middle and gone on with in another, against a server that counts what it is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.exact import Asked, Exact, Step, reply

ROOT = Path(__file__).parent.parent
DEADLINE = 120.0

#: argv: rows, name, options as JSON. Says at its end what its frame holds.
CHILD = """
import json, sys
import holynb
rows, name, said = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
run = holynb.infer([f"row {i} of {name}" for i in range(rows)], "openai/m", name=name, **said)
frame = run.wait().frame()
print(json.dumps({
    "ok": int((frame["status"] == "ok").sum()), "routes": frame["route"].value_counts().to_dict(), "cached": int(frame["cached"].sum()),
    "attempts": int(frame["attempts"].sum()), "wrong": int((frame["text"] != [f"answer to row {i} of {name}" for i in range(rows)]).sum()),
    "moved": int(frame["error"].notna().sum()),
}))
"""


@dataclass
class Counting:
    """A server's script: answers each row after `latency` with `wrote` tokens, and counts. From the request `dies_at` on it refuses everything with a 500."""

    latency: float = 0.05
    dies_at: int | None = None
    wrote: int = 3
    seen: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        row = request.json["messages"][-1]["content"]
        with self.changed:
            self.seen[row] += 1
            self.changed.notify_all()
        if self.dies_at is not None and number >= self.dies_at:
            self.refused += 1
            return [reply({"error": {"message": "gone"}}, 500)]
        usage = {"prompt_tokens": 5, "completion_tokens": self.wrote}
        return [
            self.latency,
            reply({"model": "m", "choices": [{"message": {"content": f"answer to {row}"}, "finish_reason": "stop"}], "usage": usage}),
        ]

    def wait(self, requests: int) -> None:
        """Until so many have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.seen.total() >= requests, DEADLINE)


@contextmanager
def child(home: Path, rows: int, name: str, bases: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that runs so many rows. It ends here, whatever happens."""
    env = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": str(ROOT)}
    for provider, base in bases.items():
        env |= {f"{provider}_API_KEY": f"sk-killed-{provider.lower()}-0123456789", f"{provider}_BASE_URL": base}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(rows), name, json.dumps(options)], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the child said at its end."""
    output = process.communicate(timeout=DEADLINE)[0]
    assert process.returncode == 0
    return dict(json.loads(output.splitlines()[-1]))


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE) == -signal.SIGKILL


@dataclass
class KillReport:
    """How it went. `twice`: rows sent twice; `more`: rows sent more often; `kept`: answers in the log when the process was dead."""

    rows: int
    lanes: int
    sent: int
    twice: int
    more: int
    kept: int
    logged: int
    seconds: float
    frame: dict[str, Any]


def halfway(home: Path, rows: int, lanes: int) -> KillReport:
    """Run, kill at half of the rows, go on in a new process by the run's name."""
    from holynb.runlog.store import RunLog

    server = Counting()
    log = RunLog(home / "runs.sqlite")
    start = time.monotonic()
    with Exact(server) as exact:
        with child(home, rows, "half", {"OPENAI": exact.base}, concurrency=lanes, cache=False) as first:
            server.wait(rows // 2)
            kill(first)
        record = log.find("half")
        assert record is not None
        kept = len(log.answers(record.id))
        with child(home, rows, "half", {"OPENAI": exact.base}, concurrency=lanes, cache=False) as second:
            frame = finished(second)
    counts = Counter(server.seen.values())
    return KillReport(
        rows,
        lanes,
        server.seen.total(),
        counts[2],
        sum(n for times, n in counts.items() if times > 2),
        kept,
        len(log.answers(record.id)),
        time.monotonic() - start,
        frame,
    )
