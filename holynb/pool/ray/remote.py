"""A rank on another node, as the server sees it, and the door that ranks come in by. Knows sockets and seats; no frames, no generations."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import signal
import socket
import threading
from typing import Any

from ray.exceptions import RayError

from kernels_support.jupyter.process import Process

__all__ = ["Door", "RemoteRank"]

#: Bytes that a rank's connection begins with: which rank of which start it is, and nobody else can know.
HELLO_BYTES = 32
#: Seconds for them.
_HELLO_S = 10.0
#: How long an exit code is waited for at a time: a seat says it at once, and of a node that is gone Ray hears late, while rows wait.
_CODE_S = 1.0


class RemoteRank:
    """A rank's process on a node (a `rank.RankProcess`). `seat` is its actor. What is asked of a node that is gone is never waited for."""

    process: Process | None = None  # of this machine there is none

    def __init__(self, seat: Any, control: socket.socket, pid: int, place: str) -> None:
        self.control: socket.socket | None = control
        self.pid = pid
        self._seat, self._place = seat, place
        self._over = threading.Event()
        self._code: int | None = None
        self._lost = ""
        self._lines: list[str] = []
        self._watch = asyncio.create_task(self._await_end())

    @property
    def label(self) -> str:
        return f"process {self.pid} on {self._place}"

    @property
    def code(self) -> int | None:
        return self._code

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    def wait(self, seconds: float) -> bool:
        return self._over.wait(min(seconds, _CODE_S))

    def kill(self) -> None:
        """End it, without waiting for a node that may not answer: its rows go on elsewhere at once."""
        if self.alive:
            self._seat.end.remote()
            self._end(-signal.SIGKILL)

    def how(self) -> str:
        if self._lost:
            return self._lost
        code = self._code
        if code is None:
            return "runs"
        return f"ended with code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"

    def tail(self, lines: int = 5) -> list[str]:
        return self._lines[-lines:]

    async def _await_end(self) -> None:
        try:
            code, self._lines = await self._seat.wait.remote()
        except RayError as exc:
            self._lost = f"is gone with its actor or node ({type(exc).__name__})"
            code = -signal.SIGKILL
        self._end(code)

    def _end(self, code: int) -> None:
        if not self._over.is_set():
            self._code = code
            self._over.set()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Door:
    """The socket that ranks connect to. Each says a secret of its own first, so that nobody else of the network becomes a rank."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_server((address, 0), backlog=128)
        self._socket.setblocking(False)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._expected: dict[bytes, asyncio.Future[socket.socket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keep(self._accept())

    def expect(self) -> tuple[bytes, asyncio.Future[socket.socket]]:
        """A secret for one rank, and its connection to come."""
        hello, coming = secrets.token_bytes(HELLO_BYTES), asyncio.get_running_loop().create_future()
        self._expected[hello] = coming
        coming.add_done_callback(lambda _: self._expected.pop(hello, None))
        return hello, coming

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._socket.close()

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._socket)
            self._keep(self._greet(connection))

    async def _greet(self, connection: socket.socket) -> None:
        loop, heard = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError, TimeoutError):
            connection.setblocking(False)
            async with asyncio.timeout(_HELLO_S):
                while len(heard) < HELLO_BYTES and (part := await loop.sock_recv(connection, HELLO_BYTES - len(heard))):
                    heard += part
        coming = next((f for hello, f in self._expected.items() if hmac.compare_digest(hello, heard)), None)
        if coming is None or coming.done():
            connection.close()
        else:
            coming.set_result(connection)
