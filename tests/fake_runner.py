"""A `protocol.JobRunner` that computes nothing: it echoes each prompt, one token per step, four sequences at a time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from holynb.pool.protocol import Emit, Job, JobRunner, RankStats

#: Tokens of a prompt and its answer that fit.
ROOM = 4000


class Runner(JobRunner):
    """`HOLYNB_FAKE_STEP`: seconds of a step. `HOLYNB_FAKE_FAIL`: the load fails with this error. A prompt with `!boom` fails its step.

    A prompt with `!oom` ends for lack of memory; under one with `!tight` memory runs out at its second token, without effect on it.
    """

    def __init__(self, folder: Path, *, device: str, dtype: str | None, max_len: int | None, memory: float, mesh: Any = None) -> None:
        if os.environ.get("HOLYNB_FAKE_FAIL"):
            raise RuntimeError(os.environ["HOLYNB_FAKE_FAIL"])
        time.sleep(float(os.environ.get("HOLYNB_FAKE_LOAD", "0")))
        print(f"loaded {folder.name} on {device}", flush=True)
        self._max_len = max_len
        self._pause = float(os.environ.get("HOLYNB_FAKE_STEP", "0.001"))
        self._waiting: list[Job] = []
        self._running: dict[int, tuple[Job, int]] = {}

    def add(self, job: Job) -> None:
        if len(job.ids) + job.max_new > ROOM:
            raise ValueError(f"{len(job.ids)} prompt tokens and {job.max_new} new ones need more than the {ROOM} that fit")
        self._waiting.append(job)

    def cancel(self, id: int) -> None:
        self._waiting = [j for j in self._waiting if j.id != id]
        self._running.pop(id, None)

    def follow(self, after: Any) -> None:
        """A follower computes nothing; it waits until its server ends it."""
        threading.Event().wait()

    def close(self) -> None:
        """There are no other ranks to release."""

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    def step(self) -> list[Emit]:
        time.sleep(self._pause)
        while self._waiting and len(self._running) < int(os.environ.get("HOLYNB_FAKE_BATCH", "4")):
            job = self._waiting.pop(0)
            self._running[job.id] = (job, 0)
        out = []
        for number, (job, at) in list(self._running.items()):
            if b"!boom" in bytes(i for i in job.ids if i < 256):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            if b"!oom" in bytes(i for i in job.ids if i < 256):
                del self._running[number]
                out.append(Emit(number, (), "error", "oom"))
                continue
            if at == 1 and b"!tight" in bytes(i for i in job.ids if i < 256):
                out.append(Emit(number, (), None, "oom"))
            finish = "stop" if at + 1 == len(job.ids) else "length" if at + 1 == job.max_new else None
            out.append(Emit(number, (job.ids[at],), finish))
            self._running[number] = (job, at + 1)
            if finish:
                del self._running[number]
        return out

    def stats(self) -> RankStats:
        return {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "kv_used": sum(at for _, at in self._running.values()),
            "kv_total": ROOM,
            "max_len": self._max_len,
            "device": "cpu",
            "memory_used": 100,
            "memory_total": 1000,
            "memory_ours": 12,
            "weights_bytes": 4,
            "kv_bytes": 6,
        }
