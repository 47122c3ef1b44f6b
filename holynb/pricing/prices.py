"""Prices of routes, and dollars of usage. Every figure has a date and a source; an unknown price is None, never 0.

A price comes from the user's settings (`[price."ROUTE"]`), else prices.toml, else genai-prices where it is installed. Knows no request
and no run; that cached rows cost nothing is the caller's to know.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from holynb.config import settings
from holynb.errors import BadSetting, closest
from holynb.types import Message, Route, Usage

__all__ = ["MILLION", "OVERHEAD_TOKENS", "Price", "Rates", "how_to_set", "list_price", "price", "table", "worst_case", "worst_usage"]

MILLION = Decimal(1_000_000)
RATE_NAMES = ("input", "output", "cached", "cache_write")
OWN_FIELDS = (*RATE_NAMES, "per_device_hour", "date", "source")

#: Tokens that a server may add to a prompt, on top of one per byte: part of the worst case that `--budget` reserves.
OVERHEAD_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens. `cached` and `cache_write` are `input` where None."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None

    def cost(self, usage: Usage) -> Decimal | None:
        """Dollars of `usage`; None where its tokens or their rate are unknown."""
        if usage.tokens_in is None or usage.tokens_out is None or self.input is None or self.output is None:
            return None
        cached, cache_writes = usage.tokens_cached or 0, usage.tokens_cache_write or 0
        uncached = max(0, usage.tokens_in - cached - cache_writes)
        cached_rate = self.input if self.cached is None else self.cached
        write_rate = self.input if self.cache_write is None else self.cache_write
        return (uncached * self.input + cached * cached_rate + cache_writes * write_rate + usage.tokens_out * self.output) / MILLION


@dataclass(frozen=True, slots=True)
class Peak:
    """Other rates at certain hours: [from, to) in UTC; Monday to Friday only where `weekdays`."""

    hours: tuple[tuple[int, int], ...]
    weekdays: bool
    rates: Rates

    def applies(self, at: float) -> bool:
        when = dt.datetime.fromtimestamp(at, dt.UTC)
        return not (self.weekdays and when.weekday() > 4) and any(start <= when.hour < end for start, end in self.hours)


@dataclass(frozen=True, slots=True)
class Price:
    """One entry. `rates` up to the first tier; `tiers`: (tokens of input above which they apply, rates), ascending. `source` is a URL."""

    provider: str
    models: tuple[str, ...]
    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    peak: Peak | None = None
    since: dt.date | None = None
    per_device_hour: Decimal | None = None
    date: dt.date | None = None
    source: str = ""
    assumed: str = ""

    @property
    def input(self) -> Decimal | None:
        return self.rates.input

    @property
    def output(self) -> Decimal | None:
        return self.rates.output

    def rates_for(self, tokens_in: int, at: float | None = None) -> Rates:
        """The rates of a request of this size at this time (seconds since 1970; None: now)."""
        if self.peak is not None and self.peak.applies(time.time() if at is None else at):
            return self.peak.rates
        return next((rates for above, rates in reversed(self.tiers) if tokens_in > above), self.rates)

    def cost(self, usage: Usage, at: float | None = None) -> Decimal | None:
        """Dollars of one answer; for a pool with a price per hour, of its device time."""
        if self.per_device_hour is not None and usage.device_s is not None:
            return self.per_device_hour * Decimal(str(usage.device_s)) / 3600
        return None if usage.tokens_in is None else self.rates_for(usage.tokens_in, at).cost(usage)

    def max_rates(self, tokens_in: int) -> Rates:
        """The highest rates of a request of at most this size, at any hour, cached or not."""
        candidates = [self.rates, *([self.peak.rates] if self.peak else []), *(rates for above, rates in self.tiers if tokens_in > above)]
        if any(r.input is None or r.output is None for r in candidates):
            return Rates()
        max_input = max(x for r in candidates for x in (r.input, r.cached, r.cache_write) if x is not None)
        return Rates(max_input, max(r.output for r in candidates if r.output is not None))


# -- lookups -----------------------------------------------------------------------------------------------------------
def list_price(route: Route, model: str | None = None, at: float | None = None) -> Price | None:
    """The price of `route`: the user's own, else of the model as the server named it, else of the requested model. None: unknown.

    Raises BadSetting where the user's own price is invalid.
    """
    own_prices = settings.current().price
    own = None
    if own_prices and (name := _own_name(route, own_prices)) is not None:
        own = _own_price(route, name, own_prices[name])
        if not settings.is_of_project(f"price.{name}"):
            return own
    today = dt.datetime.fromtimestamp(time.time() if at is None else at, dt.UTC).date()
    known = (
        _shipped_price(route.provider, model, today)
        or _shipped_price(route.provider, route.model, today)
        or _fallback(route.provider, model or route.model)
    )
    # --budget rests on prices: a file of the project can set one that is not known, and none that is lower than the one that is.
    return known if own is None or (known is not None and _is_cheaper(own, known)) else own


def price(route: Route, model: str | None, usage: Usage, at: float | None = None) -> Decimal | None:
    """Dollars of one answer; `model` as the server named it, `at`: time of the request (None: now). None where unknown."""
    entry = list_price(route, model, at)
    return None if entry is None else entry.cost(usage, at)


def worst_usage(messages: Sequence[Message], max_tokens: int) -> Usage:
    """Upper bound of any tokenizer's count: a token per byte of the messages, OVERHEAD_TOKENS, and the longest answer."""
    size = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    return Usage(size + OVERHEAD_TOKENS, max_tokens)


