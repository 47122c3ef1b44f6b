"""What somebody meant who named a route or a model that nobody knows. Pure: gets the names, gives the end of a message's line.

A model that is not in our lists may yet exist, and often its number is all that is new: before a server has said no, only a name with the
same numbers counts as near.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from holynb.errors import closest
from holynb.types import Route

if TYPE_CHECKING:
    from holynb.config.providers import Provider

__all__ = ["bare", "model", "routes"]

#: How much alike a model's name is to the one that was meant.
NEAR = 0.75


def routes(known: Mapping[str, Provider]) -> list[str]:
    """Every route that is known by name."""
    return [f"{name}/{model}" for name, said in known.items() for model in said.models]


def bare(said: str, known: Mapping[str, Provider], aliases: Iterable[str] = ()) -> str:
    """For a word without a `/`: the routes whose model it is, else the nearest alias, provider or model; `""` where there is none."""
    every = routes(known)
    same = [r for r in every if r.partition("/")[2].rpartition("/")[2].lower() == said.lower()]
    if same:
        return f" Did you mean {' or '.join(same[:3])}?"
    if near := closest(said, [*aliases, *known]):
        return near
    models = {r.partition("/")[2]: r for r in reversed(every)}
    found = get_close_matches(said, models, n=1, cutoff=NEAR)
    return f" Did you mean {models[found[0]]}?" if found else ""


def model(route: Route, known: Mapping[str, Provider], *, refused: bool = False) -> str:
    """For a model that its provider is not known to have: the known one that is near; `""` where there is none. `refused`: the server said no."""
    provider = known.get(route.provider)
    if provider is None or route.model in provider.models:
        return ""
    likely = [m for m in provider.models if refused or _numbers(m) == _numbers(route.model)]
    found = get_close_matches(route.model, likely, n=1, cutoff=NEAR)
    return f" Did you mean {route.provider}/{found[0]}?" if found else ""


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)
