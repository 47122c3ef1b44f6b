"""Main of a rank: a runner's loop on this thread, control frames on another. Knows no HTTP, no prompts and no text.

In: load (once), add, cancel, stop, ping. Out: ready or failed, then one `step` frame per decode step, `refused` for a job that can
never fit, `stats` about twice a second, and `pong` at once, also in the middle of a step. The control socket's end means that the server is gone: the process ends at once.
A rank that does not lead its replica is told of no jobs: it does as the leader does, and says only its stats.
"""

from __future__ import annotations

import argparse
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from socket import socket
from typing import Any

from holynb.pool.fit import Mesh
from kernels_support.jupyter import shortage, supervisor, wire

__all__ = ["Worker", "main"]

#: Seconds between two stats frames while there is work, and while there is none.
_STATS, _IDLE = 0.5, 2.0


class Worker:
    """One rank. `runner` is `module:Class`; the module also has the `Job` that the class takes."""

    def __init__(self, sock: socket, runner: str) -> None:
        self._sock = sock
        self._module, _, self._class = runner.partition(":")
        self._in: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()
        self._speaking = threading.Lock()
        self._said: dict[str, Any] = {}
        self._said_at = 0.0
        self._idle = True

    def run(self) -> int:
        """Load, serve, and return the exit code. What goes wrong is said in a frame and, with its traceback, in the log."""
        threading.Thread(target=self._listen, name="holynb-control", daemon=True).start()
        try:
            load = self._in.get()
            module = importlib.import_module(self._module)
            mesh = {"mesh": Mesh(**load.pop("mesh"))} if "mesh" in load else {}
            runner = getattr(module, self._class)(Path(load.pop("folder")), **{k: v for k, v in load.items() if k != "t"}, **mesh)
            self._send({"t": "ready", "stats": runner.stats()})
            if mesh and mesh["mesh"].rank:
                runner.follow(lambda: self._say(runner))
            else:
                self._serve(runner, module.Job)
                runner.close()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the server must hear of it before this process ends
            traceback.print_exc()
            self._send({"t": "failed", "message": f"{type(exc).__name__}: {exc}".removesuffix(": "), "oom": shortage.is_out_of_memory(exc)})
            return 1
        return 0

    def _listen(self) -> None:
        for frame in wire.frames(self._sock):
            if frame["t"] == "ping":
                self._send({"t": "pong"})
            else:
                self._in.put(frame)
        os._exit(0)  # the server is gone, and a step under way must not keep the device

    def _serve(self, runner: Any, job: Any) -> None:
        while True:
            for frame in self._frames(wait=runner.idle):
                if frame["t"] == "stop":
                    return
                self._obey(frame, runner, job)
            if not runner.idle:
                emits = runner.step()
                if emits:
                    said = [[e.id, list(e.tokens), e.finish, e.note, *([e.cached] if e.cached else [])] for e in emits]
                    self._send({"t": "step", "e": said})
            self._say(runner)

    def _frames(self, *, wait: bool) -> list[wire.Frame]:
        """All that came; with `wait`, at least one, or none after a while."""
        found: list[wire.Frame] = []
        try:
            found.append(self._in.get(timeout=_IDLE) if wait else self._in.get_nowait())
            while True:
                found.append(self._in.get_nowait())
        except queue.Empty:
            return found

    def _obey(self, frame: wire.Frame, runner: Any, job: Any) -> None:
        if frame["t"] == "cancel":
            runner.cancel(frame["id"])
            return
        said = frame["job"]
        try:
            runner.add(job(**{**said, "ids": tuple(said["ids"]), "eos": tuple(said["eos"])}))
        except ValueError as exc:
            self._send({"t": "refused", "id": said["id"], "message": str(exc)})

    def _say(self, runner: Any) -> None:
        """Stats, where they are due; the end of the work is always due, or the last figures would stand for seconds."""
        now, idle = time.monotonic(), runner.idle
        if now - self._said_at < _STATS and idle == self._idle:
            return
        self._idle = idle
        self._said_at = now
        stats = runner.stats()
        if stats != self._said:
            self._said = stats
            self._send({"t": "stats", "stats": stats})

    def _send(self, frame: wire.Frame) -> None:
        try:
            with self._speaking:  # two threads speak, and a frame that is cut in two is none
                self._sock.sendall(wire.encode(frame))
        except OSError:
            os._exit(0)  # as at the socket's end


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.worker", description=__doc__)
    parser.add_argument("--tag", default="holynb-pool")
    parser.add_argument("--runner", default="holynb.pool.engine.runner:Runner")
    said = parser.parse_args(argv)
    return Worker(supervisor.control(), said.runner).run()


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # NCCL and CUDA may wait for ever for a peer in Python's own ending; the system's frees the device at once