def worst_case(route: Route, messages: Sequence[Message], max_tokens: int) -> Decimal | None:
    """Upper bound of one attempt's dollars: `worst_usage` at the highest rates. None where there is no price."""
    entry = list_price(route)
    usage = worst_usage(messages, max_tokens)
    return None if entry is None else entry.max_rates(usage.tokens_in or 0).cost(usage)


def _is_cheaper(one: Price, other: Price) -> bool:
    """Whether some of the highest rates of `one` are below those of `other`, or missing."""
    a, b = one.max_rates(sys.maxsize), other.max_rates(sys.maxsize)
    return any(x is not None and (y is None or y < x) for x, y in ((b.input, a.input), (b.output, a.output)))


# -- sources -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def table() -> tuple[Price, ...]:
    """The prices that ship with holynb."""
    document = tomllib.loads((files("holynb.pricing") / "prices.toml").read_text("utf-8"), parse_float=Decimal)
    return tuple(_entry(entry, f"prices.toml, entry {i}") for i, entry in enumerate(document["price"], 1))


@lru_cache(maxsize=4096)
def _shipped_price(provider: str, model: str | None, today: dt.date) -> Price | None:
    # Azure bills like OpenAI; the route's model is a deployment's name, so the price is found by the model that the server names.
    provider = "openai" if provider == "azure" else provider
    matches = [e for e in table() if model and e.provider == provider and any(fnmatchcase(model.lower(), m) for m in e.models)]
    # The first match, and of entries with the same patterns the latest that is in force.
    candidates = [e for e in matches if e.models == matches[0].models and (e.since is None or e.since <= today)]
    return max(candidates, key=lambda e: e.since or dt.date.min, default=None)


def _own_name(route: Route, own: Mapping[str, Any]) -> str | None:
    """The name of the `[price."…"]` for this route: the route itself, else the first pattern that matches."""
    text = str(route)
    return text if text in own else next((name for name in own if fnmatchcase(text, name)), None)


def _own_price(route: Route, name: str, entry: Mapping[str, Any]) -> Price:
    where = f'[price."{name}"]'
    for key in entry:
        if key not in OWN_FIELDS:
            raise BadSetting(f"{where} has no {key!r}.{closest(key, OWN_FIELDS)} It takes {', '.join(OWN_FIELDS)}.")
    if ("input" in entry) != ("output" in entry):
        raise BadSetting(f"{where} needs both input and output, in dollars per million tokens.")
    per_device_hour = _amount(entry["per_device_hour"], f"{where}: per_device_hour") if "per_device_hour" in entry else None
    date = _date(entry["date"], f"{where}: date") if "date" in entry else None
    if date is not None and date > dt.date.today() + dt.timedelta(days=1):  # noqa: DTZ011 - a day where the person is; one more for clocks
        raise BadSetting(f"{where}: date is {date}, which is still to come; it says when the price was read.")
    return Price(
        route.provider,
        (route.model,),
        _rates(entry, where),
        per_device_hour=per_device_hour,
        date=date,
        source=str(entry.get("source", where)),
    )


