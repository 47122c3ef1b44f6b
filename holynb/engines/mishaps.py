"""What can happen to a connection, in one clear line each: exceptions of httpx, aiohttp, ssl and sockets to Faults. Opens nothing.

The libraries' classes are told apart by name along the chain of causes, so that this needs none of them loaded.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from holynb.errors import Fault

__all__ = ["asking", "of_transport", "reading", "redirected"]

_TIMEOUTS = ("ConnectionTimeoutError", "ConnectTimeout", "PoolTimeout", "ServerTimeoutError", "TimeoutError", "WriteTimeout", "ReadTimeout")
_PROXIES = ("ClientProxyConnectionError", "ClientHttpProxyError", "ProxyError")
_NOT_HTTP = ("RemoteProtocolError", "ClientResponseError", "BadStatusLine", "BadHttpMessage", "InvalidHeader", "LineTooLong")
_NO_ADDRESS = ("InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError", "UnsupportedProtocol", "UnicodeError")


def of_transport(exc: BaseException) -> bool:
    """Whether an exception is about a connection, and not a fault of ours."""
    return isinstance(exc, OSError | EOFError | TimeoutError) or any(
        type(e).__module__.split(".")[0] in ("httpx", "httpcore", "aiohttp") for e in _chain(exc)
    )


def asking(exc: Exception, host: str, connect: float, proxy: str | None = None) -> Fault:
    """Why there is no reply. Returns a Fault as it is; raises what is no mishap of a connection."""
    if isinstance(exc, Fault):
        return exc
    names, chain = _names(exc), list(_chain(exc))
    for known in (_certificate, _lookup):
        if (found := known(chain, host)) is not None:
            return found
    if any(n in names for n in _PROXIES):
        return _proxy(chain, host, proxy)
    if any(n in names for n in _NO_ADDRESS) or isinstance(exc, UnicodeError):
        return Fault("connection", f"{host!r} is not an address that requests can go to: {_words(exc)}", retry=False, stops=True)
    if "ServerDisconnectedError" in names or "Server disconnected" in str(exc):
        return Fault("connection", f"{host} closed the connection without an answer.")
    if any(n in names for n in _NOT_HTTP):
        return Fault("server", f"{host} answered something that is not HTTP: {_words(exc)}")
    # After the disconnected: httpx-aiohttp calls many things a connect timeout that are none.
    if any(isinstance(e, TimeoutError) for e in chain) or any(type(e).__name__ in _TIMEOUTS for e in chain[-1:]):
        return Fault("timeout", f"no connection to {host} within {connect:g} s (--connect-timeout)")
    if any(isinstance(e, ssl.SSLError) for e in chain):
        return Fault(
            "connection", f"the TLS handshake with {host} failed: {_words(exc)}. Does the address begin with the right http or https?"
        )
    if not of_transport(exc):
        raise exc
    return _refused(chain, host) or Fault("connection", f"the connection to {host} failed: {_words(exc)}")


def reading(exc: Exception, host: str) -> Fault:
    """Why a reply stopped in the middle. Raises what is no mishap of a connection."""
    if isinstance(exc, Fault):
        return exc
    if not of_transport(exc):
        raise exc
    if "DecodingError" in _names(exc):
        return Fault("truncated", f"{host} sent a compressed answer that does not unpack.")
    return Fault("truncated", f"{host} broke the connection in the middle of its answer: {_words(exc)}")


def redirected(url: str, status: int, location: str) -> Fault:
    """A redirect is never followed: the key would go along."""
    there = urlsplit(urljoin(url, location))
    to = f"{there.scheme}://{there.netloc}{there.path}" if there.netloc else "nowhere"
    return Fault(
        "connection",
        f"{urlsplit(url).hostname} redirects ({status}) to {to}, and a key never follows a redirect. Set the base URL to the "
        "address you mean (--api-base).",
        status=status,
        retry=False,
        stops=True,
    )


def _certificate(chain: list[BaseException], host: str) -> Fault | None:
    for exc in chain:
        if isinstance(exc, ssl.SSLCertVerificationError):
            # aiohttp's class of it inherits from ssl's, but has not its attributes.
            why = getattr(exc, "verify_message", None) or _words(exc)
            return Fault(
                "connection",
                f"the certificate of {host} is not trusted: {why}. SSL_CERT_FILE can name the certificates to trust.",
                retry=False,
                stops=True,
            )
    return None


def _lookup(chain: list[BaseException], host: str) -> Fault | None:
    failed = any(isinstance(e, socket.gaierror) or type(e).__name__ == "ClientConnectorDNSError" for e in chain)
    return Fault("connection", f"the name {host} cannot be looked up. Is the address right, and the network up?") if failed else None


def _refused(chain: list[BaseException], host: str) -> Fault | None:
    """A port on which nothing listens: the commonest mishap with a server of one's own. A pool's socket has no port, and its own words."""
    port = next((found[1] for e in chain if isinstance(e, ConnectionRefusedError) and (found := re.search(r"', (\d+)", str(e)))), None)
    if port is None:
        return None
    return Fault(
        "connection", f"the connection to {host}:{port} failed: nothing listens there. Does the server run, and is --api-base its address?"
    )


def _proxy(chain: list[BaseException], host: str, proxy: str | None) -> Fault:
    at = urlsplit(proxy or "").netloc.rpartition("@")[2] or "of the environment"
    status = next((s for e in chain if isinstance(s := getattr(e, "status", None), int) and s), None)
    if status == 407 or any("407" in str(e) for e in chain):
        return Fault(
            "connection", f"the proxy {at} wants a user and a password: HTTPS_PROXY=http://USER:PASSWORD@{at}", retry=False, stops=True
        )
    said = f"it answered {status}" if status else _words(chain[0])
    return Fault("connection", f"the proxy {at} does not lead to {host}: {said}")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what caused it, outermost first."""
    seen: set[int] = set()
    here: BaseException | None = exc
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or here.__context__


def _names(exc: BaseException) -> set[str]:
    """The names of the classes of an exception, its causes and their ancestors."""
    return {cls.__name__ for e in _chain(exc) for cls in type(e).__mro__}


def _words(exc: BaseException) -> str:
    """The innermost reason that says something, on one line."""
    for e in reversed(list(_chain(exc))):
        text = (e.strerror if isinstance(e, OSError) and e.strerror else str(e)).strip()
        if text:
            return " ".join(text.split())[:200]
    return type(exc).__name__
