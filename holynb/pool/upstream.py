"""HTTP to a server on a Unix socket, one connection a request, answers as they come. Knows h11 (uvicorn's own); no routes, no pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import h11

__all__ = ["Broken", "Reply", "ask"]

_SIZE = 64 * 1024


class Broken(Exception):
    """The server is not there, or went away in the middle of its answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose head has come."""

    status: int
    kind: str
    """Its content type."""
    _chunks: AsyncGenerator[bytes, None]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Pieces of the body. Raises Broken."""
        async for piece in self._chunks:
            yield piece

    async def read(self) -> bytes:
        """The whole body. Raises Broken."""
        return b"".join([piece async for piece in self._chunks])


@contextlib.asynccontextmanager
async def ask(socket: Path, method: str, target: str, body: bytes = b"") -> AsyncIterator[Reply]:
    """Send a request; leaving the block closes the connection, which tells the server that nobody waits. Raises Broken."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as exc:
        raise Broken(f"it does not answer: {exc.strerror}") from exc
    try:
        wire = h11.Connection(h11.CLIENT)
        head = [("host", "vllm"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        for part in (h11.Request(method=method, target=target, headers=head), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(wire.send(part) or b"")
        event = await _next(wire, reader)
        while isinstance(event, h11.InformationalResponse):
            event = await _next(wire, reader)
        if not isinstance(event, h11.Response):
            raise Broken("it closed the connection without an answer")
        kind = next((v.decode("latin-1") for k, v in event.headers if k == b"content-type"), "")
        pieces = _pieces(wire, reader)
        async with contextlib.aclosing(pieces):
            yield Reply(event.status_code, kind, pieces)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pieces(wire: h11.Connection, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while not isinstance(event := await _next(wire, reader), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            raise Broken("it closed the connection in the middle of an answer")
        yield bytes(event.data)


async def _next(wire: h11.Connection, reader: asyncio.StreamReader) -> object:
    """The next event. Raises Broken."""
    try:
        while (event := wire.next_event()) is h11.NEED_DATA:
            wire.receive_data(await reader.read(_SIZE))
    except (OSError, h11.RemoteProtocolError) as exc:
        raise Broken(f"it closed the connection: {exc}") from exc
    return event
