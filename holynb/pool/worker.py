"""Main of a rank: a runner's loop on this thread, control frames on another. Knows no HTTP, no prompts and no text.

The frames are those of `protocol`: one LoadModel in, then jobs; out RankReady or RankFailed, one StepOutput per decode step, stats about
twice a second, and Pong at once, also in the middle of a step. The end of the control socket means that the server is gone: the process
exits at once. With `--handed` it waits for another server instead: its control socket then carries the sockets to speak through, one
after the other, and its own end is the one that counts. Each server begins with a LoadModel; where the model is loaded it is answered at
once, and what the last server asked for is dropped. A rank that does not lead its replica receives no jobs: it repeats the leader's steps
and sends only its stats.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from socket import SHUT_RDWR, recv_fds, socket

from holynb.pool import protocol
from holynb.pool.protocol import (
    AddJob,
    CancelJob,
    Frame,
    Job,
    JobRefused,
    JobRunner,
    LoadModel,
    Ping,
    Pong,
    ProtocolError,
    RankFailed,
    RankReady,
    RankStats,
    StatsUpdate,
    StepOutput,
    StopRank,
)
from kernels_support.jupyter import files, shortage, supervisor, wire

__all__ = ["Worker", "main"]

#: Seconds between two stats frames while there is work, and while there is none.
_STATS_S, _IDLE_STATS_S = 0.5, 2.0


class Worker:
    """One rank. `runner` is `module:Class`, the class a `protocol.JobRunner`. `device`: what it will be told to serve on, where known."""

    def __init__(self, sock: socket, runner: str, device: str | None = None, line: socket | None = None) -> None:
        self._sock, self._device, self._line = sock, device, line
        self._handed: queue.SimpleQueue[socket] = queue.SimpleQueue()
        self._loaded: LoadModel | None = None
        self._jobs: set[int] = set()
        self._module, _, self._class = runner.partition(":")
        self._inbox: queue.SimpleQueue[Frame | wire.WireError] = queue.SimpleQueue()
        self._send_lock = threading.Lock()
        self._last_stats: RankStats = {}
        self._last_stats_at = 0.0
        self._was_idle = True

    def run(self) -> int:
        """Load, serve, and return the exit code. An error is sent in a frame and, with its traceback, written to the log."""
        threading.Thread(target=self._receive, name="holynb-control", daemon=True).start()
        if self._line is not None:
            threading.Thread(target=self._take_sockets, args=(self._line,), name="holynb-line", daemon=True).start()
        try:
            new = self._runner_class()
            load = self._await_load()
            runner = self._load(new, load)
            self._last_stats, self._loaded = runner.stats(), load
            self._send(RankReady(self._last_stats))
            if self._follows(load):
                runner.follow(lambda: self._report_stats(runner))
            else:
                self._serve(runner)
                runner.close()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the server must know of it before this process ends
            traceback.print_exc()
            self._send(RankFailed(f"{type(exc).__name__}: {exc}".removesuffix(": "), oom=shortage.is_out_of_memory(exc)))
            return 1
        return 0

    def _await_load(self) -> LoadModel:
        frame = self._next(self._inbox.get())
        if not isinstance(frame, LoadModel):
            raise ProtocolError(f"a {frame.kind!r} frame before the model was loaded")
        return frame

    def _runner_class(self) -> Callable[..., JobRunner]:
        """The runner's class, its libraries loaded where it says how: the server is still reading the model's files."""
        new: Callable[..., JobRunner] = getattr(importlib.import_module(self._module), self._class)
        prepare: Callable[[str], None] | None = getattr(new, "prepare", None)
        if prepare is not None and self._device is not None:
            prepare(self._device)
        return new

    @staticmethod
    def _load(new: Callable[..., JobRunner], load: LoadModel) -> JobRunner:
        given = {name: getattr(load, name) for name in ("device", "dtype", "max_len", "memory", "mesh")}
        given |= {"kv": load.kv} if load.kv else {}
        return new(Path(load.folder), **given)

    def _receive(self) -> None:
        try:
            for message in wire.frames(self._sock):
                self._take(protocol.decode(message))
            while self._line is not None:
                sock = self._handed.get()
                with self._send_lock:
                    self._sock.close()
                    self._sock = sock
                for message in wire.frames(sock):
                    self._take(protocol.decode(message))
        except wire.WireError as exc:
            self._inbox.put(exc)
        else:
            os._exit(0)  # the server is gone, and a step in flight must not keep the device

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Ping):
            self._send(Pong())
        elif isinstance(frame, LoadModel) and self._loaded is not None and self._follows(frame):
            self._send(RankReady(self._last_stats))  # its main thread waits for the leader's steps
        else:
            self._inbox.put(frame)
            if isinstance(frame, LoadModel) and self._loaded is None:
                files.read_ahead(Path(frame.folder).glob("*.safetensors"))

    @staticmethod
    def _follows(load: LoadModel) -> bool:
        return load.mesh is not None and load.mesh.rank > 0

    def _take_sockets(self, line: socket) -> None:
        """The sockets of further servers, until whoever hands them over is gone."""
        while sock := handed(line):
            last = self._sock
            self._handed.put(sock)
            with contextlib.suppress(OSError):
                last.shutdown(SHUT_RDWR)  # a server that hangs keeps its end open
        os._exit(0)

    def _serve(self, runner: JobRunner) -> None:
        while True:
            for frame in self._pending(wait=runner.idle):
                match frame:
                    case StopRank():
                        return
                    case AddJob(job):
                        self._add(runner, job)
                    case CancelJob(number):
                        self._jobs.discard(number)
                        runner.cancel(number)
                    case LoadModel():
                        self._begin_anew(runner, frame)
                    case _:
                        raise ProtocolError(f"a {frame.kind!r} frame to a rank that is loaded")
            if not runner.idle:
                emits = runner.step()
                if emits:
                    self._send(StepOutput(tuple(emits)))
                    self._jobs.difference_update([e.id for e in emits if e.finish is not None])
            self._report_stats(runner)

    def _pending(self, *, wait: bool) -> list[Frame]:
        """All frames received so far; with `wait`, at least one, or none after a while. Raises WireError."""
        frames: list[Frame] = []
        try:
            frames.append(self._next(self._inbox.get(timeout=_IDLE_STATS_S) if wait else self._inbox.get_nowait()))
            while True:
                frames.append(self._next(self._inbox.get_nowait()))
        except queue.Empty:
            return frames

    @staticmethod
    def _next(item: Frame | wire.WireError) -> Frame:
        if isinstance(item, wire.WireError):
            raise item
        return item

    def _add(self, runner: JobRunner, job: Job) -> None:
        try:
            runner.add(job)
        except ValueError as exc:
            self._send(JobRefused(job.id, str(exc)))
        else:
            self._jobs.add(job.id)

    def _begin_anew(self, runner: JobRunner, load: LoadModel) -> None:
        """Another server takes this rank over. What the last one asked for is nobody's now, and its numbers come again."""
        if self._loaded is None or _model(load) != _model(self._loaded):
            raise ProtocolError("a server that wants another model than is loaded")
        for number in self._jobs:
            runner.cancel(number)
        self._jobs.clear()
        self._last_stats = runner.stats()
        self._send(RankReady(self._last_stats))

    def _report_stats(self, runner: JobRunner) -> None:
        """Send stats, where they are due. They are always due at the end of the work, or the last figures would stand for seconds."""
        now, idle = time.monotonic(), runner.idle
        if now - self._last_stats_at < _STATS_S and idle == self._was_idle:
            return
        self._was_idle = idle
        self._last_stats_at = now
        stats = runner.stats()
        if stats != self._last_stats:
            self._last_stats = stats
            self._send(StatsUpdate(stats))

    def _send(self, frame: Frame) -> None:
        try:
            with self._send_lock:  # two threads send, and their frames must not interleave
                self._sock.sendall(wire.encode(protocol.encode(frame)))
        except OSError:
            if self._line is None:
                os._exit(0)  # as at the socket's end


def _model(load: LoadModel) -> tuple[str | int | None, ...]:
    """What of a load makes a rank's weights and cache what they are; where ranks met and what they shared is over."""
    return (load.folder, load.device, load.dtype, load.max_len, load.kv)


def handed(line: socket) -> socket | None:
    """The next socket that comes over this one; None at its end."""
    with contextlib.suppress(OSError):
        _, fds, _, _ = recv_fds(line, 1, 1)
        if fds:
            sock = socket(fileno=fds[0])
            sock.set_inheritable(False)
            return sock
    return None


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.worker", description=__doc__)
    parser.add_argument("--tag", default="holynb-pool")
    parser.add_argument("--runner", default="holynb.pool.engine.runner:Runner")
    parser.add_argument("--device")
    parser.add_argument("--handed", action="store_true", help="the sockets to speak through come over the control socket")
    args = parser.parse_args(argv)
    os.umask(0o077)
    control = supervisor.control()
    if not args.handed:
        return Worker(control, args.runner, args.device).run()
    first = handed(control)
    return 0 if first is None else Worker(first, args.runner, args.device, control).run()


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # NCCL and CUDA may wait for ever for a peer at interpreter shutdown; the system frees the device at once
