"""HTTP as engines see it: over both transports, through proxies, with the environment's certificates, and every way a connection fails."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme
from servers.exact import END, EOF, RST, Exact, chunk, reply, stream_head
from servers.proxy import Proxy

from holynb.engines import http
from holynb.errors import Fault

KEY = "sk-test-0123456789abcdef"
HEADERS = [(b"authorization", b"Bearer " + KEY.encode()), (b"content-type", b"application/json"), (b"user-agent", b"holynb")]


@pytest.fixture(params=["direct", "aiohttp", "httpx"])
def flavor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOLYNB_HTTP", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def no_named_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


async def post(url: str, body: bytes = b"{}", *, client: http.Client | None = None, connect: float = 5.0) -> tuple[int, bytes]:
    """One request through a client that is borrowed, or the one given."""
    mine = client or http.borrow(url)
    try:
        got = await mine.send("POST", url, HEADERS, body, connect=connect)
        try:
            return got.status, await got.read()
        finally:
            await got.aclose()
    finally:
        if client is None:
            await http.give_back(mine)


def fault(url: str, **options: object) -> Fault:
    with pytest.raises(Fault) as caught:
        asyncio.run(post(url, **options))  # type: ignore[arg-type]
    assert KEY not in str(caught.value)
    return caught.value


# -- requests and replies ------------------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_given_and_its_reply_comes_back(flavor: str):
    with Exact([reply({"a": 1}, x_request_id="7")]) as server:
        assert asyncio.run(post(f"{server.base}/v1/chat?x=1", b'{"m":1}')) == (200, b'{"a": 1}')
        sent = server.asked[0]
    assert (sent.method, sent.path, sent.body) == ("POST", "/v1/chat?x=1", b'{"m":1}')
    assert sent.headers == {
        "host": f"127.0.0.1:{server.port}",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "user-agent": "holynb",
        "content-length": "7",
    }


def test_a_get_has_no_body(flavor: str):
    async def get(url: str) -> int:
        client = http.Client()
        got = await client.send("GET", url, HEADERS)
        await got.read()
        await client.aclose()
        return got.status

    with Exact([reply(b"ok")]) as server:
        assert asyncio.run(get(f"{server.base}/metrics")) == 200
        assert (server.asked[0].method, server.asked[0].body) == ("GET", b"")


def test_a_large_body_goes_out_in_pieces_with_its_length(flavor: str):
    body = b"x" * 3_000_000
    with Exact([reply(b"ok")]) as server:
        asyncio.run(post(server.base, body))
        assert server.asked[0].body == body
        assert server.asked[0].headers["content-length"] == "3000000"
        assert "transfer-encoding" not in server.asked[0].headers


def test_a_compressed_answer_is_unpacked(flavor: str):
    with Exact([reply(gzip.compress(b'{"a": 1}'), content_encoding="gzip")]) as server:
        assert asyncio.run(post(server.base)) == (200, b'{"a": 1}')
    with Exact([reply(b"not gzip", content_encoding="gzip")]) as server:
        assert fault(server.base).kind == "truncated"


def test_connections_are_used_again(flavor: str):
    async def three(url: str) -> None:
        client = http.borrow(url)
        other = http.borrow(url)
        assert other is client, "one client for all engines behind the same proxy"
        for _ in range(3):
            await post(url, client=client)
        await http.give_back(client)
        assert await post(url, client=other) == (200, b"ok"), "closed only when the last has given it back"
        await http.give_back(other)
        assert not http._shared

    with Exact([reply(b"ok")]) as server:
        asyncio.run(three(server.base))
        assert (len(server.asked), server.connections) == (4, 1)


def test_hundreds_at_once_wait_for_nobody():
    """512 connections, each answered only when all have asked: a pool that queues would stand still."""

    async def all_of(url: str) -> list[tuple[int, bytes]]:
        client = http.Client()
        try:
            async with asyncio.timeout(60):
                return await asyncio.gather(*(post(url, client=client, connect=30) for _ in range(512)))
        finally:
            await client.aclose()

    def script(request: object, number: int) -> Sequence[bytes | float]:
        return waits[number]

    class Until(list[bytes]):
        """Steps that begin once everybody is there."""

        def __iter__(self) -> Iterator[bytes | float]:  # type: ignore[override]
            while len(server.asked) < 512:
                yield 0.01
            yield reply(b"ok")

    waits = [Until() for _ in range(512)]
    with Exact(script) as server:
        answers = asyncio.run(all_of(server.base))
    assert answers == [(200, b"ok")] * 512


def test_a_unix_socket(flavor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a private socket has no use for a proxy
    path = str(tmp_path / "s")

    async def ask() -> tuple[int, bytes]:
        client = http.Client(uds=path)
        try:
            return await post("http://pool/v1/models", client=client)
        finally:
            await client.aclose()

    with Exact([reply(b"ok")], uds=path) as server:
        assert asyncio.run(ask()) == (200, b"ok")
        assert server.asked[0].headers["host"] == "pool"


def test_an_unknown_flavor_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLYNB_HTTP", "curl")
    with pytest.raises(Fault, match="HOLYNB_HTTP is 'curl'"):
        http.Client()


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_nobody_there(flavor: str):
    with Exact([]) as server:
        url = server.base
    error = fault(url)
    assert (error.kind, error.retry, error.stops, error.unreachable) == ("connection", True, False, True)
    assert "127.0.0.1" in error.message


def test_a_name_that_does_not_exist(flavor: str):
    error = fault("https://no-such-host.invalid/v1")
    assert error.kind == "connection"
    assert "the host no-such-host.invalid was not found" in error.message


def test_connecting_has_a_limit(flavor: str):
    """A listener whose backlog is full answers no SYN."""
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        error = fault(url, connect=0.2)
        for sock in waiting:
            sock.close()
    assert error.kind == "timeout"
    assert "within 0.2 s" in error.message
    assert error.unreachable


@pytest.mark.parametrize("steps", [[EOF], [RST]])
def test_the_connection_ends_without_an_answer(flavor: str, steps: list[str]):
    with Exact(steps) as server:
        error = fault(server.base)
    assert (error.kind, error.retry, error.unreachable) == ("connection", True, False), "somebody took the request"


@pytest.mark.parametrize("end", [EOF, RST])
@pytest.mark.parametrize("head", [stream_head() + chunk(b"half"), reply(b"half", content_length="100")])
def test_the_connection_breaks_in_the_middle(flavor: str, head: bytes, end: str):
    with Exact([head, 0.05, end]) as server:
        error = fault(server.base)
    assert (error.kind, error.retry) == ("truncated", True)
    assert "in the middle" in error.message


def test_something_that_is_not_http(flavor: str):
    with Exact([b"SSH-2.0-OpenSSH_9.2\r\n\r\n", EOF]) as server:
        error = fault(server.base)
    assert error.kind == "server"
    assert "not HTTP" in error.message


def test_nonsense_in_the_headers_is_survived_or_named(flavor: str):
    with Exact([b"HTTP/1.1 200 OK\r\nx-ratelimit-reset-requests: \xff\xfe\r\nx: y\r\ncontent-length: 2\r\n\r\nok"]) as server:
        assert asyncio.run(post(server.base)) == (200, b"ok")
    with Exact([b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", EOF]) as server:
        assert fault(server.base).kind == "server"


def test_a_body_without_end_is_not_read_for_ever(flavor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http.Reply.read, "__defaults__", (2_000_000,))
    with Exact([stream_head(), *[chunk(b"x" * 2**16)] * 64, END]) as server:
        error = fault(server.base)
    assert "more than 2 MB" in error.message
    assert not error.retry


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays_here(flavor: str, status: int):
    with Exact([reply(b"stolen")]) as elsewhere, Exact([reply(b"", status, location=f"{elsewhere.base}/v1?token=1")]) as server:
        error = fault(f"{server.base}/v1")
        assert not elsewhere.asked
        assert (error.kind, error.stops, error.status) == ("connection", True, status)
        assert f"{elsewhere.base}/v1, and a key never follows" in error.message


def test_an_address_that_is_none(flavor: str):
    for url in ("http://", "ftp://host/x", "http://exa mple/"):
        error = fault(url)
        assert (error.kind, error.stops) == ("connection", True), url


# -- certificates --------------------------------------------------------------------------------------------------------


def test_the_environments_certificates_are_trusted(flavor: str, tls: ssl.SSLContext, trusted: Path):
    with Exact([reply(b"ok")], tls=tls) as server:
        assert asyncio.run(post(server.base)) == (200, b"ok")


def test_a_folder_of_certificates(flavor: str, tls: ssl.SSLContext, trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import subprocess

    folder = tmp_path / "certs"
    folder.mkdir()
    name = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", trusted], capture_output=True, text=True, check=True).stdout.strip()
    (folder / f"{name}.0").write_bytes(trusted.read_bytes())
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    with Exact([reply(b"ok")], tls=tls) as server:
        assert asyncio.run(post(server.base)) == (200, b"ok")


def test_a_stranger_is_not_trusted_and_asked_once(flavor: str, tls: ssl.SSLContext):
    with Exact([reply(b"ok")], tls=tls) as server:
        error = fault(server.base)
        assert not server.asked
    assert (error.kind, error.retry, error.stops) == ("connection", False, True)
    assert "SSL_CERT_FILE" in error.message


def test_an_expired_certificate(flavor: str, authority: trustme.CA, trusted: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    authority.issue_cert("127.0.0.1", not_before=then, not_after=then + dt.timedelta(days=9)).configure_cert(context)
    with Exact([reply(b"ok")], tls=context) as server:
        error = fault(server.base)
    assert "expired" in error.message
    assert error.stops


def test_https_to_a_server_that_speaks_http(flavor: str, trusted: Path):
    with Exact([], greeting=reply(b"what?", 400)) as server:
        error = fault(server.base.replace("http:", "https:"))
    assert error.kind == "connection"
    assert "TLS" in error.message


@pytest.mark.parametrize(("name", "text"), [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", "no certificate"), ("SSL_CERT_DIR", None)])
def test_certificates_that_cannot_be_read_are_named(name: str, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "named"
    if text:
        file.write_text(text)
    monkeypatch.setenv(name, str(file))
    error = fault("https://127.0.0.1:9")
    assert f"{name} names {file}" in error.message
    assert error.stops


# -- proxies -------------------------------------------------------------------------------------------------------------


def test_http_goes_through_the_proxy(flavor: str, monkeypatch: pytest.MonkeyPatch):
    with Exact([reply(b"ok")]) as server, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert asyncio.run(post(f"{server.base}/v1")) == (200, b"ok")
        assert proxy.asked == [f"POST {server.base}/v1"]


def test_https_goes_through_the_proxys_tunnel_and_it_learns_no_key(
    flavor: str, tls: ssl.SSLContext, trusted: Path, monkeypatch: pytest.MonkeyPatch
):
    with Exact([reply(b"ok")], tls=tls) as server, Proxy("me:p%40ss") as proxy:
        proxy.login = "me:p@ss"
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        assert asyncio.run(post(f"{server.base}/v1")) == (200, b"ok")
        assert proxy.asked == [f"CONNECT 127.0.0.1:{server.port}"]
        assert "proxy-authorization" not in server.asked[0].headers


def test_no_proxy_is_honoured(flavor: str, monkeypatch: pytest.MonkeyPatch):
    with Exact([reply(b"ok")]) as server, Proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.0/8")
        assert asyncio.run(post(server.base)) == (200, b"ok")
        assert not proxy.asked
        assert http.proxy_for("http://api.other.com/v1") == proxy.url
        assert http.proxy_for("https://api.example.com/v1") is None


def test_a_proxy_that_wants_a_password(flavor: str, tls: ssl.SSLContext, trusted: Path, monkeypatch: pytest.MonkeyPatch):
    with Exact([reply(b"ok")], tls=tls) as server, Proxy("me:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong-password@127.0.0.1:{proxy.port}")
        error = fault(server.base)
    assert (error.kind, error.stops) == ("connection", True)
    assert "requires a user and a password" in error.message
    assert "wrong-password" not in error.message


def test_a_proxy_that_is_down_or_of_another_kind(flavor: str, monkeypatch: pytest.MonkeyPatch):
    with Exact([]) as server:
        pass
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{server.port}")
    error = fault("http://127.0.0.1:1/v1")
    assert error.kind == "connection"
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    assert "only http and https proxies" in fault("http://127.0.0.1:1/v1").message


@pytest.mark.parametrize("proxy", ["not a url", "http://127.0.0.1:99999", "http://me:secret#1@127.0.0.1:9", "http://[::1", "http://"])
def test_a_proxy_that_is_no_address_is_not_the_servers_fault(proxy: str, flavor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = fault("http://127.0.0.1:1/v1")
    assert "HTTP_PROXY" in error.message
    assert "secret" not in error.message
    assert error.stops


def test_a_proxys_name_that_cannot_be_looked_up_is_the_one_that_is_told(flavor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@nowhere.invalid:3128")
    error = fault("http://127.0.0.1:1/v1")
    assert "nowhere.invalid:3128" in error.message
    assert "secret" not in error.message
