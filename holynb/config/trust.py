"""Which hosts a project's file may send a key to: what the user trusted, per provider, host and file. Holds no key, sends nothing.

A file of the project (`[tool.holynb]` of pyproject.toml, a `.env`) comes with a checkout, and whoever wrote it may be anybody. What it says
counts; where it decides the place that a key of the user's own goes to, the user is asked once. The answer is kept in HOLYNB_HOME.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tempfile
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from holynb.config.providers import CHAINS, table
from holynb.errors import BadOption, BadSetting
from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.lock import Lock

if TYPE_CHECKING:
    from holynb.types import Endpoint

__all__ = ["ONLY_SAID", "Grant", "command", "grants", "host", "is_granted", "is_loopback", "keep", "notices", "plain_http", "refusal"]

#: Providers without an address of their own, or with one on this machine: a project has to name it, so that is said and not asked.
ONLY_SAID = ("azure", "vllm", "ray")

_HEAD = "# Addresses of projects' files that you let your keys go to. %infer trust lists them; %infer trust HOST --remove takes one back.\n"

#: RFC 1918, link-local, and their like in IPv6.
_PRIVATE = tuple(
    ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """What was trusted: that `file` sends the key of `provider` to `host` (host:port)."""

    provider: str
    host: str
    file: str


# -- addresses -----------------------------------------------------------------------------------------------------------
def host(address: str) -> str:
    """`host:port` of a base URL, of `host:port`, or of a host alone, whose port is that of https."""
    parts = urlsplit(address if "://" in address else f"https://{address}")
    name = parts.hostname or ""
    port = parts.port or (80 if parts.scheme == "http" else 443)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def plain_http(address: str) -> bool:
    """Whether requests cross a network unencrypted: anybody on the way can read the key."""
    return urlsplit(address).scheme == "http" and not is_loopback(address)


def is_loopback(address: str) -> bool:
    """Whether the address is this machine's."""
    name = urlsplit(address).hostname or ""
    ip = _ip(name)
    return name == "localhost" or name.endswith(".localhost") or (ip is not None and (ip.is_loopback or ip.is_unspecified))


def _is_private(address: str) -> bool:
    """Whether the address is of a private network: RFC 1918, link-local, `.local`."""
    name = urlsplit(address).hostname or ""
    ip = _ip(name)
    return name.endswith(".local") or (ip is not None and any(ip in network for network in _PRIVATE if network.version == ip.version))


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:  # a name, or a spelling that only some resolvers know: nothing is assumed of it
        return None


def _is_hosted(provider: str) -> bool:
    """Whether holynb itself knows this provider as one that is reached over the internet, with a key."""
    entry = table().get(provider)
    return entry is not None and entry.wire not in ("pool", "sim") and (entry.wire in CHAINS or not entry.key_optional)


# -- what is refused, and what is said -----------------------------------------------------------------------------------
def refusal(endpoint: Endpoint, key_file: str | None) -> str | None:
    """Why this endpoint's key must not go to its address; None where it may. `key_file`: the project's file that the key stands in."""
    at, provider = host(endpoint.base_url), endpoint.route.provider
    if endpoint.untrusted_file not in (None, key_file):
        what = "the address" if endpoint.address_file == endpoint.untrusted_file else "the key's variable"
        return (
            f"{endpoint.untrusted_file}, a project file, sets {what} of {provider}, but your key is not from that file; nothing was "
            f"sent to {at.removesuffix(':443')}. To let your key go there: {command(endpoint)} (or [trust] hosts in your config.toml)."
        )
    if endpoint.address_file and _is_hosted(provider) and plain_http(endpoint.base_url) and not _is_private(endpoint.base_url):
        return (
            f"{endpoint.address_file}, a project file, sends the key of {provider} to {at} over plain http, where anyone on the network "
            "can read it; nothing was sent. Use https, or give the address yourself: --api-base URL."
        )
    return None


def command(endpoint: Endpoint) -> str:
    """The command that trusts this endpoint's address."""
    return f"%infer trust {host(endpoint.base_url).removesuffix(':443')}"


def notices(endpoint: Endpoint, key_file: str | None, *, keyed: bool) -> list[str]:
    """What to say of where this endpoint's requests go. `keyed`: a key goes along; `key_file`: the project's file that it stands in."""
    at, provider, lines = host(endpoint.base_url).removesuffix(":443"), endpoint.route.provider, list[str]()
    only_noted = provider in ONLY_SAID or not keyed
    if endpoint.address_file not in (None, key_file) and only_noted:
        lines.append(f"{provider} is reached at {at}, as {endpoint.address_file}, a project file, says.")
    if keyed and plain_http(endpoint.base_url):
        lines.append(f"The key of {provider} goes to {at} over plain http: anyone on the network can read it.")
    return lines


# -- what was trusted ----------------------------------------------------------------------------------------------------
def is_granted(home: Path, grant: Grant, hosts: Collection[str]) -> bool:
    """Whether the user trusts this, by `%infer trust` or by `hosts` of their own config.toml."""
    return grant.host in {host(h) for h in hosts} or grant in grants(home)


def grants(home: Path) -> Sequence[Grant]:
    """Everything trusted by `%infer trust`. Raises BadSetting where its file cannot be read."""
    path = home / "trust.toml"
    try:
        info = path.stat()
    except FileNotFoundError:
        return ()
    return _read(path, info.st_mtime_ns, info.st_ino)


def keep(home: Path, *, add: Collection[Grant] = (), remove: Collection[Grant] = ()) -> None:
    """Change what is trusted: read, changed and written as a whole, so that two kernels lose nothing. Raises BadSetting, BadOption."""
    path = home / "trust.toml"
    private_folder(home)
    with Lock(home / ".trust.lock"):
        now = {*grants(home), *add}.difference(remove)
        lines = [
            f"[[trusted]]\n{''.join(f'{k} = {_quoted(v)}{chr(10)}' for k, v in zip(_FIELDS, astuple(g), strict=True))}" for g in sorted(now)
        ]
        try:
            data = "\n".join([_HEAD, *lines]).encode()
        except UnicodeEncodeError:
            raise BadOption("A file whose name is not text cannot be trusted by name. Rename it or its folder.") from None
        with tempfile.NamedTemporaryFile(dir=home, prefix=".trust-", delete=False) as file:  # 0600
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)


_FIELDS = ("provider", "host", "file")


def _quoted(text: str) -> str:
    """A TOML string. JSON's is one, but for the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, inode: int) -> Sequence[Grant]:  # noqa: ARG001 - part of the cache's key
    problem = "it is not the TOML that %infer trust writes"
    try:
        entries = tomllib.loads(path.read_text("utf-8")).get("trusted", [])
        return tuple(Grant(*(str(entry[name]) for name in _FIELDS)) for entry in entries)
    except OSError as exc:
        problem = str(exc.strerror)
    except (ValueError, LookupError, TypeError):
        pass
    raise BadSetting(f"{path} cannot be read: {problem}. Delete it, and %infer trust HOST again.")
