"""Servers of one's own that the settings name, such as a class's pool, said where this machine's pools are. Asks nobody."""

from __future__ import annotations

from holynb.config import settings
from holynb.config.providers import table
from holynb.engines import servers
from holynb.errors import UserError
from holynb.types import Route
from holynb.words import address

__all__ = ["lines", "named"]


def lines() -> list[str]:
    """Of each where it is, and how it is asked."""
    return list(_lines().values())


def named(word: str) -> str:
    """The line of the server that a word means as a pool's name, a provider's or a route; empty where it means none."""
    return next((line for route, line in _lines().items() if word in (route, *route.split("/", 1))), "")


def _lines() -> dict[str, str]:
    """Route → line."""
    current, known, by_route = settings.current(), settings.providers(), dict[str, str]()
    default = (current.default or "").partition("/")[0]
    for name in current.provider:
        try:
            at = settings.endpoint(Route(name, "*"))
        except UserError:  # it has no address yet
            continue
        if servers.is_self_hosted(at) or (name == default and name not in table()):
            route = f"{name}/{next(iter(known[name].models), 'MODEL')}"
            by_route[route] = f"{name} is a server that your settings name, at {address(at.base_url)}. Ask it: %%infer {route}"
    return by_route
