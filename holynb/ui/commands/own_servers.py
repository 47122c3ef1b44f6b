"""Servers of one's own that the settings name, such as a class's pool, said where one's pools are, with what a token has used."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from holynb import loop
from holynb.config import settings
from holynb.engines import own_servers
from holynb.errors import Fault, UserError
from holynb.units import seconds
from holynb.words import address

if TYPE_CHECKING:
    from holynb.engines.servers import TokenUsage
    from holynb.types import Endpoint

__all__ = ["asked_lines", "lines", "named"]

#: How long a server may take to say what was used.
ASK_S = 2.0


def lines() -> list[str]:
    """Of each where it is, and how it is asked. Asks nobody."""
    return list(_lines().values())


def asked_lines(word: str | None = None) -> list[str]:
    """As `lines`, and below each what its server says of the user's token. `word`: of those alone that it means."""
    endpoints = own_servers.named()
    wanted = {route: line for route, line in _lines().items() if word is None or _means(word, route)}
    answers = {route: loop.submit(own_servers.usage(endpoints[route.partition("/")[0]])) for route in wanted}
    parts = []
    for route, line in wanted.items():
        parts.append(line)
        parts += [f"  {words}"] if (words := _said_of(endpoints[route.partition("/")[0]], answers[route])) else []
    return parts


def named(word: str) -> str:
    """The line of the server that a word means as a pool's name, a provider's or a route; empty where it means none."""
    return next((line for route, line in _lines().items() if _means(word, route)), "")


def _means(word: str, route: str) -> bool:
    return word in (route, *route.split("/", 1))


def _lines() -> dict[str, str]:
    """Route → line."""
    known, by_route = settings.providers(), dict[str, str]()
    for name, at in own_servers.named().items():
        route = f"{name}/{next(iter(known[name].models), 'MODEL')}"
        by_route[route] = f"{name} is a server that your settings name, at {address(at.base_url)}. Ask it: %%infer {route}"
    return by_route


def _said_of(endpoint: Endpoint, answer: Future[TokenUsage | None]) -> str:
    """What of the token was used, or why the server does not tell; empty where it counts none."""
    try:
        used = answer.result(ASK_S)
    except TimeoutError:
        answer.cancel()
        return f"no answer within {ASK_S:g} s"
    except Fault as fault:
        return ": ".join(own_servers.trouble(endpoint, fault))
    except UserError as exc:
        return str(exc)
    return "" if used is None else _usage_words(used)


def _usage_words(used: TokenUsage) -> str:
    """`kim: 1,234 of 50,000 tokens used today, 48,766 left; all are back in 5 h 3 min`."""
    ends = f". It expires on {used.expires[:10]}" if used.expires else ""
    if used.per_day is None:
        return f"{used.name}: {used.today:,} tokens used today, without a limit{ends}"
    left, back = max(0, used.per_day - used.today), seconds(used.resets_s)
    return f"{used.name}: {used.today:,} of {used.per_day:,} tokens used today, {left:,} left; all are back in {back}{ends}"
