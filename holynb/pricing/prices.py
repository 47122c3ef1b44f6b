"""Prices of routes, and dollars of usage. Every figure has a date and a source; an unknown price is None, never 0.

A price comes from the user's settings (`[price."ROUTE"]`), else prices.toml or an update that the user took (what was read later), else
genai-prices where it is installed. Knows no request and no run; that cached rows cost nothing is the caller's to know.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from holynb import attachments
from holynb.config import models, settings, update_files
from holynb.pricing.price_entries import MILLION, TIER_NAMES, Price, Rates, own_price, read_entry
from holynb.types import Message, Route, Usage

__all__ = [
    "FILE_NAME",
    "MILLION",
    "OVERHEAD_TOKENS",
    "Price",
    "Rates",
    "dated",
    "how_to_set",
    "list_price",
    "no_tier_price",
    "price",
    "table",
    "updated",
    "worst_case",
    "worst_usage",
]

#: Where an update is kept, in HOLYNB_HOME.
FILE_NAME = "prices.json"

#: Tokens that a server may add to a prompt, on top of one per byte: part of the worst case that `--budget` reserves.
OVERHEAD_TOKENS = 64


# -- lookups -----------------------------------------------------------------------------------------------------------
def list_price(route: Route, model: str | None = None, at: float | None = None) -> Price | None:
    """The price of `route`: the user's own, else of the model as the server named it, else of the requested model. None: unknown.

    Raises BadSetting where the user's own price is invalid.
    """
    own_prices = settings.current().price
    own = None
    if own_prices and (name := _own_name(route, own_prices)) is not None:
        own = own_price(route, name, own_prices[name])
        if not settings.is_of_project(f"price.{name}"):
            return own
    today, stamp = dt.datetime.fromtimestamp(time.time() if at is None else at, dt.UTC).date(), update_files.stamp(FILE_NAME)
    known = (
        _listed_price(route.provider, model, today, stamp)
        or _listed_price(route.provider, models.serving(route.provider, route.model, today), today, stamp)
        or _fallback(route.provider, model or route.model)
    )
    # --budget rests on prices: a file of the project can set one that is not known, and none that is lower than the one that is.
    return known if own is None or (known is not None and _is_cheaper(own, known)) else own


def price(route: Route, model: str | None, usage: Usage, at: float | None = None, tier: str | None = None) -> Decimal | None:
    """Dollars of one answer; `model` as the server named it, `at`: time of the request (None: now). None where unknown.

    `tier`: the service tier that the reply names.
    """
    entry = list_price(route, model, at)
    return None if entry is None else entry.cost(usage, at, tier)


def worst_usage(messages: Sequence[Message], max_tokens: int, texts: int = 1, model: str = "") -> Usage:
    """Upper bound of any tokenizer's count: a token per byte of the messages, OVERHEAD_TOKENS, and the longest answer; of attachments, the
    most that the rule of the model's vendor gives. `texts`: how many the server reads, each of which it adds to: several where it embeds.
    """
    size = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    attached = sum(attachments.tokens(model, a)[1] for m in messages for a in m.attachments)
    return Usage(size + attached + OVERHEAD_TOKENS * texts, max_tokens)


def worst_case(
    route: Route,
    messages: Sequence[Message],
    max_tokens: int,
    extra: Mapping[str, Any] | None = None,
    tiers: Sequence[str] = (),
    *,
    texts: int = 1,
) -> Decimal | None:
    """Upper bound of one attempt's dollars: `worst_usage` at the highest rates. None where there is no price. `extra`: its own fields.

    `tiers`: the service tiers that it may be billed at; none: what `extra` asks for, else the standard one.
    """
    entry, extra = list_price(route), extra or {}
    usage = worst_usage(messages, max_tokens, texts, route.model)
    return (
        None
        if entry is None
        else entry.max_rates(usage.tokens_in or 0, for_an_hour=_for_an_hour(extra), service=_named_tiers(extra) or tiers).cost(usage)
    )


def _named_tiers(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """The tiers that a request may be billed at which names one with `-p`: that one, or the standard one."""
    word = extra.get("service_tier", extra.get("serviceTier"))
    tier = {"fast": "priority"}.get(word, word) if isinstance(word, str) else None
    return (tier, "standard") if tier in TIER_NAMES else ()


def _for_an_hour(extra: Mapping[str, Any]) -> bool:
    """Whether these fields of a request ask Anthropic to cache it for an hour."""
    control = extra.get("cache_control")
    return isinstance(control, Mapping) and control.get("ttl") == "1h"


def _is_cheaper(one: Price, other: Price) -> bool:
    """Whether some of the highest rates of `one` are below those of `other`, or missing."""
    a, b = one.max_rates(sys.maxsize), other.max_rates(sys.maxsize)
    standard = any(x is not None and (y is None or y < x) for x, y in ((b.input, a.input), (b.output, a.output)))
    return standard or any(tier in other.service and _is_cheaper(own, other.service[tier]) for tier, own in one.service.items())


# -- sources -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def table() -> tuple[Price, ...]:
    """The prices that ship with holynb."""
    document = tomllib.loads((files("holynb.pricing") / "prices.toml").read_text("utf-8"), parse_float=Decimal)
    return tuple(read_entry(entry, f"prices.toml, entry {i}") for i, entry in enumerate(document["price"], 1))


@lru_cache(maxsize=4)
def updated(stamp: update_files.Stamp | None) -> tuple[Price, ...]:
    """The prices of the update that was taken. Raises BadSetting."""
    return (
        ()
        if stamp is None
        else tuple(read_entry(dated(e), f"{FILE_NAME}, entry {i}") for i, e in enumerate(update_files.entries(stamp), 1))
    )


def dated(entry: Any) -> dict[str, Any]:
    """An entry of JSON with its dates as TOML has them; what is no date stays as it is, for the check to name."""
    out = dict(entry) if isinstance(entry, Mapping) else {}
    for name in ("since", "date"):
        with suppress(TypeError, ValueError):
            out[name] = dt.date.fromisoformat(out.get(name))  # type: ignore[arg-type]  # a TypeError where it is absent
    return out


@lru_cache(maxsize=4096)
def _listed_price(provider: str, model: str | None, today: dt.date, stamp: update_files.Stamp | None) -> Price | None:
    """What ships or what an update brought, whichever was read later."""
    # Azure bills like OpenAI; the route's model is a deployment's name, so the price is found by the model that the server names.
    listed_under = {"azure": "openai", "vertex": "gemini"}.get(provider, provider)
    ours, theirs = (_in_force(entries, listed_under, model, today) for entries in (table(), updated(stamp)))
    later = ours or theirs if ours is None or theirs is None else max(ours, theirs, key=lambda e: e.date or dt.date.min)
    if later is not None and later is theirs and ours is not None and not later.service and later.rates == ours.rates:
        later = replace(later, service=ours.service)  # a table that says nothing of service tiers, and nothing new of the standard one
    if later is None or provider not in ("azure", "vertex"):
        return later
    return replace(
        later, service={tier: p for tier, p in later.service.items() if tier in ("flex", "batch")}
    )  # its own pages give these alone


def _in_force(entries: Sequence[Price], provider: str, model: str | None, today: dt.date) -> Price | None:
    matches = [e for e in entries if model and e.provider == provider and any(fnmatchcase(model.lower(), m) for m in e.models)]
    # The first match, and of entries with the same patterns the latest that is in force.
    candidates = [e for e in matches if e.models == matches[0].models and (e.since is None or e.since <= today)]
    return max(candidates, key=lambda e: e.since or dt.date.min, default=None)


def _own_name(route: Route, own: Mapping[str, Any]) -> str | None:
    """The name of the `[price."…"]` for this route: the route itself, else the first pattern that matches."""
    text = str(route)
    return text if text in own else next((name for name in own if fnmatchcase(text, name)), None)


@lru_cache(maxsize=256)
def _fallback(provider: str, model: str) -> Price | None:
    """The current price in genai-prices, where it is installed; without peak hours and scheduled changes."""
    if provider in ("pool", "sim", "vllm", "ray", "holysheep", "sagemaker"):
        return None
    try:
        genai = import_module("genai_prices")
    except ImportError:
        return None
    name = {"gemini": "google", "azure": "openai", "bedrock": "aws", "vertex": "google"}.get(provider, provider)
    try:
        quote = genai.calc_price(genai.Usage(input_tokens=1, output_tokens=1), model_ref=model, provider_id=name).model_price
    except LookupError:
        return None
    columns = {
        "input": quote.input_mtok,
        "output": quote.output_mtok,
        "cached": quote.cache_read_mtok,
        "cache_write": quote.cache_write_mtok,
        "cache_write_1h": getattr(quote, "cache_write_1h_mtok", None),  # not in every version
    }
    base = {k: getattr(v, "base", v) for k, v in columns.items()}
    if base["output"] is None and "embed" in model.lower():
        base["output"] = Decimal(0)
    if base["input"] is None or base["output"] is None:
        return None
    starts = sorted({t.start for v in columns.values() for t in getattr(v, "tiers", ())})
    tiers = tuple((start, Rates(**{k: _tier_price(v, start) for k, v in columns.items()})) for start in starts)
    return Price(provider, (model,), Rates(**base), tiers, source="https://github.com/pydantic/genai-prices")


def _tier_price(column: Any, start: int) -> Decimal | None:
    price: Decimal | None = next((t.price for t in getattr(column, "tiers", ()) if t.start == start), getattr(column, "base", column))
    return price


def no_tier_price(route: Route, tier: str) -> str:
    """A warning: an answer was served at a tier whose price, for what it used, is not known."""
    if tier == "unsaid":
        return f"{route} does not say at which service tier it answered, so the cost is shown as ?."
    return f"No price is known for {route} at its {tier} tier, so its cost is shown as ?. {how_to_set(route, tier)}".strip()


def how_to_set(route: Route, tier: str = "standard") -> str:
    """How to set an unknown price, for the end of a message."""
    if tier in TIER_NAMES:
        return f'Set it in config.toml: [price."{route}"] input = …, output = …, {tier} = {{ input = …, output = … }}'
    return "" if tier != "standard" else f'Set it in config.toml: [price."{route}"] input = …, output = … (dollars per million tokens)'
