"""The sockets are a pool's own from the moment they are bound, and one that cannot be served is an error at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holynb.pool.server.app import application
from holynb.pool.server.service import Identity, Service
from holynb.pool.server.sockets import PortTaken, bind, serving
from kernels_support.jupyter import socketdir


@pytest.fixture
def folder() -> Iterator[Path]:
    path = socketdir.make()
    yield path
    socketdir.remove(path)


def bound(port: int = 0) -> socket.socket:
    """A port that is bound, as servers do it, and to which nobody listens yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def test_of_two_that_bind_one_port_the_second_hears_of_it_at_once(folder: Path) -> None:
    """The system lets both bind it, and refuses the second that listens."""
    with bound() as first, bound() as late:
        port, other = first.getsockname()[1], late.getsockname()[1]
        first.listen()
        with pytest.raises(PortTaken, match=f"port {port} cannot be used"):
            bind(folder, port)
        sockets = bind(folder, other)
        assert sockets.tcp is not None
        with sockets.unix, sockets.tcp, pytest.raises(OSError, match="in use"):
            late.listen()


def test_a_door_that_cannot_be_served_is_raised_and_not_waited_for(folder: Path) -> None:
    sockets = bind(folder, 0)
    assert sockets.tcp is not None
    sockets.tcp.close()

    async def main() -> None:
        async with asyncio.timeout(20), serving(application(Service(Identity("n", "m"))), sockets):
            raise AssertionError("it does not serve")

    with pytest.raises(OSError, match=r"(?i)bad file|invalid"):
        asyncio.run(main())
    assert sockets.unix.fileno() == -1, "the other one is closed"
