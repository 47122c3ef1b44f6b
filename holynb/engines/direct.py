"""HTTP/1.1 over asyncio and httptools, as one httpx transport: no queue, no locks, one connection per request. Knows no proxy.

RFC 9112. A connection serves one request at a time, and is reused only after its response was read to the end; the scheduler bounds their
number. httptools is Node's parser; the rest is done here: responses that end with the connection, 1xx, flow control.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

import httptools
import httpx

__all__ = ["DirectTransport", "target_of"]

#: Unread bytes from which on the connection is not read until they are taken.
HIGH_WATER_BYTES = 2**18
#: Limit for all headers of a response.
MAX_HEADER_BYTES = 2**16

Key = tuple[str, str, int]
Pairs = list[tuple[bytes, bytes]]
#: Where a request goes: the connection's key, and its path with the query.
Target = tuple[Key, bytes]


class DirectTransport(httpx.AsyncBaseTransport):
    """Connections by address. `uds`: all of them to one Unix socket. Idle ones are closed after `keepalive` seconds."""

    def __init__(self, context: ssl.SSLContext, uds: str | None = None, keepalive: float = 4.0) -> None:
        self._context, self._uds, self._keepalive = context, uds, keepalive
        self._idle: dict[Key, deque[tuple[_Connection, float]]] = {}
        self._all: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and return once the headers are there. Raises httpx.ConnectTimeout, ConnectError, RemoteProtocolError, ReadError."""
        body = b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else cast("AsyncIterable[bytes]", request.stream)
        seconds = request.extensions.get("timeout", {}).get("connect")
        status, headers, stream = await self.send_raw(request.method, target_of(request.url), request.headers.raw, body, seconds)
        return httpx.Response(status, headers=headers, stream=stream)

    async def send_raw(
        self, method: str, target: Target, headers: Pairs, body: bytes | AsyncIterable[bytes], seconds: float | None
    ) -> tuple[int, Pairs, _Body]:
        """The same without httpx's objects, whose construction costs as much as sending. Returns status, headers, body.

        `headers` must include host and the length of the body.
        """
        key, path = target
        connection = self._take(key) or await self._connect(key, seconds)
        try:
            await connection.write(method, path, headers, body)
            await connection.wait_for_headers()
        except BaseException:
            connection.abort()
            raise
        response_headers, connection.headers = connection.headers, []  # moved: an idle connection must not keep a key that a server echoed
        return connection.status, response_headers, _Body(connection, self, key)

    async def aclose(self) -> None:
        """Close every connection, idle or not."""
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports run their callbacks

    def give_back(self, key: Key, connection: _Connection) -> None:
        """Keep a connection whose response was read to its end; close any other."""
        if connection.reusable():
            self._idle.setdefault(key, deque()).append((connection, time.monotonic()))
        else:
            connection.abort()

    def _take(self, key: Key) -> _Connection | None:
        """The most recently used open connection, if any. Closes those that were idle for too long."""
        idle = self._idle.get(key)
        oldest = time.monotonic() - self._keepalive
        while idle and idle[0][1] < oldest:
            idle.popleft()[0].abort()
        while idle:
            connection, _ = idle.pop()
            if not connection.closed:
                connection.reset()
                return connection
        return None

    async def _connect(self, key: Key, seconds: float | None) -> _Connection:
        scheme, host, port = key
        context = self._context if scheme == "https" else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                if self._uds:
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self._all), self._uds)
                else:
                    name = host if context else None
                    # One address needs no race; asyncio's, cancelled in the moment it is won, leaks its socket (Python 3.11).
                    race = None if _is_address(host) else 0.25
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self._all), host, port, ssl=context, server_hostname=name, happy_eyeballs_delay=race
                    )
        except TimeoutError as exc:
            raise httpx.ConnectTimeout("no connection in time") from exc
        except ssl.SSLError:
            raise
        except OSError as exc:
            raise httpx.ConnectError(str(exc)) from exc
        return connection


