"""What a run by batch is made of: engines, prices, the validator, and where rows go that `--fallback` repairs. Lives on the io thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from holynb.config import settings
from holynb.engines.hosted import Hosted
from holynb.run import assembly, billing
from holynb.run.batch.lifecycle import Batched, Direct
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.scheduler import Money, Policy, ResponseValidator, Scheduler, Tier, WorkItem
from holynb.types import Engine, Route

__all__ = ["batched"]


def batched(plan: Plan, recorder: Recorder, engines: Mapping[Route, Engine], notice: Callable[[str], None]) -> Batched:
    """The batches of a plan. Raises Fault where the run log cannot be read."""
    fallback = [settings.route(r) for r in plan.options.fallback]
    # Whatever has a batch API speaks a wire of HTTP (`batch_terms`).
    speaking = {r: cast("Hosted", e) for r, e in engines.items() if r not in fallback}
    money, validator = billing.money(plan, notice, recorder, batch=True), assembly.validator(plan)
    run = Batched(plan, recorder, speaking, money, validator)
    if fallback:
        one_by_one = billing.money(plan, notice)
        one_by_one.budget = money.budget
        run.send_directly(_direct(plan, recorder, {r: engines[r] for r in fallback}, one_by_one, validator))
    return run


def _direct(
    plan: Plan,
    recorder: Recorder,
    engines: Mapping[Route, Engine],
    money: Money,
    validator: ResponseValidator | None,
) -> Direct:
    """Sends items over the routes of `--fallback`, in order, each row until it has ended."""

    async def send(items: Sequence[WorkItem]) -> None:
        states = assembly.endpoints(plan, engines)
        names = [str(route) for route in engines]
        tiers = [Tier(name, [states[route]]) for name, route in zip(names, engines, strict=True)]
        for item in items:
            item.chain = names
        policy = Policy(plan.timeouts, plan.options.retries, None, max_in_flight=plan.options.concurrency)
        scheduler = Scheduler(tiers, policy, recorder, money, validator)
        await scheduler.run(list(items))
        assembly.remember(plan, states)

    return send
