"""Nobody fills the server's memory or its connections without the token: heads, bodies and slow clients are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from pool_fake import Pool, Pools

from holynb.pool.server import connection
from holynb.pool.server.app import application
from holynb.pool.server.service import Identity, Service
from holynb.pool.server.sockets import bind, serving
from kernels_support.jupyter import socketdir

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()


@contextlib.contextmanager
def connected(pool: Pool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(pool.record.port or 0)), timeout=30) as sock:
        yield sock


def answered(sock: socket.socket) -> tuple[int, Any]:
    """Status and body of the answer, read to the end of the connection. 0 where it was reset."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body) if head else (0, None)


def flood(sock: socket.socket, piece: bytes, megabytes: int) -> int:
    """How many bytes it takes before it hangs up."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < megabytes * 1_000_000:
            sent += sock.send(piece)
    return sent


def memory(pool: Pool) -> int:
    return int(psutil.Process(pool.process.pid).memory_info().rss)


@pytest.mark.parametrize(
    "begin",
    [
        CHAT + b"x: ",
        CHAT,
        b"GET /",
        CHAT + b"transfer-encoding: chunked\r\n\r\n0\r\ntrailer: ",
        CHAT + b"transfer-encoding: chunked\r\n\r\n1;x=",
    ],
    ids=["one field", "many fields", "an address", "a trailer", "a chunk's extension"],
)
def test_a_head_without_end_is_not_read(echo: Pool, begin: bytes) -> None:
    before = memory(echo)
    with connected(echo) as sock:
        sock.sendall(begin)
        piece = b"a: b\r\n" * 10_000 if begin == CHAT else b"a" * 60_000
        assert flood(sock, piece, 200) < 30_000_000
    assert memory(echo) - before < 30_000_000
    assert echo.ask("/health")[0] == 200


@pytest.mark.parametrize("field", [b"x: " + b"a" * 70_000, b"\r\n".join(b"x%d: %d" % (i, i) for i in range(9_000))])
def test_a_head_that_is_too_long_is_told_so(echo: Pool, field: bytes) -> None:
    with connected(echo) as sock:
        sock.sendall(CHAT + field + b"\r\n\r\n")
        status, answer = answered(sock)
    assert status == 431
    assert "longer than 65,536 bytes" in answer["error"]["message"]


def test_a_head_of_a_browser_is_read(echo: Pool) -> None:
    with connected(echo) as sock:
        fields = b"cookie: " + b"a" * 40_000 + b"\r\nconnection: close\r\nauthorization: Bearer " + str(echo.record.token).encode()
        sock.sendall(CHAT + fields + b"\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)
        assert answered(sock)[0] == 200


def test_a_body_in_many_chunks_is_read(echo: Pool) -> None:
    """Of one byte each: their lengths are longer than they."""
    with connected(echo) as sock:
        fields = b"transfer-encoding: chunked\r\nconnection: close\r\nauthorization: Bearer " + str(echo.record.token).encode()
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "user": "u" * 60_000}).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        sock.sendall(CHAT + fields + b"\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert answered(sock)[0] == 200


@pytest.mark.parametrize("framing", [b"content-length: 200000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nbebc200\r\n"])
def test_a_body_without_the_token_is_not_read(echo: Pool, framing: bytes) -> None:
    before = memory(echo)
    with connected(echo) as sock:
        sock.sendall(CHAT + framing)
        assert flood(sock, b"a" * 60_000, 200) < 30_000_000
    assert memory(echo) - before < 30_000_000


def test_a_body_of_numbers_without_end_is_refused(echo: Pool) -> None:
    status, answer = echo.ask("/v1/completions", b'{"prompt": [' + b"1," * 5_000_000 + b"1]}")
    assert status == 413
    assert "4,000,000" in answer["error"]["message"]


def test_a_port_keeps_files_for_the_pools_owner(pools: Pools) -> None:
    pool = pools.start("--port", "0", files=256)
    most = max(16, resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE)[0] // 2)
    resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE, (64, resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE)[1]))
    assert most >= 32
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(pool)) for _ in range(33)]
        status, answer = answered(socks[-1])
        assert status == 503
        assert "Too many connections" in answer["error"]["message"]
        assert pool.ask("/health")[0] == 200, "over its own socket"


# -- slow clients, with deadlines of tenths of a second -----------------------------------------------------------------
@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    monkeypatch.setattr(connection, "BODY_S", 0.3)


async def drip(path: str, sent: bytes) -> bytes:
    """What is answered to these bytes and, where there are any, one more every 50 ms."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(sent)
        answer = asyncio.ensure_future(reader.read())
        while not (await asyncio.wait({answer}, timeout=0.05))[0]:
            writer.write(b"a" if sent else b"")
        return answer.result()
    finally:
        writer.close()


def test_a_client_that_sends_a_byte_now_and_then_is_given_up(quick: None) -> None:
    async def main() -> list[bytes]:
        folder = socketdir.make()
        try:
            sockets = bind(folder, None)
            async with asyncio.timeout(60), serving(application(Service(Identity("n", "m"))), sockets):
                sent = [b"", b"GET /hea", CHAT + b"x: y\r\n", CHAT + b"content-length: 99\r\n\r\n{"]
                return await asyncio.gather(*(drip(str(sockets.path), one) for one in sent))
        finally:
            socketdir.remove(folder)

    for answer, part in zip(asyncio.run(main()), ("head", "head", "head", "body"), strict=True):
        assert b"408" in answer.split(b"\r\n")[0]
        assert f"The request's {part} did not come within 0.3 s".encode() in answer
