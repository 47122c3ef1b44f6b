"""The local end of a pool on Ray, while its server is away."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from holynb.pool.ray.bridge import PoolBridge


async def health(path: Path) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nhost: pool\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    return dict(json.loads(body))


@pytest.mark.parametrize("way", [None, "gone"])
def test_a_server_that_is_away_is_said_and_not_silence(tmp_path: Path, way: str | None) -> None:
    async def asked(bound: int) -> dict[str, Any]:
        bridge = PoolBridge()
        bridge.stage = "its server is being started again by Ray"
        if way:
            bridge.way = ("127.0.0.1", bound, "secret")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(tmp_path / "s"))
        async with bridge.serving(sock):
            return await health(tmp_path / "s")

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        told = asyncio.run(asked(closed.getsockname()[1]))
    assert told["state"] == "starting"
    assert told["stage"] == ("its server cannot be reached" if way else "its server is being started again by Ray")
