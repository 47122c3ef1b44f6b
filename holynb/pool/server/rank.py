"""One process of a replica as the server sees it: started, told, heard, buried. Knows frames and how processes end; no generations."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable

from holynb.pool import protocol
from holynb.pool.protocol import Frame, LoadModel, Ping, Pong, RankFailed, RankReady, RankStats, StatsUpdate
from kernels_support.jupyter import wire
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["Rank", "culprit"]

#: Seconds between two questions to a rank whether it lives, and how many may stay without any word before it is ended.
_BEAT_S, _BEATS = 2.0, 15

#: What a rank says whose peer died: true, and not the reason.
_ECHOES = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "socket closed", "peer closed", "nccl", "gloo")


class Rank:
    """`on_frame` hears what it says, `on_end` once that its socket has ended: it is dead or dying then."""

    def __init__(self, command: Command, load: LoadModel, on_frame: Callable[[Rank, Frame], None], on_end: Callable[[Rank], None]) -> None:
        self.stats: RankStats = {}
        self.ready = asyncio.Event()
        self.words: str | None = None
        """What it said of its own failure."""
        self.oom = False
        """Its failure was that memory ran out."""
        self.child: Child | None = None
        self._command, self._load, self._on_frame, self._on_end = command, load, on_frame, on_end
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._spoke = False

    async def start(self) -> None:
        """Start the process and send it its load. Raises OSError."""
        self.child = spawn(self._command, bound=True)
        reader, self._writer = await asyncio.open_connection(sock=self.child.control)
        self.send(self._load)
        self._task = asyncio.create_task(self._read(reader))

    def send(self, frame: Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(protocol.encode(frame)))

    def close(self) -> None:
        """End its socket: a rank that lives ends with it."""
        if self._writer is not None:
            self._writer.close()

    async def gone(self, grace: float) -> bool:
        """Whether it ends by itself within `grace` seconds."""
        return self.child is None or await asyncio.to_thread(self.child.wait, grace)

    async def kill(self) -> None:
        if self.child is not None and self.child.alive:
            # One that hangs in its device's driver dies when that lets it go; the rows need not wait for it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.child.kill)

    @property
    def hung_up(self) -> bool:
        """Whether its socket has ended."""
        return self._task is not None and self._task.done()

    async def heard(self) -> None:
        """Return when all that it said has been heard."""
        if self._task is not None:
            await self._task

    def why(self, *, log: bool) -> str:
        """How it ended, for people; with the last lines of its log where it said nothing itself."""
        if self.child is None:
            return f"a process that {self.words or 'never started'}"
        last = " | ".join(self.child.tail(3)) if log and not self.words else ""
        return f"process {self.child.pid} {self.words or self.child.how()}{'. Its last lines: ' + last if last else ''}"

    async def _read(self, reader: asyncio.StreamReader) -> None:
        beat = asyncio.create_task(self._beat())
        try:
            while (message := await wire.read(reader)) is not None:
                self._on_message(protocol.decode(message))
        except wire.WireError as exc:
            self.words = f"sent something that is no frame: {exc}"
        finally:
            beat.cancel()
        self._on_end(self)

    async def _beat(self) -> None:
        """End a rank that is stopped or hangs: it keeps its socket open, and its rows would wait for ever.

        Beats are counted, not seconds: a server that was stopped itself, and goes on, has heard nothing for longer than that.
        A rank that loads is left alone: libraries that are read from a slow disk let no other thread speak.
        """
        await self.ready.wait()
        missed = 0
        while missed < _BEATS:
            self._spoke = False
            self.send(Ping())
            await asyncio.sleep(_BEAT_S)
            missed = 0 if self._spoke else missed + 1
        self.words = f"gave no sign of life for {_BEAT_S * _BEATS:g} s: it was stopped, or hung, and is ended"
        await self.kill()
        self.close()

    def _on_message(self, frame: Frame) -> None:
        self._spoke = True
        match frame:
            case Pong():
                pass
            case RankReady(stats):
                self.stats = stats
                self.ready.set()
            case StatsUpdate(stats):
                self.stats = stats
            case RankFailed(message, oom):
                self.oom = oom
                # CUDA follows its first sentence with a page of figures.
                self.words = f"ran out of memory ({message.partition('. ')[0]})" if oom else f"failed: {message}"
            case _:
                self._on_frame(self, frame)


def culprit(ranks: list[Rank]) -> Rank:
    """Of a replica's ranks the one that ended it, as far as those that ended by themselves tell: killed, then failed, then those that only say that a peer is gone."""

    def guilt(rank: Rank) -> int:
        code = rank.child.code if rank.child else None
        if code is not None and code < 0:
            return 4
        if rank.words:
            return 1 if any(w in rank.words.lower() for w in _ECHOES) else 3
        return 0 if code is None else 2

    return max(ranks, key=guilt)
