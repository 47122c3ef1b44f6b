"""Suggestions for an unknown route or model, as the end of a message's line. Pure: works on the names that it gets.

A model that is not in our lists may yet exist, and often its number is all that is new: before a server has refused it, only a name with
the same numbers is suggested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from holynb.config import models
from holynb.config.providers import PROVIDER_NAME, table
from holynb.errors import closest
from holynb.types import Route
from holynb.words import is_plain_name

if TYPE_CHECKING:
    from holynb.config.providers import Provider

__all__ = ["bare", "entry", "model", "no_provider", "routes"]

#: Least similarity of two models' names, as `difflib` measures it.
MIN_SIMILARITY = 0.75
#: As many models of one's own server are named where none is near.
MOST_LISTED = 3


def routes(providers: Mapping[str, Provider]) -> list[str]:
    """Every listed model as a route."""
    return [f"{name}/{model}" for name, provider in providers.items() for model in provider.models]


def entry(name: str) -> str:
    """The line that makes a provider of one's own, to be copied: of a word that cannot be one's name, or may be a key, it says NAME."""
    key = "NAME" if not (PROVIDER_NAME.fullmatch(name) and is_plain_name(name)) else f'"{name}"' if "." in name else name
    return f'[provider.{key}] base = "https://…/v1"'


def no_provider(name: str, providers: Iterable[str]) -> str:
    """What to say of a provider that there is not. What reads as no name is not repeated: a key may have been put in its place."""
    if not is_plain_name(name):
        return "There is no such provider; it is not repeated here, since a key may stand in its place."
    return f"There is no provider {name!r}.{closest(name, providers)}"


def bare(word: str, providers: Mapping[str, Provider], aliases: Iterable[str] = ()) -> str:
    """For a word without a `/`: the routes whose model it is, else the nearest alias, provider or model; `""` where there is none."""
    listed = routes(providers)
    same = [r for r in listed if r.partition("/")[2].rpartition("/")[2].lower() == word.lower()]
    if same:
        return f" Did you mean {' or '.join(same[:3])}?"
    if hint := closest(word, [*aliases, *providers]):
        return hint
    models = {r.partition("/")[2]: r for r in reversed(listed)}
    matches = get_close_matches(word, models, n=1, cutoff=MIN_SIMILARITY)
    return f" Did you mean {models[matches[0]]}?" if matches else ""


def model(route: Route, providers: Mapping[str, Provider], *, refused: bool = False) -> str:
    """For a model that its provider does not list: the nearest that it lists, or `""`. `refused`: the server does not have it.

    Of a model that ends, the server's refusal is most likely that end: then when, and what follows it.
    """
    if refused and (end := models.notice(route)):
        return f" {end}"
    provider = providers.get(route.provider)
    if provider is None or route.model in provider.models:
        return ""
    likely = [m for m in provider.models if refused or _numbers(m) == _numbers(route.model)]
    matches = get_close_matches(route.model, likely, n=1, cutoff=MIN_SIMILARITY)
    if not matches and refused and 0 < len(provider.models) <= MOST_LISTED:
        return (
            f" Your settings know {' and '.join(f'{route.provider}/{m}' for m in provider.models)}." if provider.name not in table() else ""
        )
    return f" Did you mean {route.provider}/{matches[0]}?" if matches else ""


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)
