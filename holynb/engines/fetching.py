"""An attachment's address → its bytes, within limits of size, time and redirects, and never from inside this network by accident.

A frame of strangers' addresses must not make this machine ask what only it can reach. A name is resolved here, each of its addresses is
checked, and the connection goes to the checked address: a second answer of the name server changes nothing. Redirects are followed one by
one, each checked alike. No key and no cookie goes along. Raises ValueError, with words that follow the address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from holynb.config import settings
from holynb.engines.environment import certificates, named_certificates
from holynb.no_proxy import proxy_for

if TYPE_CHECKING:
    import aiohttp

__all__ = ["fetch"]

#: Seconds: to a connection, between two pieces, in all. Redirects and attempts at most.
CONNECT_S, SILENCE_S, WHOLE_S = 10.0, 20.0, 120.0
MAX_REDIRECTS, ATTEMPTS, PAUSE_S = 5, 3, 0.5
_PIECE = 2**18
#: IPv4 addresses as those see them that have IPv6 alone.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Statuses that may be others a moment later.
_PASSING = frozenset({429, 500, 502, 503, 504})


class _PassingError(ValueError):
    """What another attempt may cure."""


async def fetch(url: str, max_bytes: int) -> bytes:
    """The bytes at an address. Raises ValueError."""
    for attempt in range(ATTEMPTS):
        try:
            async with asyncio.timeout(WHOLE_S):
                return await _fetched(url, max_bytes)
        except TimeoutError:
            raise ValueError(f"was not fetched within {WHOLE_S:g} s") from None
        except _PassingError:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(PAUSE_S * 4**attempt)
    raise AssertionError("unreachable")


async def _fetched(url: str, max_bytes: int) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        answer = await _exchange(url, max_bytes)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise ValueError(f"leads on through more than {MAX_REDIRECTS} redirects")


async def _exchange(url: str, max_bytes: int) -> bytes | str:
    """The content, or where a redirect leads."""
    import aiohttp

    host, port = _place(url)
    addresses = await _checked(host, port)
    proxy = proxy_for(url)
    connector = aiohttp.TCPConnector(
        resolver=None if proxy else _resolver(host, addresses), ssl=certificates(*named_certificates()), limit=1, force_close=True
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {"user-agent": "holynb", "accept": "image/*, application/pdf, audio/*, */*;q=0.5", "accept-encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=headers, proxy=proxy, allow_redirects=False) as reply,
        ):
            if reply.status in (301, 302, 303, 307, 308) and (there := reply.headers.get("location")):
                return there
            if reply.status != 200:
                words = f"was not fetched: the server answered {reply.status}"
                raise _PassingError(words) if reply.status in _PASSING else ValueError(words)
            return await _content(reply, max_bytes)
    except (aiohttp.ClientError, OSError) as exc:
        raise _PassingError(f"was not fetched: {_reason(exc)}") from None
    except (aiohttp.InvalidURL, UnicodeError):
        raise ValueError("is no address that can be asked") from None


async def _content(reply: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    announced = reply.content_length
    if announced is not None and announced > max_bytes:
        raise ValueError(f"has {announced / 1e6:,.0f} MB; an attachment has {max_bytes // 10**6} MB at most")
    pieces, size = [], 0
    async for piece in reply.content.iter_chunked(_PIECE):
        size += len(piece)
        if size > max_bytes:
            raise ValueError(f"has more than {max_bytes // 10**6} MB, which an attachment has at most")
        pieces.append(piece)
    return b"".join(pieces)


# -- where it may go -----------------------------------------------------------------------------------------------------
def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise ValueError("is no address that can be asked") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"leads to {parts.scheme or 'nothing'}://, and only http and https are fetched")
    if parts.username or parts.password:
        raise ValueError("has a name or password in it, which is not sent: give an address without")
    return host, port or (443 if parts.scheme == "https" else 80)


async def _checked(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, each of which may be asked. Raises ValueError."""
    try:
        answer = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        if proxy_for(f"https://{host}:{port}/") is not None:
            return ()  # the proxy knows names that this machine does not
        raise _PassingError(f"was not fetched: there is no host {host}") from exc
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in answer))
    allowed = settings.current().attach.get("hosts", ())
    name = f"[{host}]" if ":" in host else host
    if not {name, f"{name}:{port}"} & {word.lower() for word in allowed}:
        for text in addresses:
            if not _is_public(ip_address(text.partition("%")[0])):
                raise ValueError(
                    f"is at {text}, inside this machine or network, and was not asked. "
                    f'To allow it: [attach] hosts = ["{name}"] in your config.toml'
                )
    return addresses


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the internet: an allow-list, so that whatever is reserved later is refused as well."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast


def _resolver(host: str, addresses: Sequence[str]) -> Any:
    """A resolver that knows one host, by the addresses that were checked."""
    from aiohttp.abc import AbstractResolver

    class Checked(AbstractResolver):
        async def resolve(self, name: str, port: int = 0, family: Any = 0) -> list[Any]:  # noqa: ARG002 - as aiohttp asks
            if name != host:
                raise OSError(f"{name} is not {host}, which was checked")
            families = {text: socket.AF_INET6 if ":" in text else socket.AF_INET for text in addresses}
            shared = {"hostname": name, "port": port, "proto": 0, "flags": socket.AI_NUMERICHOST}
            return [{**shared, "host": text, "family": kind} for text, kind in families.items()]

        async def close(self) -> None:
            """Nothing to close."""

    return Checked()


def _reason(exc: BaseException) -> str:
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
