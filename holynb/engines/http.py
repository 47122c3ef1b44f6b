"""HTTP: one request out, one reply in. With `direct`, the only import of httpx; knows no wire, no key and no retry.

httpx gives the types, not the client: its connection pool walks every connection for every request (encode/httpx#3215), so requests go
straight to our own transport (`direct`), and through a proxy to httpx-aiohttp's. HOLYNB_HTTP=aiohttp or httpx selects those for everything.
A transport called directly skips what httpx.AsyncClient adds, so that is done here: proxies and certificates of the environment, no
redirects, decompression. Every failure becomes one `errors.Fault` here and nowhere else. Lives on the io loop.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from holynb.engines import codec, encodings, transport_errors
from holynb.engines.environment import certificates, named_certificates, no_certificates
from holynb.errors import Fault
from holynb.no_proxy import proxy_for
from holynb.units import memory

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "Reply", "borrow", "give_back"]

#: Headers as sent: lower case, Latin-1.
Headers = Iterable[tuple[bytes, bytes]]

#: Limit for a body that is read whole.
MAX_BODY_BYTES = 64_000_000
#: Idle connections close before servers close them (Node and uvicorn: 5 s); else a request may be sent on one that is being closed.
KEEPALIVE_S = 4.0
#: From this size on a body is sent in chunks: aiohttp warns that a large one would block the loop.
CHUNK_FROM_BYTES = 2**20
CHUNK_BYTES = 2**16
#: Response headers longer than aiohttp's default of 8,190 bytes are seen behind some gateways.
MAX_HEADER_BYTES = 64 * 2**10


class Reply:
    """A reply; `raw` names are lower case. Read it whole or in chunks, then `aclose`: a connection is reused only if all of it was read."""

    __slots__ = ("_body", "_host", "_source", "headers", "status")

    def __init__(self, status: int, raw: Iterable[tuple[bytes, bytes]], body: Any, host: str) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {k.decode("latin-1"): v.decode("latin-1") for k, v in raw}
        self._body, self._host = body, host
        self._source: Any = None

    async def chunk(self) -> bytes:
        """The next piece of the body, decompressed and as UTF-8; empty at its end. Raises Fault (truncated; server: it cannot be read)."""
        if self._source is None:
            plain = encodings.is_plain(self.headers)
            self._source = aiter(self._body) if plain else encodings.text(self.headers, self._body, self._host, strict=self.status == 200)
        try:
            async for piece in self._source:
                if piece:
                    return bytes(piece)
        except Exception as exc:
            raise transport_errors.read_fault(exc, self._host) from exc
        return b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Fault (truncated)."""
        while piece := await self.chunk():
            yield piece

    async def read(self, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The whole body. Raises Fault: truncated, or server where it is longer than `max_bytes`."""
        parts, size = list[bytes](), 0
        while piece := await self.chunk():
            size += len(piece)
            if size > max_bytes:
                raise Fault("server", f"{self._host} answered more than {memory(max_bytes)}, as no model does.", retry=False)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        try:
            if self._source is not None:
                await self._source.aclose()
            await self._body.aclose()
        except Exception as exc:
            # httpx translates errors on closing as it does on reading; a failure to close loses no answer.
            if not transport_errors.is_transport_error(exc):
                raise


class Client:
    """Connections to any number of hosts, through one proxy or none. `uds`: every request goes to this Unix socket."""

    def __init__(self, *, proxy: str | None = None, uds: str | None = None, flavor: str | None = None) -> None:
        self._proxy, self._uds, self._flavor = proxy, uds, flavor or os.environ.get("HOLYNB_HTTP") or "direct"
        if self._flavor not in ("direct", "aiohttp", "httpx"):
            words = f"HOLYNB_HTTP is {self._flavor!r}; it takes direct (the default), aiohttp or httpx."
            raise Fault("connection", words, stops=True, retry=False)
        self._transports: dict[str, httpx.AsyncBaseTransport] = {}
        self._addresses: dict[str, _Address] = {}
        self.users = 0

    async def send(self, method: str, url: str, headers: Headers, body: codec.Body | None = None, *, connect: float = 10.0) -> Reply:
        """One request; returns when the reply's headers are there. `connect`: seconds to a connected socket, TLS included.

        Raises Fault: timeout or connection, also for a redirect, which would carry the key to another address.
        """
        address = self._addresses.get(url)
        try:
            if address is None:
                address = self._addresses[url] = _address(url)
            reply = await self._exchange(method, address, list(headers), body, connect)
        except Exception as exc:
            raise transport_errors.request_fault(exc, _host(url), connect, self._proxy) from exc
        if 300 <= reply.status < 400:
            await reply.aclose()
            raise transport_errors.redirect_fault(url, reply.status, reply.headers.get("location", ""))
        return reply

    async def _exchange(
        self, method: str, address: _Address, headers: list[tuple[bytes, bytes]], body: codec.Body | None, connect: float
    ) -> Reply:
        transport = self._transport(address.url.scheme)
        small = body is None or len(body) < CHUNK_FROM_BYTES
        if small and hasattr(transport, "send_raw"):
            size = [] if body is None else [(b"content-length", b"%d" % len(body))]
            host = [address.host_header, *headers, *size]
            status, raw, stream = await transport.send_raw(method, address.target, host, body or b"", connect)
            return Reply(status, raw, stream, address.url.host)
        timeout = {"connect": connect, "pool": connect, "read": None, "write": None}
        headers_out, content = (headers, body) if small or body is None else _in_chunks(headers, body)
        request = _request(method, address.url, list(headers_out), content, {"timeout": timeout})
        response = await transport.handle_async_request(request)
        return Reply(response.status_code, [(k.lower(), v) for k, v in response.headers.raw], response.stream, address.url.host)

    async def aclose(self) -> None:
        """Close every connection."""
        transports = list(self._transports.values())
        self._transports.clear()
        for transport in transports:
            await transport.aclose()

    def _transport(self, scheme: str) -> httpx.AsyncBaseTransport:
        """Created at the first request: an SSL context takes tens of milliseconds, and plain http needs none."""
        transport = self._transports.get(scheme)
        if transport is None:
            secure = scheme == "https" or (self._proxy or "").startswith("https:")
            context = certificates(*named_certificates()) if secure else no_certificates()
            # Our own transport knows no proxy; aiohttp's does.
            flavor = "aiohttp" if self._flavor == "direct" and self._proxy else self._flavor
            make = {"direct": _direct, "aiohttp": _aiohttp, "httpx": _httpx}[flavor]
            transport = self._transports[scheme] = make(context, _proxy(self._proxy), self._uds)
        return transport


# -- shared clients ------------------------------------------------------------------------------------------------------

#: (loop, proxy, flavor) → the client that all engines there share. Touched by the io loop alone.
_shared: dict[tuple[Any, ...], Client] = {}


def borrow(url: str) -> Client:
    """The client for this address, shared by all engines behind the same proxy. The last `give_back` closes it."""
    key = (asyncio.get_running_loop(), proxy_for(url), os.environ.get("HOLYNB_HTTP"))
    client = _shared.get(key)
    if client is None:
        client = _shared[key] = Client(proxy=key[1])
    client.users += 1
    return client


async def give_back(client: Client) -> None:
    """Return a client. Call once for each `borrow`."""
    client.users -= 1
    if client.users <= 0:
        for key in [k for k, c in _shared.items() if c is client]:
            del _shared[key]
        await client.aclose()


# -- transports ----------------------------------------------------------------------------------------------------------


def _proxy(url: str | None) -> httpx.Proxy | None:
    import httpx

    if url is None:
        return None
    if not _is_address(url):  # and is not shown: of `http://me:pass#word@host` all before the # is taken for the address
        words = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not an address: it should look like http://proxy.example:3128, with %23 for # and %2F for /."
        raise Fault("connection", words, retry=False, stops=True)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Fault(
            "connection", f"The environment's proxy is {parts.scheme}://…; only http and https proxies work.", retry=False, stops=True
        )
    if parts.username is None:
        return httpx.Proxy(url)
    # The credentials are sent as a header: aiohttp warns about its own parameter for them.
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return httpx.Proxy(bare, headers={"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")})


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not any(c.isspace() for c in parts.netloc)
    except ValueError:  # of a port, or of brackets
        return False


def _direct(context: ssl.SSLContext, _: httpx.Proxy | None, uds: str | None) -> httpx.AsyncBaseTransport:
    from holynb.engines.direct import DirectTransport

    return DirectTransport(context, uds, KEEPALIVE_S)


def _aiohttp(context: ssl.SSLContext, proxy: httpx.Proxy | None, uds: str | None) -> httpx.AsyncBaseTransport:
    import aiohttp
    from httpx_aiohttp import AiohttpTransport

    def session() -> aiohttp.ClientSession:
        # limit=0: the scheduler bounds what is in flight; time in a queue here would count against the request's timeouts.
        connector: aiohttp.BaseConnector
        if uds:
            connector = aiohttp.UnixConnector(path=uds, limit=0, keepalive_timeout=KEEPALIVE_S)
        else:
            connector = aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    return AiohttpTransport(verify=context, proxy=proxy, client=session)


def _httpx(context: ssl.SSLContext, proxy: httpx.Proxy | None, uds: str | None) -> httpx.AsyncBaseTransport:
    import httpx

    logging.getLogger("httpcore.http11").addFilter(_is_foreign_record)  # the same function is added once
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_S)
    return httpx.AsyncHTTPTransport(verify=context, proxy=proxy, uds=uds, limits=limits, trust_env=False)


def _is_foreign_record(record: logging.LogRecord) -> bool:
    """Whether a log record is about a request that is not ours: httpcore logs reply headers, in which a server may echo the key."""
    return not (record.threadName or "").startswith("holynb")


class _Address(NamedTuple):
    """A URL, and what each request to it says again."""

    url: httpx.URL
    host_header: tuple[bytes, bytes]
    target: tuple[tuple[str, str, int], bytes]


def _address(url: str) -> _Address:
    import httpx

    from holynb.engines.direct import target_of

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in parts.netloc):
        raise httpx.UnsupportedProtocol("it should look like https://api.example.com/v1")
    address = httpx.URL(url)
    return _Address(address, (b"host", address.netloc), target_of(address))


def _request(method: str, url: httpx.URL, headers: Any, content: Any, extensions: Any) -> httpx.Request:
    import httpx

    return httpx.Request(method, url, headers=headers, content=content, extensions=extensions)


def _in_chunks(headers: Headers, body: codec.Body) -> tuple[Headers, AsyncIterator[bytes]]:
    """A large body in chunks, with a content-length: some servers take no chunked transfer encoding."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]

    return [*headers, (b"content-length", str(len(body)).encode())], chunks()


def _host(url: str) -> str:
    """The host alone, for messages: an address may hold a password."""
    try:
        return urlsplit(url).hostname or "the base URL"
    except ValueError:
        return "the base URL"
