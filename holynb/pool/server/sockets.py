"""The pool's two doors: a private Unix socket, and a loopback port with a token where one is wanted. Knows uvicorn; no pool."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from holynb.pool.server.http import guarded

__all__ = ["Doors", "PortTaken", "bind", "serving"]

#: Connections that may wait to be taken, as uvicorn has it.
_WAITING = 2048


class PortTaken(Exception):
    """The port cannot be used; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Bound sockets. `token` opens the port; None where there is no port."""

    path: Path
    unix: socket.socket
    tcp: socket.socket | None = None
    token: str | None = None

    @property
    def port(self) -> int | None:
        return None if self.tcp is None else int(self.tcp.getsockname()[1])


def bind(folder: Path, port: int | None) -> Doors:
    """A Unix socket in `folder`, which is private, and a loopback port; 0 takes a free one. Raises PortTaken, OSError."""
    tcp = None if port is None else _loopback(port)
    path = folder / "s"
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(path))
    path.chmod(0o600)
    return Doors(path, unix, tcp, None if tcp is None else secrets.token_urlsafe(32))


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, doors: Doors) -> AsyncIterator[None]:
    """Serve `app` behind both doors; on leaving, open requests get two seconds."""
    listeners: list[tuple[ASGIApp, socket.socket]] = [(app, doors.unix)]
    if doors.tcp is not None:
        listeners.append((guarded(app, str(doors.token)), doors.tcp))
    servers = []
    for served, sock in listeners:
        config = uvicorn.Config(
            served, log_level="warning", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2, timeout_keep_alive=75
        )
        server = _Uvicorn(config)
        servers.append((server, asyncio.create_task(server.serve(sockets=[sock]))))
    try:
        while not all(server.started for server, _ in servers):
            await asyncio.wait([task for _, task in servers], timeout=0.005, return_when=asyncio.FIRST_COMPLETED)
            for _, task in servers:
                if task.done():
                    task.result()  # it cannot serve: that is raised here, or nobody would hear of it
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in servers), return_exceptions=True)
        for _, sock in listeners:
            sock.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the pool has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _loopback(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(_WAITING)  # two may bind a port to which nobody listens: the second hears of it here
    except (OSError, OverflowError) as exc:
        sock.close()
        why = getattr(exc, "strerror", None) or "it is none"
        raise PortTaken(f"port {port} cannot be used: {why}. Choose another, or --port 0 for a free one.") from exc
    return sock