@lru_cache(maxsize=256)
def _fallback(provider: str, model: str) -> Price | None:
    """The current price in genai-prices, where it is installed; without peak hours and scheduled changes."""
    if provider in ("pool", "sim", "vllm", "ray", "holysheep", "sagemaker"):
        return None
    try:
        genai = import_module("genai_prices")
    except ImportError:
        return None
    name = {"gemini": "google", "azure": "openai"}.get(provider, provider)
    try:
        quote = genai.calc_price(genai.Usage(input_tokens=1, output_tokens=1), model_ref=model, provider_id=name).model_price
    except LookupError:
        return None
    columns = {
        "input": quote.input_mtok,
        "output": quote.output_mtok,
        "cached": quote.cache_read_mtok,
        "cache_write": quote.cache_write_mtok,
    }
    base = {k: getattr(v, "base", v) for k, v in columns.items()}
    if base["input"] is None or base["output"] is None:
        return None
    starts = sorted({t.start for v in columns.values() for t in getattr(v, "tiers", ())})
    tiers = tuple((start, Rates(**{k: _tier(v, start) for k, v in columns.items()})) for start in starts)
    return Price(provider, (model,), Rates(**base), tiers, source="https://github.com/pydantic/genai-prices")


def _tier(column: Any, start: int) -> Decimal | None:
    price: Decimal | None = next((t.price for t in getattr(column, "tiers", ()) if t.start == start), getattr(column, "base", column))
    return price


# -- reading and checking ----------------------------------------------------------------------------------------------
ENTRY_FIELDS = ("provider", "models", *RATE_NAMES, "tiers", "peak", "since", "date", "source", "assumed")
REQUIRED_FIELDS = ("provider", "models", "input", "output", "date", "source")


def _entry(entry: Mapping[str, Any], where: str) -> Price:
    """The price of an entry of prices.toml. Raises BadSetting."""
    for name in entry:
        if name not in ENTRY_FIELDS:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(name, ENTRY_FIELDS)}")
    if missing := [name for name in REQUIRED_FIELDS if name not in entry]:
        raise BadSetting(f"{where}: {', '.join(missing)} missing.")
    for name in ("since", "date"):
        if name in entry:
            _date(entry[name], f"{where}: {name}")
    base = _rates(entry, where)
    tiers = tuple((int(t["above"]), _override_rates(base, t, f"{where}: tiers")) for t in entry.get("tiers", ()))
    peak = entry.get("peak")
    return Price(
        entry["provider"],
        tuple(entry["models"]),
        base,
        tiers,
        None
        if peak is None
        else Peak(tuple((a, b) for a, b in peak["hours"]), bool(peak.get("weekdays")), _override_rates(base, peak, f"{where}: peak")),
        entry.get("since"),
        None,
        entry["date"],
        entry["source"],
        entry.get("assumed", ""),
    )


def _rates(entry: Mapping[str, Any], where: str) -> Rates:
    return Rates(**{name: _amount(entry[name], f"{where}: {name}") for name in RATE_NAMES if name in entry})


def _override_rates(base: Rates, entry: Mapping[str, Any], where: str) -> Rates:
    return replace(base, **{name: _amount(entry[name], f"{where}: {name}") for name in RATE_NAMES if name in entry})


def _date(value: Any, where: str) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise BadSetting(f"{where} should be a date such as 2026-11-23, without quotes, not {value!r}.")
    return value


def _amount(value: Any, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadSetting(f"{where} should be a number of dollars, not {value!r}.")
    amount = Decimal(str(value))
    if not amount.is_finite() or amount < 0:
        raise BadSetting(f"{where} is {value}; a price is a number of dollars from 0.")
    return amount


def how_to_set(route: Route) -> str:
    """How to set an unknown price, for the end of a message."""
    return f'Set it in config.toml: [price."{route}"] input = …, output = … (dollars per million tokens)'
