"""The models that the form offers, each with its price, context, key and end in a line; and what is known of the one that is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holynb.config import keys, models, settings
from holynb.config.providers import CHAINS
from holynb.errors import UserError
from holynb.pricing import prices
from holynb.results import is_pool, is_simulated
from holynb.results.costs import FREE, SIMULATED
from holynb.types import Route
from holynb.ui.cell import candidates
from holynb.ui.output import clean, clip

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["Access", "access", "facts", "listing"]

#: So many lines, and characters of a part of one: a configuration can name thousands.
MAX_OFFERS, MAX_CHARS = 400, 160


class Access(NamedTuple):
    """Whether requests to a provider can be sent now, and the words for that."""

    ready: bool
    words: str


def access(provider: str) -> Access:
    """Of a provider, as `%infer models` says it. Looks into the environment, `.env` and the keyring; asks nobody."""
    try:
        endpoint = settings.endpoint(Route(provider, "*"))
    except UserError:
        return Access(False, "no address yet")
    words = keys.describe_source(endpoint)
    if words in ("not needed", "no key, not needed"):
        return Access(True, "no key needed")
    if words.startswith("key in "):
        return Access("held back" not in words, f"key set in {words.removeprefix('key in ')}")
    if CHAINS.get(endpoint.wire) == "AWS":
        return Access(not words.startswith(("no AWS", "AWS keys need")) and "no region" not in words, words)
    return Access(words.startswith("no key, ") and "held back" not in words, words.removeprefix("no key, "))


def listing(known: dict[str, Access]) -> list[list[str]]:
    """Route or alias, price, context, key, end: those that can be asked now first. Fills `known`, the access of each provider."""
    lines, later = list[list[str]](), list[list[str]]()
    for text in list(candidates.routes())[:MAX_OFFERS]:
        if clip(clean(text), MAX_CHARS) != text:  # what is picked has to be the name
            continue
        try:
            route = settings.route(text)
            line = [
                text,
                SIMULATED if is_simulated(route) else _price(route, "in, ", "out/M"),
                _context(route, "context"),
                *_of(route, known),
            ]
        except UserError:  # an alias that leads nowhere, a price that is none: it says so where it is used
            continue
        (lines if _access(route, known).ready else later).append([clip(clean(part), MAX_CHARS) for part in line])
    lines.sort(key=lambda line: not line[0].startswith("pool/"))
    return [*lines, *later]


def facts(text: str, known: dict[str, Access]) -> str:
    """What is known of the model of a route or an alias, in a sentence or two; empty for what is no route (yet)."""
    try:
        route = settings.route(text)
        price = _price(route, "in, ", "out per million tokens") or "price unknown"
    except UserError:
        return ""
    name = "" if text == str(route) else f"{'The default is ' if not text else 'An alias of '}{route}: "
    held = _access(route, known)
    cure = f": %infer key {route.provider} asks for it" if held.words.startswith("no ") and held.words.endswith("_KEY") else ""
    parts = [price, _context(route, "tokens of context"), f"{held.words}{cure}"]
    return " ".join(p for p in (f"{name}{'; '.join(p for p in parts if p)}.", models.notice(route)) if p)


def _of(route: Route, known: dict[str, Access]) -> tuple[str, str]:
    return _access(route, known).words.partition(" (")[0], models.lifecycle(route)


def _access(route: Route, known: dict[str, Access]) -> Access:
    if route.provider not in known:
        known[route.provider] = access(route.provider)
    return known[route.provider]


def _context(route: Route, unit: str) -> str:
    provider, model = settings.providers().get(route.provider), models.find(route.provider, route.model)
    count = (provider.models.get(route.model) if provider else None) or (model.context if model else None)
    return f"{count:,} {unit}" if count else ""


def _price(route: Route, between: str, behind: str) -> str:
    """Of a million tokens; empty where it is unknown."""
    price = prices.list_price(route)
    if price is None or price.input is None or price.output is None:
        return FREE if is_pool(route) else ""
    simulated = f" ({SIMULATED})" if is_simulated(route) else ""
    return f"${_dollars(price.input)} {between}${_dollars(price.output)} {behind}{simulated}"


def _dollars(value: Decimal) -> str:
    """Exact, with cents: `0.10`, `0.075`."""
    whole, _, cents = f"{value:f}".partition(".")
    return f"{whole}.{cents.rstrip('0').ljust(2, '0')}"
