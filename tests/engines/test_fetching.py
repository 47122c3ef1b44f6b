"""Addresses of attachments: where they may lead, how much they may bring, and that a name is asked once and then held to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_
from hypothesis import strategies as st
from pictures import PNG
from servers.exact import END, Exact, chunk, stream_head

from holynb.config import settings
from holynb.engines import fetching

pytestmark = pytest.mark.usefixtures("no_project")


@pytest.fixture
def allowed(home: Path) -> None:
    """This machine's own address may be asked."""
    (home / "config.toml").write_text('[attach]\nhosts = ["127.0.0.1", "localhost"]\n')


def fetched(url: str, most: int = 10**6) -> bytes:
    return asyncio.run(fetching.fetch(url, most))


def refused(url: str, most: int = 10**6) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        fetched(url, most)
    return str(caught.value)


def found(data: bytes = PNG, status: int = 200, **headers: str) -> bytes:
    lines = "".join(f"{k}: {v}\r\n" for k, v in {"content-length": str(len(data)), **headers}.items())
    return f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode() + data


@pytest.mark.usefixtures("allowed")
def test_what_stands_there_comes_back_and_nothing_of_ours_goes_along():
    with Exact([found()]) as server:
        assert fetched(f"{server.base}/a.png?x=1") == PNG
        (came,) = server.asked
    assert (came.method, came.path, came.body) == ("GET", "/a.png?x=1", b"")
    assert not {"authorization", "cookie", "referer"} & came.headers.keys()


PRIVATE = (
    "127.0.0.1", "10.1.2.3", "172.16.9.9", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "198.18.0.1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_inside_is_not_public(address: str):
    assert not fetching._is_public(ip_address(address))


@settings_(max_examples=60)
@given(st.ip_addresses())
def test_only_the_internet_is_public(address: Any):
    if fetching._is_public(address):
        assert address.is_global
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)
    assert fetching._is_public(ip_address("93.184.215.14"))
    assert fetching._is_public(ip_address("2606:2800:21f:cb07:6820:80da:af6b:8b2c"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "0"])
def test_this_machine_is_not_asked_however_it_is_spelled(host: str):
    with Exact([found()]) as server:
        words = refused(f"http://{host}:{server.port}/a.png")
        assert server.connections == 0
    assert "inside this machine or network" in words
    assert f'[attach] hosts = ["{host}"]' in words


def test_a_redirect_inside_is_not_followed(home: Path):
    with Exact([found(b"", 302, location="http://127.0.0.2:1/secret")]) as server:
        (home / "config.toml").write_text(f'[attach]\nhosts = ["127.0.0.1:{server.port}"]\n')
        assert "is at 127.0.0.2" in refused(f"{server.base}/a")
    for there, words in (("file:///etc/passwd", "only http and https"), ("http://user:pw@127.0.0.1/", "has a name or password")):
        with Exact([found(b"", 302, location=there)]) as server:
            (home / "config.toml").write_text('[attach]\nhosts = ["127.0.0.1"]\n')
            assert words in refused(f"{server.base}/a")


@pytest.mark.usefixtures("allowed")
def test_redirects_are_followed_and_counted():
    def script(asked: Any, number: int) -> Sequence[bytes]:
        return [found(b"", 307, location="/b")] if number < 5 else [found()]

    with Exact(script) as server:
        assert fetched(f"{server.base}/a") == PNG
        assert [a.path for a in server.asked] == ["/a"] + ["/b"] * 5
    with Exact([found(b"", 301, location="/again")]) as server:
        assert "more than 5 redirects" in refused(f"{server.base}/a")


def test_a_name_that_is_answered_otherwise_the_second_time_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    """DNS rebinding: first a public address, then this machine's."""
    answers = [
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))],
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))],
    ]
    asked: list[str] = []
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop: Any, host: str, port: int, **facts: Any) -> Any:
        if host[:1].isdigit():
            return await real(loop, host, port, **facts)
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    tried: list[str] = []

    async def sock_connect(loop: Any, sock: Any, address: Any) -> None:
        tried.append(address[0])
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    assert "was not fetched" in refused("http://rebind.example/a.png")
    assert (asked, set(tried)) == (["rebind.example"], {"93.184.215.14"})


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([found(status=404)], "the server answered 404"),
        ([found(bytes(2000))], "has"),
        ([stream_head("image/png"), chunk(bytes(600)), chunk(bytes(600)), END], "has more than"),
        ([found(PNG, **{"content-length": "100000000"})], "has 100 MB"),
    ],
)
def test_what_is_not_taken(steps: Any, words: str):
    with Exact(steps) as server:
        assert words in refused(f"{server.base}/a", 1000)


@pytest.mark.usefixtures("allowed")
def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)

    def script(fails: int) -> Callable[[Any, int], Sequence[bytes]]:
        return lambda asked, number: [found(status=503)] if number < fails else [found()]

    with Exact(script(2)) as server:
        assert fetched(f"{server.base}/a") == PNG
        assert len(server.asked) == 3
    with Exact(script(9)) as server:
        assert "503" in refused(f"{server.base}/a")
        assert len(server.asked) == 3
    assert "there is no host" in refused("http://no-such-host.invalid/a")


@pytest.mark.parametrize(
    "url", ["ftp://example.com/a", "http://", "http://[::1", "http://user:pw@example.com/a", "http://example.com:99999/"]
)
def test_what_is_no_address(url: str):
    assert refused(url)


def test_only_the_persons_own_file_allows_hosts(tmp_path: Path):
    from holynb.errors import BadSetting

    (tmp_path / "pyproject.toml").write_text('[tool.holynb.attach]\nhosts = ["127.0.0.1"]\n')
    with pytest.raises(BadSetting, match="only from your own"):
        settings.current()
