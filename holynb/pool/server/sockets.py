"""The pool's sockets: a private Unix socket, and where asked for a loopback port with a token. Knows uvicorn; no pool."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from holynb import port_tokens
from holynb.pool.server.connection import BoundedConnection, PortConnection
from holynb.pool.server.http import NameOf, nobody, require_token

__all__ = ["Listener", "PoolSockets", "PortTaken", "bind", "serving", "serving_on"]

#: An application, the bound socket that it is served on, and what a connection to it is.
Listener = tuple[ASGIApp, socket.socket, type[BoundedConnection]]

#: As uvicorn's.
_BACKLOG = 2048


class PortTaken(Exception):
    """The port cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class PoolSockets:
    """Bound sockets. `token` authorizes requests to the port; both are None where there is no port."""

    path: Path
    unix: socket.socket
    tcp: socket.socket | None = None
    token: str | None = None

    @property
    def port(self) -> int | None:
        return None if self.tcp is None else int(self.tcp.getsockname()[1])


def bind(folder: Path, port: int | None) -> PoolSockets:
    """Bind a Unix socket in `folder`, which is private, and a loopback port (0: any free one). Raises PortTaken, OSError."""
    tcp = None if port is None else _loopback(port)
    path = folder / "s"
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(path))
    path.chmod(0o600)
    return PoolSockets(path, unix, tcp, None if tcp is None else port_tokens.new_token())


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, sockets: PoolSockets, name_of: NameOf = nobody) -> AsyncIterator[None]:
    """Serve `app` on both sockets; on exit, open requests get two seconds. `name_of`: whose a named token of the port is."""
    listeners: list[Listener] = [(app, sockets.unix, BoundedConnection)]
    if sockets.tcp is not None:
        listeners.append((require_token(app, str(sockets.token), name_of), sockets.tcp, PortConnection))
    async with serving_on(listeners):
        yield


@contextlib.asynccontextmanager
async def serving_on(listeners: Sequence[Listener]) -> AsyncIterator[None]:
    """Serve on these sockets, which are closed on exit; open requests get two seconds then."""
    servers = []
    for served, sock, connection in listeners:
        config = uvicorn.Config(
            served,
            http=connection,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
        server = _Uvicorn(config)
        servers.append((server, asyncio.create_task(server.serve(sockets=[sock]))))
    try:
        while not all(server.started for server, _ in servers):
            await asyncio.wait([task for _, task in servers], timeout=0.005, return_when=asyncio.FIRST_COMPLETED)
            for _, task in servers:
                if task.done():
                    task.result()  # raises here where it cannot serve
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in servers), return_exceptions=True)
        for _, sock, _ in listeners:
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
        sock.listen(_BACKLOG)  # two may bind a port before either listens: the second fails here
    except (OSError, OverflowError) as exc:
        sock.close()
        reason = getattr(exc, "strerror", None) or "it is none"
        raise PortTaken(f"port {port} cannot be used: {reason}. Choose another, or --port 0 for a free one.") from exc
    return sock
