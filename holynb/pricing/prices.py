"""Usage and a route to dollars. Data with a date and a source for every figure; what is not known is None, never 0.

A price is looked for in the user's settings (`[price."ROUTE"]`), in prices.toml, then in genai-prices where that is installed. Knows no
request and no run; rows from the cache are the caller's.
"""

from __future__ import annotations

import datetime as dt
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

__all__ = ["MILLION", "OVERHEAD", "Price", "Rates", "how_to_set", "list_price", "price", "table", "worst_case", "worst_usage"]

MILLION = Decimal(1_000_000)
RATES = ("input", "output", "cached", "cache_write")
OWN = (*RATES, "per_device_hour", "date", "source")

#: Tokens that a server may put around a message, on top of one for each byte: the worst case that `--budget` reserves.
OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens. `cached` and `cache_write` are `input` where None."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None

    def of(self, usage: Usage) -> Decimal | None:
        """What `usage` costs; None where tokens or the rate for them are not known."""
        if usage.tokens_in is None or usage.tokens_out is None or self.input is None or self.output is None:
            return None
        cached, written = usage.tokens_cached or 0, usage.tokens_cache_write or 0
        plain = max(0, usage.tokens_in - cached - written)
        read = self.input if self.cached is None else self.cached
        write = self.input if self.cache_write is None else self.cache_write
        return (plain * self.input + cached * read + written * write + usage.tokens_out * self.output) / MILLION


@dataclass(frozen=True, slots=True)
class Peak:
    """Other rates at certain hours: [from, to) in UTC, Monday to Friday alone where `weekdays`."""

    hours: tuple[tuple[int, int], ...]
    weekdays: bool
    rates: Rates

    def holds(self, at: float) -> bool:
        when = dt.datetime.fromtimestamp(at, dt.UTC)
        return not (self.weekdays and when.weekday() > 4) and any(start <= when.hour < end for start, end in self.hours)


@dataclass(frozen=True, slots=True)
class Price:
    """One entry. `rates` up to the first tier; `tiers` are (tokens of input above which they hold, rates), rising. `source` is an address."""

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
        """The rates of a request of this size at this time (seconds since 1970; None is now)."""
        if self.peak is not None and self.peak.holds(time.time() if at is None else at):
            return self.peak.rates
        return next((rates for above, rates in reversed(self.tiers) if tokens_in > above), self.rates)

    def cost(self, usage: Usage, at: float | None = None) -> Decimal | None:
        """What one answer of this usage costs; of a pool with a price an hour, its share of the devices' time."""
        if self.per_device_hour is not None and usage.device_s is not None:
            return self.per_device_hour * Decimal(str(usage.device_s)) / 3600
        return None if usage.tokens_in is None else self.rates_for(usage.tokens_in, at).of(usage)

    def dearest(self, tokens_in: int) -> Rates:
        """The highest rates that a request of at most this size can meet, whatever the hour and the cache."""
        met = [self.rates, *([self.peak.rates] if self.peak else []), *(rates for above, rates in self.tiers if tokens_in > above)]
        if any(r.input is None or r.output is None for r in met):
            return Rates()
        most = max(x for r in met for x in (r.input, r.cached, r.cache_write) if x is not None)
        return Rates(most, max(r.output for r in met if r.output is not None))


# -- questions ---------------------------------------------------------------------------------------------------------
def list_price(route: Route, model: str | None = None, at: float | None = None) -> Price | None:
    """The price of `route`: the user's, else the one of the model as the server named it, else of the model asked for. None: unknown.

    Raises BadSetting where the user's own price does not hold.
    """
    own = settings.current().price
    if own and (name := _own_name(route, own)) is not None:
        return _own_price(route, name, own[name])
    today = dt.datetime.fromtimestamp(time.time() if at is None else at, dt.UTC).date()
    return (
        _listed(route.provider, model, today)
        or _listed(route.provider, route.model, today)
        or _fallback(route.provider, model or route.model)
    )


def price(route: Route, model: str | None, usage: Usage, at: float | None = None) -> Decimal | None:
    """Dollars for one answer; `model` as the server named it, `at` when it was asked (None: now). None where anything needed is not known."""
    known = list_price(route, model, at)
    return None if known is None else known.cost(usage, at)


def worst_usage(messages: Sequence[Message], max_tokens: int) -> Usage:
    """The most that a server's own tokenizer can count: a token for each byte of the messages, 64 more, and the longest answer."""
    size = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    return Usage(size + OVERHEAD, max_tokens)


def worst_case(route: Route, messages: Sequence[Message], max_tokens: int) -> Decimal | None:
    """The most dollars that one attempt can cost: `worst_usage` at the dearest rates. None where there is no price."""
    known = list_price(route)
    usage = worst_usage(messages, max_tokens)
    return None if known is None else known.dearest(usage.tokens_in or 0).of(usage)


# -- where prices are --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def table() -> tuple[Price, ...]:
    """The prices that ship with holynb."""
    said = tomllib.loads((files("holynb.pricing") / "prices.toml").read_text("utf-8"), parse_float=Decimal)
    return tuple(_entry(entry, f"prices.toml, entry {i}") for i, entry in enumerate(said["price"], 1))


