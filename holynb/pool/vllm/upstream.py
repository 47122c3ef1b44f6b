"""HTTP client of a server on a Unix socket: one connection per request, streamed responses. Knows h11; no routes, no pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import h11

__all__ = ["UpstreamError", "UpstreamReply", "request"]

_READ_BYTES = 64 * 1024


class UpstreamError(Exception):
    """The server does not answer, or broke off its response."""


class UpstreamReply:
    """A response whose head has arrived. Always `close` it: that tells the server to stop generating."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection, self._reader, self._writer = connection, reader, writer
        self.status = 0

    async def read_head(self) -> None:
        """Wait for the head. Raises UpstreamError."""
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise UpstreamError("it closed the connection without an answer")
        self.status = event.status_code

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Pieces of the body. Raises UpstreamError."""
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise UpstreamError("it closed the connection in the middle of an answer")
            yield bytes(event.data)

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamError."""
        return b"".join([piece async for piece in self.chunks()])

    def close(self) -> None:
        self._writer.close()

    async def _next(self) -> Any:
        """The next event. Raises UpstreamError."""
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(await self._reader.read(_READ_BYTES))
        except (OSError, h11.RemoteProtocolError) as exc:
            raise UpstreamError(f"it closed the connection: {exc}") from exc
        return event


async def request(socket: Path, method: str, target: str, body: bytes = b"") -> UpstreamReply:
    """Send a request and wait for the head of its response. Raises UpstreamError."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as exc:
        raise UpstreamError(f"it does not answer: {exc.strerror}") from exc
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", "vllm"), ("content-type", "application/json"), ("content-length", str(len(body)))]
    for event in (h11.Request(method=method, target=target, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(event) or b"")
    reply = UpstreamReply(connection, reader, writer)
    try:
        await reply.read_head()
    except BaseException:
        reply.close()
        raise
    return reply
