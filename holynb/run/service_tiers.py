"""Which service tiers a run asks for at each endpoint, what it may be billed, how long it waits. providers.toml says what each offers."""

from __future__ import annotations

from collections.abc import Sequence

from holynb.config import Options
from holynb.errors import BadOption, BadSetting
from holynb.pricing import prices
from holynb.types import SERVICE_TIERS, Endpoint, Route, Timeouts

__all__ = ["billed", "check", "check_prices", "of_route", "offered", "timeouts"]

#: Longest silence where nothing is said, seconds; at the flex tier as long as OpenAI's and Google's pages advise.
SILENCE_S, FLEX_SILENCE_S = 60.0, 900.0


def offered(endpoint: Endpoint, tiers: Sequence[str]) -> tuple[str, ...]:
    """Those of `tiers` that the endpoint's provider has, in their order. Every provider has the standard one."""
    return tuple(t for t in tiers if t == "standard" or t in endpoint.options.get("tiers", ()))


def billed(endpoint: Endpoint, tiers: Sequence[str]) -> tuple[str, ...]:
    """What a request that asks for these may be billed as: the standard tier, too, where the provider may serve that instead."""
    downgraded = set(tiers) & set(endpoint.options.get("downgrades", tiers))
    return tuple(dict.fromkeys((*tiers, *(("standard",) if downgraded else ()))))


def of_route(endpoints: Sequence[Endpoint], options: Options, route: Route) -> tuple[str, ...]:
    """What a request of a run to `route` may be billed at; nothing where that is the standard tier alone."""
    if options.batch:
        return ("batch",)
    at = next((e for e in endpoints if e.route == route), None)
    return () if at is None else billed(at, offered(at, options.tier))


def check(endpoints: Sequence[Endpoint], tiers: Sequence[str]) -> None:
    """Raises BadOption where an endpoint's provider has none of the tiers."""
    for endpoint in endpoints if tiers else ():
        if not offered(endpoint, tiers):
            name, has = endpoint.route.provider, [t for t in SERVICE_TIERS if t == "standard" or t in endpoint.options.get("tiers", ())]
            instead = f"It has {' and '.join(has)}." if len(has) > 1 else "It has one tier for everything, so leave --tier out."
            raise BadOption(f"--tier {','.join(tiers)}: {name} has no {' or '.join(tiers)} tier. {instead}")


def check_prices(endpoints: Sequence[Endpoint], tiers: Sequence[str]) -> None:
    """A budget needs the price of every tier that may be billed. Raises BadSetting."""
    for endpoint in (e for e in endpoints if tiers and e.wire != "pool"):
        for tier in billed(endpoint, offered(endpoint, tiers)):
            if prices.worst_case(endpoint.route, (), 1, tiers=(tier,)) is None:
                where = f"{endpoint.route} at its {tier} tier"
                raise BadSetting(f"--budget needs a price for {where}, but none is known. {prices.how_to_set(endpoint.route, tier)}")


def timeouts(options: Options) -> Timeouts:
    """Those of a run: what `--timeout` says holds at every tier."""
    given = options.timeout
    return Timeouts(options.connect_timeout, SILENCE_S if given is None else given, FLEX_SILENCE_S if given is None else given)
