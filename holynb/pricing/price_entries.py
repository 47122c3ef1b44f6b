"""An entry of a table of prices: its rates, tiers and hours, and the checks that each figure passes. Reads no file, looks nothing up.

prices.toml says what each field means. An unknown figure is None, never 0.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from holynb.config.model_entries import text
from holynb.errors import BadSetting, closest
from holynb.types import Route, Usage
from holynb.words import kind_of

__all__ = ["MILLION", "TIER_NAMES", "Price", "Rates", "own_price", "read_entry"]

MILLION = Decimal(1_000_000)
RATE_NAMES = ("input", "output", "cached", "cache_write", "cache_write_1h")
#: The service tiers that have prices of their own, and the batch API; the standard one's are the entry's.
TIER_NAMES = ("flex", "priority", "batch")
OWN_FIELDS = (*RATE_NAMES, *TIER_NAMES, "per_device_hour", "date", "source")
ENTRY_FIELDS = ("provider", "models", *RATE_NAMES, *TIER_NAMES, "tiers", "peak", "since", "date", "source", "assumed")
TIER_FIELDS = (*RATE_NAMES, "tiers", "date", "source", "assumed")
REQUIRED_FIELDS = ("provider", "models", "input", "output", "date", "source")


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens. `cached` and `cache_write` are `input` where None, `cache_write_1h` is `cache_write`."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None

    def cost(self, usage: Usage) -> Decimal | None:
        """Dollars of `usage`; None where its tokens or their rate are unknown."""
        if usage.tokens_in is None or usage.tokens_out is None or self.input is None or self.output is None:
            return None
        cached, cache_writes = usage.tokens_cached or 0, usage.tokens_cache_write or 0
        if not cached and not cache_writes:  # most answers
            return (usage.tokens_in * self.input + usage.tokens_out * self.output) / MILLION
        for_an_hour = min(usage.tokens_cache_write_1h or 0, cache_writes)
        uncached = max(0, usage.tokens_in - cached - cache_writes)
        cached_rate = self.input if self.cached is None else self.cached
        write_rate = self.input if self.cache_write is None else self.cache_write
        hour_rate = write_rate if self.cache_write_1h is None else self.cache_write_1h
        written = (cache_writes - for_an_hour) * write_rate + for_an_hour * hour_rate
        return (uncached * self.input + cached * cached_rate + written + usage.tokens_out * self.output) / MILLION


@dataclass(frozen=True, slots=True)
class Peak:
    """Other rates at certain hours: [from, to) in UTC; Monday to Friday only where `weekdays`."""

    hours: tuple[tuple[int, int], ...]
    weekdays: bool
    rates: Rates

    def applies(self, at: float) -> bool:
        """Whether the rates hold at this time, in seconds since 1970."""
        when = dt.datetime.fromtimestamp(at, dt.UTC)
        return not (self.weekdays and when.weekday() > 4) and any(start <= when.hour < end for start, end in self.hours)


@dataclass(frozen=True, slots=True)
class Price:
    """One entry. `rates` up to the first tier; `tiers`: (tokens of input above which they apply, rates), ascending. `source` is a URL.

    `service`: service tier → the price of a request that was served at it; at any other it is not known.
    """

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
    service: Mapping[str, Price] = field(default_factory=dict)

    @property
    def input(self) -> Decimal | None:
        return self.rates.input

    @property
    def embeds(self) -> bool:
        """Whether it is of a model that embeds: a vector has no tokens of output, and costs nothing for them."""
        return self.rates.output == 0

    @property
    def output(self) -> Decimal | None:
        return self.rates.output

    def rates_for(self, tokens_in: int, at: float | None = None) -> Rates:
        """The rates of a request of this size at this time (seconds since 1970; None: now)."""
        if self.peak is not None and self.peak.applies(time.time() if at is None else at):
            return self.peak.rates
        return next((rates for above, rates in reversed(self.tiers) if tokens_in > above), self.rates)

    def cost(self, usage: Usage, at: float | None = None, tier: str | None = None) -> Decimal | None:
        """Dollars of one answer, served at this service tier; for a pool with a price per hour, of its device time."""
        if tier is not None and tier != "standard":
            priced = self.service.get(tier)
            return None if priced is None or self._goes_beyond(priced, usage) else priced.cost(usage, at)
        if self.per_device_hour is not None and usage.device_s is not None:
            return self.per_device_hour * Decimal(str(usage.device_s)) / 3600
        return None if usage.tokens_in is None else self.rates_for(usage.tokens_in, at).cost(usage)

    def _goes_beyond(self, priced: Price, usage: Usage) -> bool:
        """Whether a service tier's price says nothing of this usage: of a size, or of a cache, that the standard one prices apart."""
        size = usage.tokens_in or 0
        if self.tiers and not priced.tiers and size > self.tiers[0][0]:
            return True
        ours, theirs = self.rates_for(size), priced.rates_for(size)
        parts = (
            (usage.tokens_cached, ours.cached, theirs.cached),
            (usage.tokens_cache_write, ours.cache_write, theirs.cache_write),
            (usage.tokens_cache_write_1h, ours.cache_write_1h, theirs.cache_write_1h),
        )
        return any(tokens and own is not None and other is None for tokens, own, other in parts)

    def max_rates(self, tokens_in: int, *, for_an_hour: bool = False, service: Sequence[str] = ()) -> Rates:
        """The highest rates of a request of at most this size, at any hour, cached or not. `for_an_hour`: it asks to be cached so long.

        `service`: the service tiers at which it may be served; none: the standard one. Unknown where one of them has no price.
        """
        if any(tier != "standard" for tier in service):
            prices = [self if tier == "standard" else self.service.get(tier) for tier in service]
            whole = [None if p is None else p.max_rates(tokens_in, for_an_hour=for_an_hour) for p in prices]
            pairs = [(r.input, r.output) for r in whole if r is not None and r.input is not None and r.output is not None]
            return Rates(max(i for i, _ in pairs), max(o for _, o in pairs)) if len(pairs) == len(service) else Rates()
        candidates = [self.rates, *([self.peak.rates] if self.peak else []), *(rates for above, rates in self.tiers if tokens_in > above)]
        if any(r.input is None or r.output is None for r in candidates):
            return Rates()
        rates = [x for r in candidates for x in (r.input, r.cached, r.cache_write, r.cache_write_1h if for_an_hour else None)]
        max_input = max(x for x in rates if x is not None)
        return Rates(max_input, max(r.output for r in candidates if r.output is not None))


