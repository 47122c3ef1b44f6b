"""The budget: what is spent and set aside never exceeds it, and it is used where the rows would have used it."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest
from engines_fake import Scripted, Step, done
from scheduled import drive, ends

import holynb
from holynb import loop
from holynb.errors import Fault
from holynb.scheduler.budget import Budget, Money
from holynb.scheduler.retry import Policy


def test_reserve_waits_for_what_may_come_back_and_refuses_what_cannot_fit():
    async def main() -> list[object]:
        budget = Budget(Decimal(10))
        log: list[object] = [await budget.reserve(Decimal(6))]
        waiting = asyncio.create_task(budget.reserve(Decimal(5)))
        await asyncio.sleep(0)
        log.append(waiting.done())
        budget.settle(Decimal(6), Decimal(1))
        async with asyncio.timeout(5):
            log.append(await waiting)
            log.append(await budget.reserve(Decimal("9.5")))
        return [*log, budget.spent, budget.reserved]

    assert asyncio.run(main()) == [True, False, True, False, Decimal(1), Decimal(5)]


def test_unknown_usage_counts_as_what_was_set_aside_and_an_overrun_is_reported():
    async def main() -> Budget:
        budget = Budget(Decimal(10))
        await budget.reserve(Decimal(4))
        budget.settle(Decimal(4), None)
        await budget.reserve(Decimal(2))
        budget.settle(Decimal(2), Decimal(3))
        return budget

    budget = asyncio.run(main())
    assert (budget.spent, budget.reserved, budget.overrun) == (Decimal(7), Decimal(0), Decimal(1))


def test_what_nothing_was_set_aside_for_spends_nothing_of_a_budget():
    """A pool's time has its price an hour, and `--budget` holds what others bill."""
    budget = Budget(Decimal(1))
    money = Money(lambda route, model, usage, tier: None, budget=budget)
    money.settle(Decimal(0), Decimal("0.75"))
    assert (budget.spent, budget.reserved, budget.overrun) == (0, 0, 0)
    money.settle(Decimal(0), None)
    assert budget.spent == 0


@pytest.mark.parametrize("seed", range(40))
def test_never_over_and_nearly_all_of_it_used(seed: int):
    rng = random.Random(seed)
    n, unit = rng.randint(20, 60), Decimal(rng.randint(1, 9)) / 1000
    size = [rng.randint(1, 9) for _ in range(n)]
    worst = [s * rng.randint(1, 4) for s in size]
    cap = unit * sum(size) * Decimal(rng.choice(["0.3", "0.6", "2"]))
    fate = {row: [rng.choice(["ok", "ok", "server", "rate_limit"]) for _ in range(4)] for row in range(n)}
    paid: list[Decimal] = []

    def script(row: int, attempt: int) -> list[Step]:
        kind = fate[row][attempt - 1] if attempt <= 4 else "ok"
        if kind == "ok":
            paid.append(unit * size[row])
            return [0.001, done("x", tokens_in=size[row])]
        if kind == "server":
            paid.append(unit * worst[row])  # a server that bills for its own failure, at the most it may
        return [Fault(kind, kind, wait=0.001)]

    async def main() -> Budget:
        return Budget(cap)

    budget = asyncio.run(main())
    money = Money(lambda route, model, usage, tier: unit * (usage.tokens_in or 0), lambda request, route: unit * worst[request.row], budget)
    journal, _ = drive([Scripted(script)], n, Policy(retries=5), money=money, cap=rng.randint(1, 16))
    rows = ends(journal)
    assert sum(paid) <= cap
    assert budget.spent <= cap
    assert budget.reserved == 0
    refused = [i for i, o in enumerate(rows) if o.error_type == "budget"]
    assert {o.status for i, o in enumerate(rows) if i not in refused} <= {"ok"}
    if refused:
        assert cap - budget.spent < unit * max(worst), "rows are refused only where the most they could cost no longer fits"


@pytest.mark.parametrize("seed", range(20))
def test_what_is_on_disk_is_never_below_what_may_be_gone_nor_far_above(seed: int):
    rng, written = random.Random(seed), list[Decimal]()
    cap, over = Decimal(100), list[Decimal]()

    async def main() -> int:
        writes = 0

        async def write(dollars: Decimal) -> None:
            await asyncio.sleep(rng.random() / 2000)
            written.append(dollars)

        def hold(dollars: Decimal) -> asyncio.Task[None]:
            nonlocal writes
            writes += 1
            before = last[-1] if last else None

            async def in_order() -> None:
                if before is not None:
                    await before
                await write(dollars)

            last.append(asyncio.create_task(in_order()))
            return last[-1]

        last: list[asyncio.Task[None]] = []
        budget, sent = Budget(cap, Decimal(7), hold), Decimal(0)

        async def lane() -> None:
            nonlocal sent
            while True:
                worst = Decimal(rng.randint(1, 40)) / 20
                if not await budget.reserve(worst):
                    return
                sent += worst
                over.append(written[-1] - budget.spent - sent)
                await asyncio.sleep(rng.random() / 1000)
                sent -= worst
                budget.settle(worst, rng.choice([worst, worst / 4, None]))

        await asyncio.gather(*(lane() for _ in range(8)))
        assert budget.spent <= cap
        return writes

    writes = asyncio.run(main())
    assert min(over) >= 0
    assert max(written) <= cap
    assert max(over) <= 20, "what a kill takes from the budget is what was under way, and a little"
    assert writes < len(over)


def test_a_reservation_that_is_given_up_while_it_is_written_down_holds_nothing():
    async def main() -> Budget:
        never = asyncio.get_running_loop().create_future()
        budget = Budget(Decimal(10), hold=lambda dollars: never)
        first, second = (asyncio.create_task(budget.reserve(Decimal(2))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        assert not never.done(), "others wait for it"
        never.set_result(None)
        assert await second
        return budget

    assert asyncio.run(main()).reserved == 2


def test_a_row_whose_price_is_not_known_is_not_sent():
    async def main() -> Budget:
        return Budget(Decimal(1))

    engine = Scripted(lambda row, attempt: [done("x")])
    journal, _ = drive([engine], 3, money=Money(lambda *a: None, lambda *a: None, asyncio.run(main())))
    assert {o.error_type for o in ends(journal)} == {"budget"}
    assert not engine.seen


def test_rows_that_the_budget_can_never_hold_wait_for_no_quota():
    try:
        run = holynb.infer([f"row {i}" for i in range(200)], "sim/echo", budget=1e-9, rpm=1)
        with pytest.raises(holynb.InferError, match="200 budget"):
            run.wait(20)
    finally:
        loop.close()
