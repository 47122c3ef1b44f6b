"""Where the rows of a run may go: endpoints, their prices and models, and what a person should know of them. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence

from holynb.config import Options, keys, settings, suggest
from holynb.config.model_traits import ModelTraits
from holynb.engines.dialects import guidance, known_model
from holynb.errors import BadOption, BadSetting
from holynb.pricing import prices
from holynb.run import batch_terms, embedding, service_tiers, thinking_notes
from holynb.run.stored_requests import kinds
from holynb.types import Endpoint, Request, Route, Usage

__all__ = ["check_prices", "reached", "route_notes", "traits"]


def reached(routes: Sequence[Route], addressed: Route, options: Options) -> tuple[Endpoint, ...]:
    """Every endpoint that some row may ask, the first row's first. The cell's address and key name hold for `addressed`'s provider."""
    others = [settings.route(r) for r in (*options.spread, *options.fallback)]
    all_routes = list(dict.fromkeys([*routes, *others]))
    typed = options.api_base, options.api_key_name
    if options.api_base is not None:
        settings.endpoint(addressed, *typed)  # refused where its provider has no address, also when no row goes there
        same = [r for r in all_routes if r.provider == addressed.provider]
        if "/openai/deployments/" in options.api_base and len(same) > 1:
            raise BadOption(
                f"--api-base names one deployment, and {', '.join(map(str, same))} are several. Give the resource's address alone."
            )
    endpoints = tuple(settings.endpoint(r, *(typed if r.provider == addressed.provider else ())) for r in all_routes)
    embedding.check_endpoints(endpoints, options)
    return endpoints


def check_prices(endpoints: Sequence[Endpoint], options: Options) -> None:
    """A budget needs a price for every route that could be asked (`pool` spends nothing), `--price-as` for the one it names."""
    if options.price_as and prices.price(other := settings.route(options.price_as), None, Usage(1, 1)) is None:
        raise BadSetting(
            f"--price-as needs a price for {other}, but none is known."
            f"{suggest.model(other, settings.providers())} {prices.how_to_set(other)}"
        )
    batch_terms.check(endpoints, options)
    for endpoint in endpoints:
        prices.list_price(endpoint.route)  # a price of one's own that does not hold is found before the first row
    if options.budget is None:
        return
    for route in (e.route for e in endpoints if e.wire != "pool"):
        if prices.worst_case(route, (), 1) is None:
            near = suggest.model(route, settings.providers())
            raise BadSetting(f"--budget needs a price for {route}, but none is known.{near} {prices.how_to_set(route)}")
    service_tiers.check_prices(endpoints, options.tier)


def route_notes(endpoints: Sequence[Endpoint], requests: Sequence[Request | None]) -> list[str]:
    """What a person should know of where requests go: a project's file says so, a key goes unencrypted, a model ends, or cannot think."""
    of_each = (line for e in endpoints for line in (*keys.notices(e), *settings.shutdowns(e)))
    return list(dict.fromkeys((*of_each, *thinking_notes.notes(kinds(requests), endpoints), *embedding.notes(endpoints, requests))))


def traits(route: Route) -> ModelTraits:
    """What follows from what is known of a route's model; of another's model that its wire serves under the same name, as Azure does."""
    provider = settings.providers().get(route.provider)
    wire = provider.wire if provider is not None else ""
    known, guide = known_model(route, wire), guidance(route, wire)
    return ModelTraits(known, pool=route.provider == "pool", control=guide.control if guide is not None and guide.thinks else None)
