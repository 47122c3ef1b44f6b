"""`%infer models`: the routes known by name, what they cost, and whether their key is there. Asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holynb import keys, prices, settings
from holynb.errors import BadRoute, closest
from holynb.types import Route
from holynb.ui.text import grid

if TYPE_CHECKING:
    from decimal import Decimal

    from holynb.types import Endpoint

__all__ = ["endpoint", "text"]


def endpoint(provider: str) -> Endpoint:
    """Where a provider is asked, whatever the model. Raises BadRoute."""
    known = settings.providers()
    if provider not in known:
        raise BadRoute(f"There is no provider {provider!r}.{closest(provider, known)} Known: {', '.join(sorted(known))}.")
    return settings.endpoint(Route(provider, "*"))


def text(provider: str | None = None) -> str:
    """A table of routes and a table of providers; of one provider where it is named."""
    known = settings.providers()
    if provider is not None:
        known = {provider: known[endpoint(provider).route.provider]}
    routes = []
    for name, said in known.items():
        for model, length in said.models.items():
            price = prices.list_price(Route(name, model))
            figures = [_dollars(price.input), _dollars(price.output)] if price else ["?", "?"]
            routes.append([f"{name}/{model}", f"{length:,}" if length else "?", *figures])
    where = [[name, said.base or "on this machine", _key(name)] for name, said in known.items()]
    parts = [
        grid(["route", "context", "$/M in", "$/M out"], routes) if routes else "",
        grid(["provider", "address", "key"], where, {1: 60, 2: 60}),
        f"Aliases: {', '.join(f'{a} = {r}' for a, r in settings.current().alias.items()) or 'none'}. Without a route: {settings.route()}.",
        "Any other model of a provider is PROVIDER/MODEL; %infer key PROVIDER asks for a key.",
    ]
    return "\n\n".join(p for p in parts if p)


def _key(provider: str) -> str:
    try:
        return keys.source(endpoint(provider))
    except BadRoute as exc:  # a provider without an address yet: the reason belongs into its line, not in place of the list
        return str(exc)


def _dollars(value: Decimal | None) -> str:
    return "?" if value is None else f"{value.normalize():f}"