def target_of(url: httpx.URL) -> Target:
    """Where requests to `url` go. Kept by whoever sends many there: a URL puts its parts together each time it is asked."""
    return (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)), url.raw_path


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Connection(asyncio.Protocol):
    """One socket and its parser. The parser calls the `on_` methods."""

    def __init__(self, connections: set[_Connection]) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Prepare for the next request."""
        self.parser = httptools.HttpResponseParser(self)
        self.status, self.headers = 0, cast("Pairs", [])
        self._chunks: deque[bytes] = deque()
        self._unread = self._header_size = 0
        self._headers_complete = self.ended = self._keep_alive = self._paused = self._until_close = False
        self._error: Exception | None = None

    def reusable(self) -> bool:
        return self.ended and not self.closed and not self._until_close and not self._chunks and self._keep_alive

    def abort(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.abort()

    # -- out -----------------------------------------------------------------------------------------------------------
    async def write(self, method: str, target: bytes, headers: Pairs, body: bytes | AsyncIterable[bytes]) -> None:
        transport = self._open_transport()
        lines = [method.encode("ascii"), b" ", target, b" HTTP/1.1\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        if isinstance(body, bytes):
            lines.append(body)
            transport.write(b"".join(lines))
            return
        transport.write(b"".join(lines))
        async for piece in body:
            await self._writable.wait()
            self._open_transport().write(piece)

    def _open_transport(self) -> asyncio.Transport:
        if self._transport is None or self.closed:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.") from self._error
        return self._transport

    # -- in ------------------------------------------------------------------------------------------------------------
    async def wait_for_headers(self) -> None:
        while not self._headers_complete:
            if self._error is not None:
                raise self._error
            if self.closed:
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
            await self._wait()

    async def chunk(self) -> bytes:
        """The next piece of the body; empty at its end."""
        while not self._chunks:
            if self.ended:
                return b""
            if self._error is not None:
                raise self._error
            if self.closed:
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            await self._wait()
        piece = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        self._unread = 0
        if self._paused and self._transport is not None and not self.closed:
            self._paused = False
            self._transport.resume_reading()
        return piece

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- asyncio's side ------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self.ended:  # after the end it is noise; the connection is not reused
                self._error = httpx.RemoteProtocolError(str(exc) or type(exc).__name__)
            self._until_close = True
            self.abort()
        self._wake()

    def eof_received(self) -> bool:
        if self._headers_complete and self._until_close:
            self.ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._connections.discard(self)
        if exc is not None and self._error is None and not self.ended:
            self._error = httpx.ReadError(str(exc) or type(exc).__name__)
        elif exc is None and self._headers_complete and self._until_close and self._error is None:
            self.ended = True
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- the parser's side ---------------------------------------------------------------------------------------------
    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value)
        if self._header_size > MAX_HEADER_BYTES:
            raise httptools.HttpParserError(f"more than {MAX_HEADER_BYTES:,} bytes of headers")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if 100 <= status < 200:
            self.headers, self._header_size = [], 0  # informational; the response follows
            return
        headers = dict(self.headers)
        has_length = b"content-length" in headers or b"chunked" in headers.get(b"transfer-encoding", b"").lower() or status in (204, 304)
        self.status, self._headers_complete, self._until_close = status, True, not has_length

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._headers_complete:
            self.ended = True
            self._keep_alive = self.parser.should_keep_alive()  # the parser forgets it afterwards


class _Body(httpx.AsyncByteStream):
    """The body of one response. Closing it gives the connection back, or closes it where something was left unread."""

    def __init__(self, connection: _Connection, transport: DirectTransport, key: Key) -> None:
        self._connection: _Connection | None = connection
        self._transport, self._key = transport, key

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection: Any = self._connection
        while connection is not None and (piece := await connection.chunk()):
            yield piece

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.give_back(self._key, connection)
