"""Servers of one's own that the settings name, such as a class's pool, said where this machine's pools are. Asks nobody."""

from __future__ import annotations

from holynb.config import settings
from holynb.engines import own_servers
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
    known, by_route = settings.providers(), dict[str, str]()
    for name, at in own_servers.named().items():
        route = f"{name}/{next(iter(known[name].models), 'MODEL')}"
        by_route[route] = f"{name} is a server that your settings name, at {address(at.base_url)}. Ask it: %%infer {route}"
    return by_route
