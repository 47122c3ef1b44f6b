"""HTTP to a server on a Unix socket, one connection a request, answers as they come. Knows h11 (uvicorn's own); no routes, no pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import h11

__all__ = ["UpstreamError", "UpstreamReply", "ask"]

_SIZE = 64 * 1024


class UpstreamError(Exception):
    """The server is not there, or went away in the middle of its answer."""


class UpstreamReply:
    """An answer whose head has come. `close` it, whatever happens: that tells the server that nobody waits."""

    def __init__(self, wire: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._wire, self._reader, self._writer = wire, reader, writer
        self.status = 0

    async def begin(self) -> None:
        """Wait for its head. Raises UpstreamError."""
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
            while (event := self._wire.next_event()) is h11.NEED_DATA:
                self._wire.receive_data(await self._reader.read(_SIZE))
        except (OSError, h11.RemoteProtocolError) as exc:
            raise UpstreamError(f"it closed the connection: {exc}") from exc
        return event


async def ask(socket: Path, method: str, target: str, body: bytes = b"") -> UpstreamReply:
    """Send a request and wait for the head of its answer. Raises UpstreamError."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as exc:
        raise UpstreamError(f"it does not answer: {exc.strerror}") from exc
    wire = h11.Connection(h11.CLIENT)
    head = [("host", "vllm"), ("content-type", "application/json"), ("content-length", str(len(body)))]
    for event in (h11.Request(method=method, target=target, headers=head), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(wire.send(event) or b"")
    reply = UpstreamReply(wire, reader, writer)
    try:
        await reply.begin()
    except BaseException:
        reply.close()
        raise
    return reply
