"""Rows through a scheduler over scripted engines, and how each of them ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from engines_fake import Scripted
from servers import virtual

from holynb.events import Ended
from holynb.journal import Journal
from holynb.scheduler.failover import EndpointState, Tier, WorkItem
from holynb.scheduler.limiter import Limiter
from holynb.scheduler.retry import Policy
from holynb.scheduler.scheduler import Money, Scheduler
from holynb.types import Message, Outcome, Request, Route, Timeouts

FAST = Policy(Timeouts(silence=0.3), retries=3, grace=0.1)


def request(row: int, route: str = "test/model") -> Request:
    return Request(row, (Message("user", f"row {row}"),), Route.parse(route))


def drive(
    engines: Sequence[Scripted],
    n: int,
    policy: Policy = FAST,
    during: Callable[[Scheduler], Any] | None = None,
    cap: int = 8,
    **options: Any,
) -> tuple[Journal, Scheduler]:
    """Run `n` rows over a chain of engines; `during` is awaited beside the run. A run that hangs fails after 20 s.

    `virtual`: its waits are as long as in real runs, and take no time; a run that hangs fails after two hours of them.
    """
    no_time = options.get("virtual", False)

    async def main() -> tuple[Journal, Scheduler]:
        journal = Journal(n)
        clock = asyncio.get_running_loop().time
        endpoints = [
            EndpointState(
                e.endpoint.route,
                e,
                Limiter(cap=cap, start=cap, self_hosted=True, clock=clock),
                verified=options.get("verified", True),
                answered=options.get("answered", False),
                traits=options.get("traits", {}).get(str(e.endpoint.route)),
            )
            for e in engines
        ]
        for endpoint in endpoints:
            endpoint.breaker.cooldown = options.get("cooldown", 30.0 if no_time else 0.1)
        tiers = [Tier("all", endpoints)] if options.get("spread") else [Tier(str(endpoint.route), [endpoint]) for endpoint in endpoints]
        money = options.get("money") or Money(lambda route, model, usage, tier: Decimal("0.5"))
        scheduler = Scheduler(tiers, policy if no_time else replace(policy, backoff_scale=0.002), journal, money)
        chain = tuple(tier.name for tier in tiers)
        items = options.get("items") or [WorkItem(request(i), chain) for i in range(n)]
        async with asyncio.timeout(7200 if no_time else 20):
            beside = asyncio.create_task(during(scheduler)) if during else None
            await scheduler.run(items)
            if beside:
                await beside
        return journal, scheduler

    return virtual.run(main) if no_time else asyncio.run(main())


def ends(journal: Journal) -> list[Outcome]:
    """The outcomes, having checked that each row ended exactly once."""
    events = [e for e in journal.events_since(0)[0] if isinstance(e, Ended)]
    assert sorted(e.row for e in events) == list(range(len(journal.rows)))
    return [o for o in journal.rows if o is not None]
