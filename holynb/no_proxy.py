"""NO_PROXY: which addresses are asked directly. Read as Go's httpproxy and curl read it; the standard library knows no ranges of addresses.

An entry is a host with all below it (`example.com`, `.example.com`), what is below it alone (`*.example.com`), an address, a range
(`10.0.0.0/8`, `fd00::/8`), each of the first ones with a port where one is meant, or `*` for all. Standard library only.
"""

from __future__ import annotations

import os
import urllib.request
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

__all__ = ["bypasses", "proxy_for", "spell_out"]

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Address = IPv4Address | IPv6Address


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (or the system's settings) name for this address."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname:
        return None
    if urllib.request.getproxies_environment():
        direct = bypasses(proxies.get("no", ""), parts.hostname, parts.port or PORTS.get(parts.scheme, 0))
    else:  # what macOS and Windows are set to, in words of their own
        direct = bool(urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]))
    return None if direct else proxy if "://" in proxy else f"http://{proxy}"


def spell_out(url: str) -> None:
    """Add an address to this process's NO_PROXY by its own name where it is in by a range: for libraries that know names alone."""
    host = urlsplit(url).hostname
    if host and urllib.request.getproxies_environment() and proxy_for(url) is None:
        for name in ("no_proxy", "NO_PROXY"):
            if entries := os.environ.get(name):
                os.environ[name] = f"{entries},{host}"


def bypasses(entries: str, host: str, port: int) -> bool:
    """Whether NO_PROXY names this host and port. `host`: without brackets."""
    host = _name(host)
    address = _address(host)
    return any(_names(entry, host, port, address) for entry in entries.replace(",", " ").split())


def _names(entry: str, host: str, port: int, address: Address | None) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2].rstrip("/")  # an address in place of a name: http://example.com/
    if "/" in entry:
        return address is not None and _in_range(address, entry)
    name, only = _divided(entry)
    if only is not None and only != port:
        return False
    if (named := _address(_name(name))) is not None:
        return named == address
    below = name.startswith("*.")
    name = _name(name.removeprefix("*").lstrip("."))
    return address is None and bool(name) and ((host == name and not below) or host.endswith(f".{name}"))


def _in_range(address: Address, entry: str) -> bool:
    try:
        return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False


def _divided(entry: str) -> tuple[str, int | None]:
    """An entry's host and port: `host:80`, `[::1]:80`, `[::1]`, `::1`."""
    if entry.count(":") > 1 and not entry.startswith("["):
        return entry, None
    name, colon, port = entry.rpartition(":") if not entry.endswith("]") else (entry, "", "")
    if not colon or not port.isdecimal():
        return (entry if not colon else name), None if not colon or not port else -1
    return name, int(port)


def _name(host: str) -> str:
    """A host as it is compared: in small letters, without brackets, zone and last dot, in ASCII."""
    host = host.strip("[]").partition("%")[0].rstrip(".").lower()
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host


def _address(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
