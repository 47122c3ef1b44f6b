"""The tests' own servers end with everything they hold: what one leaves open is told to whatever test runs when it is collected."""

from __future__ import annotations

import gc
import socket

import pytest
from servers.exact import Exact, reply


@pytest.fixture
def nothing_older() -> None:
    """What was there before is out of the collector's sight: looking at all that hundreds of tests have loaded takes it seconds."""
    gc.freeze()


@pytest.mark.usefixtures("nothing_older")
@pytest.mark.parametrize("clients", [1, 2, 3] * 4)
def test_who_connects_in_the_last_moment_leaves_nothing_open(clients: int) -> None:
    socks = []
    with Exact([reply({})]) as server:
        for _ in range(clients):
            socks.append(sock := socket.socket())
            sock.connect(("127.0.0.1", server.port))
    for sock in socks:
        sock.close()
    gc.collect()  # a warning here is an error of this test
