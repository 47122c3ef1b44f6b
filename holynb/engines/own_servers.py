"""Servers of one's own that the settings name, such as a class's pool: which they are, and what is wrong with one that does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from holynb.config import keys, settings, trust
from holynb.config.providers import table
from holynb.engines import servers
from holynb.engines.servers import ServedModel, TokenUsage
from holynb.errors import Fault, UserError
from holynb.types import Endpoint, Route
from holynb.words import address

__all__ = ["ask", "is_of_this_machine", "named", "trouble", "usage"]


def named() -> dict[str, Endpoint]:
    """Provider → its endpoint: the self-hosted ones, and the default's where holynb does not ship it. Raises BadSetting."""
    current, endpoints = settings.current(), dict[str, Endpoint]()
    default = (current.default or "").partition("/")[0]
    for name in current.provider:
        try:
            at = settings.endpoint(Route(name, "*"))
        except UserError:  # it has no address yet
            continue
        if servers.is_self_hosted(at) or (name == default and name not in table()):
            endpoints[name] = at
    return endpoints


def is_of_this_machine(endpoint: Endpoint) -> bool:
    """Whether it costs nothing to ask, and nothing leaves the machine."""
    return trust.is_loopback(endpoint.base_url)


async def ask(endpoint: Endpoint) -> Sequence[ServedModel]:
    """The server's models. Raises Fault, and UserError where its key is missing or cannot be one."""
    return await servers.models(endpoint, keys.resolve(endpoint))


async def usage(endpoint: Endpoint) -> TokenUsage | None:
    """What the user's token has used of the server's; None where it counts none. Raises as `ask`."""
    return await servers.usage(endpoint, keys.resolve(endpoint))


def trouble(endpoint: Endpoint, fault: Fault) -> tuple[str, str]:
    """What is wrong with a server that answered so, and what to do about it."""
    at, name, key = address(endpoint.base_url), endpoint.route.provider, endpoint.key_name
    parts = urlsplit(at)
    root, setting = f"{parts.netloc}/v1", f"in [provider.{name}] of config.toml"
    if fault.kind == "auth" and key:
        return f"{at} is there, but refuses the key in {key}", f"set {key} to the key that whoever runs it gave you"
    if fault.kind == "auth":
        return (
            f"{at} is there, but needs a key, and the settings name none",
            f'key = "{name.upper()}_TOKEN" {setting}, and the key in that variable',
        )
    if fault.status in (404, 405) and parts.path != "/v1":
        return f"{at} is there, but there are no models below this address", f'base = "{parts.scheme}://{root}" {setting}'
    if parts.scheme == "https" and "TLS handshake" in fault.message:
        return f"{at} is there, but does not speak https", f'base = "http://{parts.netloc}{parts.path}" {setting}'
    if fault.unreachable:
        return f"nothing answers at {at}", f"start that server, or ask whoever runs it; its address is base {setting}"
    return f"{at} answered: {fault.message}", "ask whoever runs it, or read its log"
