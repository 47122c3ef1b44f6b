"""The local end of a pool on Ray: a Unix socket whose connections go on to the pool's server, wherever Ray has put it. Knows bytes; no Ray.

A connection that is made while the server is away waits for it, as rows of a starting pool do. What was under way when the server went
breaks off here too: the client sends it again. `/health` alone is answered here then, so that nobody takes the pool for silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

__all__ = ["PoolBridge", "PoolEnd"]

#: How often a server that is away is tried again, and how long a connection waits for it in all.
_RETRY_S, _PATIENCE_S = 0.1, 300.0
#: How long a node may take to accept a connection before the server counts as away.
_CONNECT_S = 5.0
#: What is held for a server that is away; more waits with its sender.
_HELD_BYTES = 1 << 20


class PoolBridge:
    """Owned by the loop of its process. `way`: address, port and secret of the server; None while it is away."""

    def __init__(self) -> None:
        self.way: tuple[str, int, str] | None = None
        self.state = "starting"
        self.stage = "its server is being started"
        self.connections: set[_Near] = set()

    @contextlib.asynccontextmanager
    async def serving(self, sock: socket.socket) -> AsyncIterator[None]:
        """Take connections from this bound socket."""
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Near(self), sock=sock, backlog=2048)
        try:
            yield
        finally:
            server.close()
            for near in list(self.connections):
                near.close()

    def away(self, stage: str) -> None:
        """The server cannot be reached: what is under way breaks off, so that it is sent again."""
        self.way, self.stage = None, stage
        for near in list(self.connections):
            near.broken()


class PoolEnd:
    """The pool's end on this machine, and how it came to its own end. Owned by its loop."""

    def __init__(self) -> None:
        self.bridge = PoolBridge()
        self.ended = asyncio.Event()
        self.why, self.code = "", 0

    def end(self, why: str, code: int = 0) -> None:
        if not self.ended.is_set():
            self.why, self.code = why, code
            self.ended.set()


class _Near(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, bridge: PoolBridge) -> None:
        self._bridge = bridge
        self._held = bytearray()
        self._far: _Far | None = None
        self._finding: asyncio.Task[None] | None = None
        #: Whether the server was not there where it was last: its node may be gone, which Ray says only later.
        self._refused = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream server
        self.transport = transport
        self._bridge.connections.add(self)
        self._finding = asyncio.create_task(self._find())

    def data_received(self, data: bytes) -> None:
        if self._far is not None:
            self._far.write(data)
            return
        self._held += data
        if (self._bridge.way is None or self._refused) and self._asks_health():
            self._tell_health()
        elif len(self._held) > _HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a protocol's signature
        self._bridge.connections.discard(self)
        if self._finding is not None:
            self._finding.cancel()
        if self._far is not None:
            self._far.close()

    def pause_writing(self) -> None:
        if self._far is not None:
            self._far.pause(on=True)

    def resume_writing(self) -> None:
        if self._far is not None:
            self._far.pause(on=False)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def broken(self) -> None:
        """Its server is gone. A connection that has none yet goes on waiting."""
        if self._far is not None:
            self.close()

    async def _find(self) -> None:
        """Connect to the server, as soon as there is one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S
        while loop.time() < until:
            if (way := self._bridge.way) is not None:
                address, port, secret = way
                with contextlib.suppress(OSError):  # TimeoutError is one
                    async with asyncio.timeout(_CONNECT_S):
                        _, far = await loop.create_connection(lambda: _Far(self), address, port)
                    far.write(secret.encode() + bytes(self._held))
                    self._held.clear()
                    self._far = far
                    if self.transport is not None:
                        self.transport.resume_reading()
                    return
                self._refused = True
                if self._asks_health():
                    self._tell_health()
                    return
            await asyncio.sleep(_RETRY_S)
        self.close()

    def _asks_health(self) -> bool:
        return self._held.startswith(b"GET /health ")

    def _tell_health(self) -> None:
        stage = "its server cannot be reached" if self._bridge.way is not None else self._bridge.stage
        body = json.dumps({"state": self._bridge.state, "stage": stage}).encode()
        head = f"HTTP/1.1 503 Away\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        if self.transport is not None:
            self.transport.write(head.encode() + body)
        self.close()


class _Far(asyncio.Protocol):
    """The connection to the server for one client's."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream connection
        self._transport = transport
        if self._near.transport is None or self._near.transport.is_closing():
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._near.transport is not None:
            self._near.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a protocol's signature
        self._near.close()

    def pause_writing(self) -> None:
        if self._near.transport is not None:
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._near.transport is not None:
            self._near.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self, *, on: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if on else self._transport.resume_reading)()