# -- reading and checking ----------------------------------------------------------------------------------------------
def own_price(route: Route, name: str, entry: Mapping[str, Any]) -> Price:
    """The price of a `[price."NAME"]` table of the user's settings. Raises BadSetting."""
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
        service=_service(entry, where),
    )


def read_entry(entry: Mapping[str, Any], where: str) -> Price:
    """The price of an entry of prices.toml, or of an update. Raises BadSetting, in one line that names the entry and the field."""
    for name in entry:
        if name not in ENTRY_FIELDS:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(name, ENTRY_FIELDS)}")
    if missing := [name for name in REQUIRED_FIELDS if name not in entry]:
        raise BadSetting(f"{where}: {', '.join(missing)} missing.")
    for name in ("since", "date"):
        if name in entry:
            _date(entry[name], f"{where}: {name}")
    base = _rates(entry, where)
    return Price(
        text(entry["provider"], f"{where}: provider"),
        tuple(text(m, f"{where}: models") for m in _list(entry["models"], f"{where}: models")),
        base,
        tuple(_tier(base, t, f"{where}: tiers") for t in _list(entry.get("tiers", ()), f"{where}: tiers")),
        None if entry.get("peak") is None else _peak(base, entry["peak"], f"{where}: peak"),
        entry.get("since"),
        None,
        entry["date"],
        text(entry["source"], f"{where}: source"),
        entry.get("assumed", ""),
        _service(entry, where),
    )


def _service(entry: Mapping[str, Any], where: str) -> dict[str, Price]:
    """The prices at service tiers that an entry has; their date and source are the entry's where they have none of their own."""
    return {name: _at_tier(entry, entry[name], f"{where}: {name}") for name in TIER_NAMES if name in entry}


def _at_tier(entry: Mapping[str, Any], tier: Any, where: str) -> Price:
    if not isinstance(tier, Mapping) or not {"input", "output"} <= tier.keys():
        raise BadSetting(f"{where} should be a table with input and output, in dollars per million tokens.")
    for name in tier:
        if name not in TIER_FIELDS:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(name, TIER_FIELDS)}")
    base = _rates(tier, where)
    return Price(
        "",
        (),
        base,
        tuple(_tier(base, t, f"{where}: tiers") for t in _list(tier.get("tiers", ()), f"{where}: tiers")),
        date=_date(tier["date"], f"{where}: date") if "date" in tier else entry.get("date"),
        source=str(tier.get("source", entry.get("source", where))),
        assumed=str(tier.get("assumed", "")),
    )


def _tier(base: Rates, tier: Any, where: str) -> tuple[int, Rates]:
    if not isinstance(tier, Mapping) or type(tier.get("above")) is not int or tier["above"] < 0:
        raise BadSetting(f"{where}: above should be a number of tokens.")
    return tier["above"], _override_rates(base, tier, where)


def _peak(base: Rates, peak: Any, where: str) -> Peak:
    hours = peak.get("hours") if isinstance(peak, Mapping) else None
    if not isinstance(hours, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(type(h) is int and 0 <= h <= 24 for h in p) for p in hours
    ):
        raise BadSetting(f"{where}: hours should be a list of [from, to) in UTC.")
    return Peak(tuple((a, b) for a, b in hours), bool(peak.get("weekdays")), _override_rates(base, peak, where))


def _rates(entry: Mapping[str, Any], where: str) -> Rates:
    return Rates(**{name: _amount(entry[name], f"{where}: {name}") for name in RATE_NAMES if name in entry})


def _override_rates(base: Rates, entry: Mapping[str, Any], where: str) -> Rates:
    return replace(base, **{name: _amount(entry[name], f"{where}: {name}") for name in RATE_NAMES if name in entry})


def _date(value: Any, where: str) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise BadSetting(f"{where} should be a date such as 2026-11-23, without quotes, not {kind_of(value)}.")
    return value


def _amount(value: Any, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadSetting(f"{where} should be a number of dollars, not {kind_of(value)}.")
    amount = Decimal(str(value))
    if not amount.is_finite() or amount < 0:
        raise BadSetting(f"{where} is {value}; a price is a number of dollars from 0.")
    return amount


def _list(value: Any, where: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BadSetting(f"{where} should be a list.")
    return value