@lru_cache(maxsize=4096)
def _listed(provider: str, model: str | None, today: dt.date) -> Price | None:
    # Azure bills like OpenAI; its model is a deployment's name, so it is the server's word that finds the price.
    provider = "openai" if provider == "azure" else provider
    fits = [e for e in table() if model and e.provider == provider and any(fnmatchcase(model.lower(), m) for m in e.models)]
    # The first that fits, and of entries with the same patterns the latest that holds already.
    same = [e for e in fits if e.models == fits[0].models and (e.since is None or e.since <= today)]
    return max(same, key=lambda e: e.since or dt.date.min, default=None)


def _own_name(route: Route, own: Mapping[str, Any]) -> str | None:
    """The `[price."…"]` that speaks of this route: its own name, else the first pattern that fits."""
    text = str(route)
    return text if text in own else next((name for name in own if fnmatchcase(text, name)), None)


def _own_price(route: Route, name: str, said: Mapping[str, Any]) -> Price:
    where = f'[price."{name}"]'
    for key in said:
        if key not in OWN:
            raise BadSetting(f"{where} has no {key!r}.{closest(key, OWN)} It takes {', '.join(OWN)}.")
    if ("input" in said) != ("output" in said):
        raise BadSetting(f"{where} needs both input and output, in dollars per million tokens.")
    device = _figure(said["per_device_hour"], f"{where}: per_device_hour") if "per_device_hour" in said else None
    read = _date(said["date"], f"{where}: date") if "date" in said else None
    if read is not None and read > dt.date.today() + dt.timedelta(days=1):  # noqa: DTZ011 - a day where the person is; one more for clocks
        raise BadSetting(f"{where}: date is {read}, which is still to come; it says when the price was read.")
    return Price(
        route.provider, (route.model,), _rates(said, where), per_device_hour=device, date=read, source=str(said.get("source", where))
    )


@lru_cache(maxsize=256)
def _fallback(provider: str, model: str) -> Price | None:
    """What genai-prices says, where it is installed. Its price of now; peak hours and later changes are not carried over."""
    if provider in ("pool", "sim", "vllm", "ray", "holysheep", "sagemaker"):
        return None
    try:
        genai = import_module("genai_prices")
    except ImportError:
        return None
    name = {"gemini": "google", "azure": "openai"}.get(provider, provider)
    try:
        said = genai.calc_price(genai.Usage(input_tokens=1, output_tokens=1), model_ref=model, provider_id=name).model_price
    except LookupError:
        return None
    columns = {"input": said.input_mtok, "output": said.output_mtok, "cached": said.cache_read_mtok, "cache_write": said.cache_write_mtok}
    base = {k: getattr(v, "base", v) for k, v in columns.items()}
    if base["input"] is None or base["output"] is None:
        return None
    starts = sorted({t.start for v in columns.values() for t in getattr(v, "tiers", ())})
    tiers = tuple((start, Rates(**{k: _tier(v, start) for k, v in columns.items()})) for start in starts)
    return Price(provider, (model,), Rates(**base), tiers, source="https://github.com/pydantic/genai-prices")


def _tier(column: Any, start: int) -> Decimal | None:
    found: Decimal | None = next((t.price for t in getattr(column, "tiers", ()) if t.start == start), getattr(column, "base", column))
    return found


# -- reading and checking ----------------------------------------------------------------------------------------------
ENTRY = ("provider", "models", *RATES, "tiers", "peak", "since", "date", "source", "assumed")
NEEDED = ("provider", "models", "input", "output", "date", "source")


def _entry(said: Mapping[str, Any], where: str) -> Price:
    """An entry of prices.toml, or BadSetting that says what is wrong with it."""
    for name in said:
        if name not in ENTRY:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(name, ENTRY)}")
    if lost := [name for name in NEEDED if name not in said]:
        raise BadSetting(f"{where}: {', '.join(lost)} missing.")
    for name in ("since", "date"):
        if name in said:
            _date(said[name], f"{where}: {name}")
    base = _rates(said, where)
    tiers = tuple((int(t["above"]), _over(base, t, f"{where}: tiers")) for t in said.get("tiers", ()))
    peak = said.get("peak")
    return Price(
        said["provider"],
        tuple(said["models"]),
        base,
        tiers,
        None
        if peak is None
        else Peak(tuple((a, b) for a, b in peak["hours"]), bool(peak.get("weekdays")), _over(base, peak, f"{where}: peak")),
        said.get("since"),
        None,
        said["date"],
        said["source"],
        said.get("assumed", ""),
    )


def _rates(said: Mapping[str, Any], where: str) -> Rates:
    return Rates(**{name: _figure(said[name], f"{where}: {name}") for name in RATES if name in said})


def _over(base: Rates, said: Mapping[str, Any], where: str) -> Rates:
    return replace(base, **{name: _figure(said[name], f"{where}: {name}") for name in RATES if name in said})


def _date(value: Any, where: str) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise BadSetting(f"{where} should be a date such as 2026-11-23, without quotes, not {value!r}.")
    return value


def _figure(value: Any, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadSetting(f"{where} should be a number of dollars, not {value!r}.")
    figure = Decimal(str(value))
    if not figure.is_finite() or figure < 0:
        raise BadSetting(f"{where} is {value}; a price is a number of dollars from 0.")
    return figure


def how_to_set(route: Route) -> str:
    """What to write where no price is known, for the end of a message."""
    return f'Set it in config.toml: [price."{route}"] input = …, output = … (dollars per million tokens)'
