"""Transport errors: exceptions of httpx, aiohttp, ssl and sockets → Faults with one clear line each. Opens no socket.

The libraries' classes are recognised by name along the chain of causes, so that none of them is imported here.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from holynb.errors import Fault
from holynb.words import address

__all__ = ["is_transport_error", "read_fault", "redirect_fault", "request_fault"]

_TIMEOUTS = ("ConnectionTimeoutError", "ConnectTimeout", "PoolTimeout", "ServerTimeoutError", "TimeoutError", "WriteTimeout", "ReadTimeout")
_PROXIES = ("ClientProxyConnectionError", "ClientHttpProxyError", "ProxyError")
_NOT_HTTP = ("RemoteProtocolError", "ClientResponseError", "BadStatusLine", "BadHttpMessage", "InvalidHeader", "LineTooLong")
_NO_CONNECTION = ("ConnectError", "ClientConnectorError", "ConnectionRefusedError", "FileNotFoundError")
_NO_ADDRESS = ("InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError", "UnsupportedProtocol", "UnicodeError")


def is_transport_error(exc: BaseException) -> bool:
    """Whether an exception is about a connection, and not a bug of ours."""
    return isinstance(exc, OSError | EOFError | TimeoutError) or any(
        type(e).__module__.split(".")[0] in ("httpx", "httpcore", "aiohttp") for e in _chain(exc)
    )


def request_fault(exc: Exception, host: str, connect: float, proxy: str | None = None) -> Fault:
    """The Fault for a request without a reply. Returns a Fault as it is; re-raises what is no transport error."""
    if isinstance(exc, Fault):
        return exc
    names, chain = _names(exc), list(_chain(exc))
    for classify, whose in ((_certificate, host), (_lookup, host if proxy is None else _at(proxy))):
        if (fault := classify(chain, whose)) is not None:  # behind a proxy only its own name is looked up here
            return fault
    if any(n in names for n in _PROXIES):
        return _proxy(chain, host, proxy)
    if any(n in names for n in _NO_ADDRESS) or isinstance(exc, UnicodeError):
        return Fault("connection", f"{host} is not an address that requests can go to: {_words(exc)}", retry=False, stops=True)
    if "ServerDisconnectedError" in names or "Server disconnected" in str(exc):
        return Fault("connection", f"{host} closed the connection without an answer.")
    if any(n in names for n in _NOT_HTTP):
        return Fault("server", f"{host} answered something that is not HTTP: {_words(exc)}")
    # After the disconnects: httpx-aiohttp reports many other errors as a connect timeout.
    if any(isinstance(e, TimeoutError) for e in chain) or any(type(e).__name__ in _TIMEOUTS for e in chain[-1:]):
        return Fault("timeout", f"no connection to {host} within {connect:g} s (--connect-timeout)", unreachable=True)
    if any(isinstance(e, ssl.SSLError) for e in chain):
        return Fault(
            "connection", f"the TLS handshake with {host} failed: {_words(exc)}. Check whether the address should begin with http or https."
        )
    if not is_transport_error(exc):
        raise exc
    unreachable = not names.isdisjoint(_NO_CONNECTION)
    return _refused(chain, host) or Fault("connection", f"the connection to {host} failed: {_words(exc)}", unreachable=unreachable)


def read_fault(exc: Exception, host: str) -> Fault:
    """The Fault for a reply that broke off. Returns a Fault as it is; re-raises what is no transport error."""
    if isinstance(exc, Fault):
        return exc
    if not is_transport_error(exc):
        raise exc
    if "DecodingError" in _names(exc):
        return Fault("truncated", f"{host} sent a compressed answer that does not unpack.")
    return Fault("truncated", f"{host} broke the connection in the middle of its answer: {_words(exc)}")


def redirect_fault(url: str, status: int, location: str) -> Fault:
    """The Fault for a redirect, which is never followed: the key would be sent along."""
    there = urlsplit(urljoin(url, location))
    to = address(there.geturl()) or "nowhere"
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
            # aiohttp's subclass of ssl's class lacks its attributes.
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
    words = f"the host {host} was not found. Check the address, and your network."
    return Fault("connection", words, unreachable=True) if failed else None


def _refused(chain: list[BaseException], host: str) -> Fault | None:
    """A port without a listener: the commonest error with a self-hosted server. A pool's socket has no port, and messages of its own."""
    port = next((match[1] for e in chain if isinstance(e, ConnectionRefusedError) and (match := re.search(r"', (\d+)", str(e)))), None)
    if port is None:
        return None
    words = f"the connection to {host}:{port} failed: nothing is listening there. Is the server running, and is --api-base its address?"
    return Fault("connection", words, unreachable=True)


def _proxy(chain: list[BaseException], host: str, proxy: str | None) -> Fault:
    at = _at(proxy)
    status = next((s for e in chain if isinstance(s := getattr(e, "status", None), int) and s), None)
    if status == 407 or any("407" in str(e) for e in chain):
        return Fault(
            "connection", f"the proxy {at} requires a user and a password: HTTPS_PROXY=http://USER:PASSWORD@{at}", retry=False, stops=True
        )
    reason = f"it answered {status}" if status else _words(chain[0])
    return Fault("connection", f"the proxy {at} does not lead to {host}: {reason}")


def _at(proxy: str | None) -> str:
    return urlsplit(proxy or "").netloc.rpartition("@")[2] or "of the environment"


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
    """The innermost non-empty reason, on one line."""
    for e in reversed(list(_chain(exc))):
        text = (e.strerror if isinstance(e, OSError) and e.strerror else str(e)).strip()
        if text:
            return " ".join(text.split())[:200]
    return type(exc).__name__
