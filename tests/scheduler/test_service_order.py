"""`--tier flex,standard`: a tier without room leads to the next at once or is waited for, and neither spends a retry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from engines_fake import Scripted, always, done
from scheduled import FAST, ends, request
from servers import virtual

from holynb.errors import Fault
from holynb.events import Failed
from holynb.journal import Journal
from holynb.scheduler.failover import EndpointState, Tier, WorkItem
from holynb.scheduler.limiter import Limiter
from holynb.scheduler.retry import Policy
from holynb.scheduler.scheduler import Money, Scheduler
from holynb.types import Completion, Delta, Done, Request, Timeouts, Usage


def full(tier: str = "flex", **facts: Any) -> Fault:
    return Fault("rate_limit", "429 resource_unavailable: no room", status=429, tier_refused=tier, **facts)


def not_served(tier: str = "flex") -> Fault:
    return Fault("bad_request", "400: flex is not available for this model", status=400, tier_refused=tier)


class AtTiers(Scripted):
    """Answers at each tier by its own script: `tiers[tier](row, attempt at that tier)`."""

    def __init__(self, **tiers: Any) -> None:
        super().__init__(always())
        self.tiers = tiers
        self.sent: list[tuple[int, str]] = []
        self.silence: list[float] = []

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]:
        (tier,) = request.tiers or ("",)
        self.sent.append((request.row, tier))
        self.silence.append(timeouts.longest_silence(request.tiers))
        self.script = lambda row, attempt: self.tiers[tier](row, self.sent.count((row, tier)))
        async for item in super().send(request, timeouts):
            yield item


def answer(tier: str) -> Any:
    return always(Done(Completion("ok", "stop", "m", Usage(10, 10), tier=tier)))


def drive(engine: AtTiers, n: int, order: tuple[str, ...], policy: Policy = FAST, **more: Any) -> tuple[Journal, EndpointState]:
    async def main() -> tuple[Journal, EndpointState]:
        import asyncio
        from dataclasses import replace

        journal = Journal(n)
        limiter = Limiter(cap=8, start=8, clock=asyncio.get_running_loop().time)
        endpoint = EndpointState(engine.endpoint.route, engine, limiter)
        endpoint.service_tiers = order
        others = [EndpointState(e.endpoint.route, e, Limiter(cap=8, clock=asyncio.get_running_loop().time)) for e in more.get("others", ())]
        tiers = [Tier("first", [endpoint]), *(Tier(str(o.route), [o]) for o in others)]
        price = {"flex": Decimal(1), "standard": Decimal(2)}
        money = Money(lambda route, model, usage, tier: price.get(tier or "standard"))
        scheduler = Scheduler(tiers, policy, journal, money)
        items = [WorkItem(replace(request(i), tiers=order), tuple(t.name for t in tiers)) for i in range(n)]
        async with asyncio.timeout(7200):
            await scheduler.run(items)
        return journal, endpoint

    return virtual.run(main)


def test_each_attempt_asks_for_the_first_tier_and_is_paid_at_the_one_that_answered() -> None:
    engine = AtTiers(flex=answer("flex"), standard=answer("standard"))
    journal, _ = drive(engine, 3, ("flex", "standard"))
    assert {tier for _, tier in engine.sent} == {"flex"}
    assert [(o.tier, o.cost, o.attempts) for o in ends(journal)] == [("flex", Decimal(1), 1)] * 3


def test_a_row_whose_tier_is_full_asks_at_the_next_at_once_and_spends_no_retry() -> None:
    engine = AtTiers(
        flex=lambda row, n: [full()] if row % 2 else [Done(Completion("ok", "stop", "m", Usage(1, 1), tier="flex"))],
        standard=answer("standard"),
    )
    journal, _ = drive(engine, 6, ("flex", "standard"), Policy(Timeouts(), retries=0))
    assert [o.tier for o in ends(journal)] == ["flex", "standard"] * 3
    assert [o.attempts for o in ends(journal)] == [1, 2] * 3
    assert all("the one asked first was refused" in (o.error or "") for o in ends(journal)[1::2])
    assert {e.wait for e in journal.events_since(0)[0] if isinstance(e, Failed)} == {0.0}


def test_alone_it_is_waited_for_however_often_and_spends_no_retry() -> None:
    engine = AtTiers(flex=lambda row, n: [full()] if n < 9 else [Done(Completion("ok", "stop", "m", Usage(1, 1), tier="flex"))])
    journal, _ = drive(engine, 4, ("flex",), Policy(Timeouts(), retries=0))
    assert [(o.status, o.tier, o.attempts) for o in ends(journal)] == [("ok", "flex", 9)] * 4


def test_the_last_of_an_order_is_waited_for() -> None:
    engine = AtTiers(flex=always(full()), priority=lambda row, n: [full("priority")] if n < 3 else [done("ok")])
    journal, _ = drive(engine, 2, ("flex", "priority"), Policy(Timeouts(), retries=0))
    assert [(o.status, o.attempts) for o in ends(journal)] == [("ok", 4)] * 2


def test_a_tier_that_does_not_serve_the_model_is_learnt_once() -> None:
    engine = AtTiers(flex=always(0.01, not_served()), standard=always(0.01, done("ok")))
    journal, endpoint = drive(engine, 40, ("flex", "standard"), Policy(Timeouts(), retries=0))
    assert {o.status for o in ends(journal)} == {"ok"}
    assert endpoint.service_tiers == ("standard",)
    assert sum(tier == "flex" for _, tier in engine.sent) <= 8, "those that were in flight together"


def test_alone_it_is_the_rows_error() -> None:
    journal, endpoint = drive(AtTiers(flex=always(not_served())), 2, ("flex",))
    assert [(o.status, o.error_type) for o in ends(journal)] == [("error", "bad_request")] * 2
    assert endpoint.service_tiers == ("flex",)


def test_a_quota_of_the_account_is_no_reason_to_pay_more() -> None:
    engine = AtTiers(flex=lambda row, n: [Fault("rate_limit", "429", status=429)] if n < 3 else [done("ok")])
    _journal, _ = drive(engine, 2, ("flex", "standard"))
    assert {tier for _, tier in engine.sent} == {"flex"}


def test_another_route_has_no_tier_of_the_first() -> None:
    engine, other = AtTiers(flex=always(Fault("server", "500", status=500, retry=False))), AtTiers(**{"": always(done("there"))})
    other.endpoint = Scripted(always(), "test/other").endpoint
    journal, _ = drive(engine, 2, ("flex",), others=[other])
    assert [(o.text, o.tier) for o in ends(journal)] == [("there", None)] * 2
    assert {tier for _, tier in other.sent} == {""}


@pytest.mark.parametrize(("tier", "waits"), [("flex", 900.0), ("standard", 60.0)])
def test_flex_may_be_silent_for_longer(tier: str, waits: float) -> None:
    engine = AtTiers(**{tier: always(waits - 1.0, done("late"))})
    journal, _ = drive(engine, 1, (tier,), Policy(Timeouts(silence=60.0, flex=900.0), retries=0))
    assert [o.text for o in ends(journal)] == ["late"]
    engine = AtTiers(**{tier: always(waits + 1.0, done("late"))})
    journal, _ = drive(engine, 1, (tier,), Policy(Timeouts(silence=60.0, flex=900.0), retries=0))
    assert [(o.error_type, o.error) for o in ends(journal)] == [("timeout", f"no content from test/model for {waits:g} s (--timeout)")]
