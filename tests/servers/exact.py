"""A server of exact bytes: for each request it plays a list of steps, in a thread and a loop of its own. Notes what it was sent.

A step is bytes to write, a number of seconds to wait, RST (the connection is reset), or EOF (it is closed).
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from servers.threaded import Threaded

RST = "RST"
EOF = "EOF"

Step = bytes | float | str


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exact(Threaded):
    """`with Exact(script) as server:`; `script` is the steps for every request, or a function of (request, its number).

    It may be entered again: it then listens at the same port.
    """

    script: Sequence[Step] | Callable[[Asked, int], Sequence[Step]]
    tls: ssl.SSLContext | None = None
    uds: str | None = None
    greeting: bytes = b""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def base(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def listen(self) -> asyncio.Server:
        if self.uds:
            return await asyncio.start_unix_server(self.accept, self.uds)
        server = await asyncio.start_server(self.accept, "127.0.0.1", self.port, ssl=self.tls, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        writer.write(self.greeting)
        while (asked := await read_request(reader, number)) is not None:
            self.asked.append(asked)
            steps = self.script(asked, len(self.asked) - 1) if callable(self.script) else self.script
            for step in steps:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, str):
                    if step == RST:
                        sock = writer.get_extra_info("socket")
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                    return
                else:
                    await asyncio.sleep(step)


async def read_request(reader: asyncio.StreamReader, number: int) -> Asked | None:
    """The next request of a connection; None where there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ", 2)
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Asked(method, path, headers, body, number)


# -- bytes to send -------------------------------------------------------------------------------------------------------


def reply(body: bytes | str | object = b"", status: int = 200, **headers: str) -> bytes:
    """A whole response; a body that is neither bytes nor text goes out as JSON. Header names: underscores for dashes."""
    kind = "text/plain"
    if isinstance(body, str):
        body, kind = body.encode(), "text/html" if body.startswith("<") else kind
    elif not isinstance(body, bytes):
        body, kind = json.dumps(body).encode(), "application/json"
    said = {"content-type": kind, "content-length": str(len(body))} | {k.replace("_", "-").lower(): v for k, v in headers.items()}
    return f"HTTP/1.1 {status} X\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in said.items()) + b"\r\n" + body


def stream_head(kind: str = "text/event-stream", **headers: str) -> bytes:
    """Status and headers of a chunked stream; `chunk`s follow, and `END`."""
    said = {"content-type": kind, "transfer-encoding": "chunked"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return b"HTTP/1.1 200 OK\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in said.items()) + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def sse(*events: object) -> bytes:
    """Server-sent events: text as it is, everything else as JSON."""
    return b"".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n".encode() for e in events)


def streamed(body: bytes, **headers: str) -> bytes:
    """A whole stream in one chunk."""
    return stream_head(**headers) + chunk(body) + END
