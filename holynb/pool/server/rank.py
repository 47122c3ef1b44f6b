"""One process of a replica, seen from the server: started, sent frames, watched, ended. Knows frames and processes; no generations."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast

from holynb.pool import protocol
from holynb.pool.protocol import Frame, LoadModel, Ping, Pong, RankFailed, RankReady, RankStats, StatsUpdate
from kernels_support.jupyter import wire
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.supervisor import Command, spawn

__all__ = ["Pings", "Rank", "RankProcess", "Source", "root_cause"]


@dataclass(frozen=True, slots=True)
class Pings:
    """Seconds between two pings, and how many in a row may pass without any frame from the rank before it is killed."""

    interval: float = 2.0
    missed: int = 15


class RankProcess(Protocol):
    """A started process of a rank, here (`supervisor.Child`) or on another machine; `control` is our end of its socket."""

    control: socket.socket | None
    process: Process | None
    pid: int

    @property
    def label(self) -> str: ...
    @property
    def code(self) -> int | None: ...
    @property
    def alive(self) -> bool: ...
    def wait(self, seconds: float) -> bool: ...
    def kill(self) -> None: ...
    def how(self) -> str: ...
    def tail(self, lines: int = 5) -> list[str]: ...


#: A process of this machine to start, or what starts one elsewhere (raises OSError where it cannot).
Source = Command | Callable[[], Awaitable[RankProcess]]

#: Parts of the errors of a rank whose peer died: consequences, not the cause.
_PEER_ERRORS = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "socket closed", "peer closed", "nccl", "gloo")


class Rank:
    """`on_frame` is called with its frames, `on_end` once, when its socket has ended: it is dead or dying then."""

    pings = Pings()
    loaded = False
    """It has its weights already: it is pinged from the beginning."""

    def __init__(self, source: Source, load: LoadModel, on_frame: Callable[[Rank, Frame], None], on_end: Callable[[Rank], None]) -> None:
        self.stats: RankStats = {}
        self.ready = asyncio.Event()
        self.error: str | None = None
        """Its failure, from its own frame."""
        self.oom = False
        """Its failure was that memory ran out."""
        self.child: RankProcess | None = None
        self._source, self._load, self._on_frame, self._on_end = source, load, on_frame, on_end
        self._connection: _Connection | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._responded = False

    async def start(self) -> None:
        """Start the process and send it its load. Raises OSError."""
        source = self._source
        self.child = spawn(source, bound=True) if isinstance(source, Command) else await source()
        control = cast("socket.socket", self.child.control)  # a bound child has one
        self._connection = connection = _Connection(control, self._on_message, self._on_disconnect)
        self._pinging = asyncio.create_task(self._ping())
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=control)
        self.send(self._load)

    def send(self, frame: Frame) -> None:
        if self._connection is not None:
            self._connection.send(frame)

    def close(self) -> None:
        """End its socket: a rank that lives ends with it."""
        if self._connection is not None:
            self._connection.close()

    async def wait_exit(self, grace: float) -> bool:
        """Whether it ends by itself within `grace` seconds."""
        return self.child is None or await asyncio.to_thread(self.child.wait, grace)

    async def kill(self) -> None:
        if self.child is not None and self.child.alive:
            # A process that hangs in its device's driver dies when the driver returns; the rows need not wait for it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.child.kill)

    @property
    def disconnected(self) -> bool:
        """Whether its socket has ended."""
        return self._connection is not None and self._connection.ended.is_set()

    async def drain(self, seconds: float | None = None) -> None:
        """Return when all of its frames have been handled, or after `seconds`."""
        if self._connection is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._connection.ended.wait(), seconds)

    def end_reason(self, *, log: bool) -> str:
        """How it ended, for people; with `log`, its last lines where it sent no error itself."""
        if self.child is None:
            return f"a process that {self.error or 'never started'}"
        tail = " | ".join(self.child.tail(3)) if log and not self.error else ""
        return f"{self.child.label} {self.error or self.child.how()}{'. Its last lines: ' + tail if tail else ''}"

    def _on_disconnect(self, error: wire.WireError | None) -> None:
        if error is not None:
            self.error = f"sent something that is not a frame: {error}"
        if self._pinging is not None:
            self._pinging.cancel()
        self._on_end(self)

    async def _ping(self) -> None:
        """Kill a rank that is stopped (SIGSTOP) or hangs: it keeps its socket open, and its rows would wait for ever.

        Pings are counted, not seconds: a server that was itself stopped and continued has received nothing for longer than that.
        A rank that loads is not pinged: while libraries are read from a slow disk no other thread of it runs.
        """
        if not self.loaded:
            await self.ready.wait()
        missed, pings = 0, self.pings
        while missed < pings.missed:
            self._responded = False
            self.send(Ping())
            await asyncio.sleep(pings.interval)
            missed = 0 if self._responded else missed + 1
        self.error = f"did not respond for {pings.interval * pings.missed:g} s (stopped or hung), and is ended"
        await self.kill()
        self.close()

    def _on_message(self, frame: Frame) -> None:
        self._responded = True
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
                self.error = f"ran out of memory ({message.partition('. ')[0]})" if oom else f"failed: {message}"
            case _:
                self._on_frame(self, frame)


class _Connection(asyncio.Protocol):
    """The server's end of a rank's socket. Every frame that the rank sent is handled, also where it is gone and a write to it fails first.

    `on_end` is called once, with what was no frame.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[wire.WireError | None], None]) -> None:
        self.ended = asyncio.Event()
        self._sock, self._on_frame, self._on_end = sock, on_frame, on_end
        self._framer = wire.Framer()
        self._error: wire.WireError | None = None
        self._transport: asyncio.Transport | None = None

    def send(self, frame: Frame) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(protocol.encode(frame)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._framer.feed(data):
                self._on_frame(protocol.decode(message))
        except wire.WireError as exc:
            self._error = exc
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why matters less than what it said
        # asyncio ends the connection where a write fails, and what lies in the socket then may say why the rank died.
        with contextlib.suppress(OSError):  # nothing is left
            while self._error is None and (data := self._sock.recv(1 << 16)):
                self.data_received(data)
        self.ended.set()
        self._on_end(self._error)


def root_cause(ranks: list[Rank]) -> Rank:
    """The rank that ended its replica: out of memory before killed by a signal before an error of its own before a peer that is gone.

    Memory comes first, for the others may fail of it in any way: where a device's peer is gone, libraries end their process by a signal.
    """

    def severity(rank: Rank) -> int:
        code = rank.child.code if rank.child else None
        if rank.oom:
            return 5
        if code is not None and code < 0:
            return 4
        if rank.error:
            return 1 if any(part in rank.error.lower() for part in _PEER_ERRORS) else 3
        return 0 if code is None else 2

    return max(ranks, key=severity)
