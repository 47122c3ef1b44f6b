"""What a scheduler gets for a plan: engines, endpoints and tiers, and the validator. Lives on the io thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from holynb.config import settings
from holynb.errors import NotRunning
from holynb.run import prompt_cache, service_tiers
from holynb.run.plan import Plan, traits
from holynb.run.stored_requests import kinds
from holynb.scheduler import EndpointState, Limiter, ResponseValidator, Tier, shared_limiter
from holynb.types import Endpoint, Engine, Route, Secret

__all__ = [
    "chain",
    "endpoints",
    "engines",
    "ready",
    "remember",
    "tiers",
    "validator",
]

#: Most requests at once where nothing is said. A pool queues by itself, and a full queue makes full batches.
HOSTED_CAP, POOL_CAP = 64, 512
FIRST_WINDOW = 16

#: Servers that their users run: no quota is behind them, so none is looked for.
OWN = ("vllm", "ray")

#: (base URL, key) pairs that have answered in this process, so that only the first run probes a key with one request.
_proven: set[tuple[str, int]] = set()
#: Routes that have answered in this process, each with its address: where one is gone, it may come back. A pool is known by its name
#: alone, which is another pool's in another HOLYNB_HOME.
_answered: set[tuple[Path, str, Route]] = set()
#: The endpoints of the runs that go on, which may have answered by now, each with its HOLYNB_HOME.
_live: WeakKeyDictionary[EndpointState, Path] = WeakKeyDictionary()


def engines(plan: Plan) -> dict[Route, Engine]:
    """An engine for each endpoint."""
    from holynb.engines import connect, embeddings

    def key(endpoint: Endpoint) -> Callable[[], Secret | None]:
        return lambda: plan.targets.secrets.get(endpoint.route)

    reach = embeddings.connect if plan.options.embed else connect
    return {e.route: reach(e, key(e)) for e in plan.targets.endpoints}


async def ready(engines: Mapping[Route, Engine], notice: Callable[..., None]) -> None:
    """Wait until every engine is ready. One whose pool has answered in this process and is gone is waited for by the rows themselves.

    `notice` takes a text and a level. What a pool tells is how it starts; what a hosted engine does, that it sends other than was asked.
    """
    for route, engine in engines.items():
        try:
            await engine.ready(notice if engine.endpoint.wire == "pool" else partial(notice, level="warning"))
        except NotRunning as exc:
            if not _has_answered(engine.endpoint.base_url, route):
                raise
            notice(f"{exc} It has answered before, so its rows wait up to a minute for it.")


def endpoints(plan: Plan, engines: Mapping[Route, Engine]) -> dict[Route, EndpointState]:
    """An endpoint for each engine. Local ones need no slow start; a key that has not answered yet is probed with one request."""
    states, held_to = {}, validator(plan)
    for route, engine in engines.items():
        local = engine.endpoint.wire in ("pool", "sim")
        own = local or route.provider in OWN
        cap = plan.options.concurrency or (POOL_CAP if engine.endpoint.wire == "pool" else HOSTED_CAP)
        proven = local or plan.targets.secrets.get(route) is None or _mark(plan, engine.endpoint) in _proven
        limiter = partial(Limiter, rpm=plan.options.rpm, tpm=plan.options.tpm, cap=cap, start=cap if own else FIRST_WINDOW, self_hosted=own)
        key = (*_mark(plan, engine.endpoint), str(route), cap, plan.options.rpm, plan.options.tpm)
        shared = limiter() if own else shared_limiter(key, limiter)
        answered = _has_answered(engine.endpoint.base_url, route)
        states[route] = EndpointState(route, engine, shared, verified=proven, answered=answered, traits=traits(route))
        states[route].service_tiers = service_tiers.offered(engine.endpoint, plan.options.tier)
        states[route].cache = prompt_cache.cache_for(plan, engine.endpoint, held_to)
    _live.update(dict.fromkeys(states.values(), settings.home()))
    return states


def tiers(plan: Plan, endpoints: Mapping[Route, EndpointState]) -> list[Tier]:
    """Every tier that some row may come to."""
    first = {r.route: None for r in kinds(plan.rows.requests) if r is not None}
    first |= {plan.targets.escalate: None} if plan.targets.escalate else {}
    named = {_name(routes): [endpoints[r] for r in routes] for route in first for routes in plan.tiers(route)}
    if plan.judge is not None:  # alone: a verdict of another model is another measure
        named[str(plan.judge.route)] = [endpoints[plan.judge.route]]
    return [Tier(name, serving) for name, serving in named.items()]


def chain(plan: Plan, route: Route) -> list[str]:
    """The names of the tiers of a row that asks `route`, in order."""
    return [_name(routes) for routes in plan.tiers(route)]


def validator(plan: Plan) -> ResponseValidator | None:
    """What answers are held to, and where a row goes whose answer stays invalid; None without a schema."""
    if plan.schema is None:
        return None
    routes = {r.route for r in kinds(plan.rows.requests) if r is not None}
    stronger = (
        {route: chain(plan, plan.targets.escalate)[0] for route in routes if plan.targets.escalate not in (None, route)}
        if plan.targets.escalate
        else {}
    )
    return ResponseValidator.of(plan.schema, plan.targets.endpoints, stronger)


def remember(plan: Plan, endpoints: Mapping[Route, EndpointState]) -> None:
    """Remember which keys and routes have answered."""
    _answered.update((_live.get(s, settings.home()), s.engine.endpoint.base_url, s.route) for s in endpoints.values() if s.answered)
    _proven.update(_mark(plan, s.engine.endpoint) for s in endpoints.values() if s.verified.is_set() and s.fatal is None)


def _has_answered(base_url: str, route: Route) -> bool:
    mark = settings.home(), base_url, route
    return mark in _answered or any(e.answered and (home, e.engine.endpoint.base_url, e.route) == mark for e, home in list(_live.items()))


def _name(routes: Sequence[Route]) -> str:
    return " ".join(map(str, routes))


def _mark(plan: Plan, endpoint: Endpoint) -> tuple[str, int]:
    secret = plan.targets.secrets.get(endpoint.route)
    return endpoint.base_url, hash(secret.reveal()) if secret else 0
