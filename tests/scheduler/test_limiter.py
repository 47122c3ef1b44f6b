"""The limiter against servers with quotas, on a virtual clock: how long it takes, how often it is refused, that nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import statistics
import time
from typing import Any

import pytest
from servers import virtual
from servers.limited import Result, against_oracle, drive, limiter, through
from servers.virtual import Quota

from holynb.scheduler.learned_rate import LearnedRate
from holynb.scheduler.limiter import Limiter
from holynb.scheduler.registry import shared_limiter
from holynb.types import Limits

OPTIMUM = (750 - 600) / 10  # a full bucket of 600, then 10 a second


# -- the figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_seconds", [False, True])
@pytest.mark.parametrize("latency", [0.05, 0.5])
def test_with_headers_no_request_is_refused_and_little_time_lost(latency: float, whole_seconds: bool):
    quota = Quota(latency=latency, whole_seconds=whole_seconds)
    result = drive(quota, 750)
    assert quota.refused == 0
    assert quota.served == 750
    assert result.seconds <= 1.15 * OPTIMUM


@pytest.mark.parametrize("retry_after", ["slot", "whole", None])
@pytest.mark.parametrize("latency", [0.05, 0.3, 1.0])
def test_without_headers_few_are_refused_and_none_is_lost(latency: float, retry_after: str | None):
    quota = Quota(headers=False, retry_after=retry_after, latency=latency, jitter=0.5, refusal=0.002)
    result = drive(quota, 750)
    assert quota.served == 750
    assert quota.refused <= 0.02 * len(quota.sent)
    assert result.seconds <= 1.15 * OPTIMUM


@pytest.mark.parametrize("latency", [0.05, 0.3, 1.0])
def test_refusals_that_are_as_slow_as_answers_cost_what_was_in_flight(latency: float):
    quota = Quota(headers=False, latency=latency, refusal=None)
    result = drive(quota, 750)
    assert quota.served == 750
    assert quota.refused <= 64 + 8
    assert result.seconds <= 1.2 * OPTIMUM


@pytest.mark.parametrize(("headers", "most"), [(True, 0.01), (False, 0.025)])
@pytest.mark.parametrize("latency", [0.05, 0.3])
def test_two_processes_on_one_key(latency: float, headers: bool, most: float):
    """Each has to find out by itself when the quota ends, where nothing tells: chance decides whose rate is corrected, so many draws count."""
    quotas = [Quota(headers=headers, latency=latency, jitter=0.5, refusal=0.002, seed=seed) for seed in range(9)]

    async def main(quota: Quota) -> Result:
        return await through([limiter(start=16), limiter(start=16)], quota, 750, alike=False)

    results = [virtual.run(functools.partial(main, quota)) for quota in quotas]
    assert all(quota.served == 750 for quota in quotas)
    assert statistics.median(quota.refused / len(quota.sent) for quota in quotas) <= most
    assert statistics.median(result.seconds for result in results) <= 1.2 * OPTIMUM
    assert max(result.seconds for result in results) <= 2 * OPTIMUM


@pytest.mark.parametrize(("limit", "rows", "most"), [(60, 120, 0.1), (120, 240, 0.06), (300, 500, 0.03)])
@pytest.mark.parametrize("retry_after", ["slot", None])
def test_a_small_quota_that_nothing_tells(limit: int, rows: int, most: float, retry_after: str | None):
    """What is refused when it ends is a larger part of it, since less is known by then."""
    quotas = [Quota(limit, headers=False, retry_after=retry_after, jitter=0.5, refusal=0.002, seed=seed) for seed in range(5)]
    results = [drive(quota, rows, start=16) for quota in quotas]
    assert statistics.median(quota.refused / len(quota.sent) for quota in quotas) <= most
    assert statistics.median(result.seconds for result in results) <= 1.1 * (rows - limit) * 60 / limit


@pytest.mark.parametrize(
    ("share", "retry_after", "latency"), [(0.1, 0.1, 1.0), (0.1, None, 0.3), (0.15, 1.0, 1.0), (0.2, 5.0, 0.05), (0.2, 0.1, 0.05)]
)
def test_random_refusals_cost_what_their_own_rows_wait(share: float, retry_after: float | None, latency: float):
    """The corners of `benchmarks/rate_limits.py`, against who knows that they are random."""
    ratios = [against_oracle(share, retry_after, latency, seed) for seed in range(20)]
    assert statistics.median(ratios) <= 1.3


@pytest.mark.parametrize("retry_after", ["slot", None])
def test_a_quota_that_is_lifted_is_noticed_within_a_minute(retry_after: str | None):
    quota = Quota(headers=False, retry_after=retry_after, jitter=0.5)

    async def main() -> tuple[float | None, float]:
        gate, loop = limiter(start=16), asyncio.get_running_loop()
        await through([gate], quota, 900)
        rate = gate._learned_rate.rate
        quota.limit, quota._level = 10_000_000, 1e7
        lifted = loop.time()
        while gate._learned_rate.rate is not None:
            await through([gate], quota, 50)
            assert loop.time() - lifted < 60
        return rate, (await through([gate], quota, 3000)).seconds

    rate, after = virtual.run(main)
    assert rate is not None
    assert 8 <= rate <= 20
    assert after <= 1.3 * 3000 * 0.05 * 1.25 / 64


def test_a_quota_that_comes_back_is_met_again():
    quota = Quota(limit=10_000_000, headers=False, jitter=0.5, refusal=0.002)

    async def main() -> float:
        gate = limiter(start=16)
        await through([gate], quota, 2000)
        quota.limit, quota._level = 600, 600.0
        return (await through([gate], quota, 750)).seconds

    assert virtual.run(main) <= 1.15 * OPTIMUM
    assert quota.refused <= 0.03 * 750, "all 64 at once were going when it came"


def test_a_new_run_does_not_inherit_what_single_refusals_did():
    moody = Quota(limit=10_000_000, headers=False, latency=0.3, moods=0.2, mood_wait=1.0)

    async def main() -> tuple[int, float, float]:
        gate = limiter(start=16)
        await through([gate], moody, 1000)
        moody.moods = 0.0
        gate.start_run()
        again = (await through([gate], moody, 300)).seconds
        return gate.window, again, (await through([limiter(start=16)], moody, 300)).seconds

    window, again, fresh = virtual.run(main)
    assert window >= 16
    assert again <= fresh


@pytest.mark.parametrize("kind", ["bucket", "window"])
@pytest.mark.parametrize("retry_after", ["whole", None])
def test_three_a_minute_are_asked_for_soon_after_there_is_one(kind: str, retry_after: str | None):
    """A pause, its backoff and the interval of a small rate add up: together no more than a minute without an attempt."""
    quota = Quota(limit=3, kind=kind, headers=False, retry_after=retry_after)
    drive(quota, 15, start=16)
    gaps = [later - earlier for earlier, later in itertools.pairwise(quota.sent)]
    assert max(gaps) <= 67


@pytest.mark.parametrize("headers", [True, False])
def test_a_quota_that_is_refilled_once_a_minute(headers: bool):
    quota = Quota(limit=300, kind="window", headers=headers)
    result = drive(quota, 750)
    assert quota.refused <= (0 if headers else 0.06 * 750)
    assert result.seconds <= 1.1 * 120 if headers else 1.5 * 120


def test_a_small_quota_and_long_answers():
    quota = Quota(limit=60, latency=5.0, jitter=1.0)
    result = drive(quota, 180)
    assert quota.refused == 0
    assert result.seconds <= 1.15 * 120 + 10


def test_a_quota_of_tokens():
    quota = Quota(limit=60_000, per_token=True)
    result = drive(quota, 300, tokens=lambda row: 200 + row % 7 * 50)
    assert quota.refused == 0
    spent = sum(200 + row % 7 * 50 for row in range(300))
    assert result.seconds <= 1.15 * (spent - 60_000) / 1000 + 2


def test_a_server_that_takes_ten_at_once():
    quota = Quota(limit=1_000_000, headers=False, at_once=10, latency=1.0, retry_after=None)
    result = drive(quota, 400)
    assert quota.served == 400
    assert quota.refused <= 0.1 * len(quota.sent)
    assert result.seconds <= 2.0 * 400 / 10


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("latency", [0.05, 1.0])
@pytest.mark.parametrize("moods", [0.01, 0.05])
def test_single_refusals_that_have_nothing_to_do_with_the_rate_slow_little_down(headers: bool, latency: float, moods: float):
    """Each costs its pause of 0.2 s; learning a rate from them would make it a hundred times slower."""
    calm, moody = (Quota(limit=10_000_000, headers=headers, latency=latency, moods=share) for share in (0.0, moods))
    best = drive(calm, 1500).seconds
    result = drive(moody, 1500)
    assert moody.refused > 1500 * moods / 2
    assert result.seconds <= 1.2 * best + 0.25 * moody.refused


@pytest.mark.parametrize("cap", [4, 64])
def test_a_quota_and_moods_together(cap: int):
    quota = Quota(headers=False, moods=0.01, jitter=0.5)
    result = drive(quota, 750, cap=cap)
    assert quota.refused <= 0.07 * len(quota.sent)
    assert result.seconds <= 2.0 * OPTIMUM


def test_no_quota_at_all_is_used_to_the_cap():
    quota = Quota(limit=10_000_000)
    result = drive(quota, 4000, cap=512)
    assert result.most == 512
    assert result.seconds <= 1.5


def test_headers_of_another_kernels_use_are_believed():
    """Somebody else takes half of the quota."""
    quota = Quota(limit=600)

    async def other() -> None:
        while True:
            quota._refill(asyncio.get_running_loop().time())
            quota._level = max(0.0, quota._level - 0.5)
            await asyncio.sleep(0.1)

    async def ask(amount: int = 1) -> Any:
        if not tasks:
            tasks.append(asyncio.create_task(other()))
        return await Quota.ask(quota, amount)

    tasks: list[asyncio.Task[None]] = []
    quota.ask = ask  # type: ignore[method-assign]
    drive(quota, 700)
    assert quota.refused <= 4, "after each 429 there is a random bit more of a pause"


# -- the user's bounds ---------------------------------------------------------------------------------------------------


def test_rpm_is_exact_over_any_minute_and_no_slower():
    quota = Quota(limit=10_000_000)
    result = drive(quota, 100, rpm=40)
    assert all(len([t for t in quota.sent if start <= t < start + 60]) <= 40 for start in quota.sent)
    assert 120 <= result.seconds <= 121


def test_tpm_counts_tokens_and_gives_back_what_was_not_used():
    async def main() -> float:
        gate, loop = limiter(tpm=1000, start=64), asyncio.get_running_loop()
        start = loop.time()
        for _ in range(40):
            permit = await gate.acquire(500)
            gate.on_success(permit, used=50)
            gate.release(permit)
        return loop.time() - start

    assert 60 <= virtual.run(main) <= 200, "40 x 500 would be twenty minutes"


def test_one_request_larger_than_tpm_still_goes():
    async def main() -> float:
        gate = limiter(tpm=100)
        gate.release(await gate.acquire(5000))
        return gate.delay(10)

    assert 59 < virtual.run(main) <= 60


# -- the window ----------------------------------------------------------------------------------------------------------


def grown(gate: Limiter, rounds: int, limits: Limits | None = None, seconds: float = 0.05) -> list[int]:
    async def main() -> list[int]:
        sizes = []
        for _ in range(rounds):
            permits = [await gate.acquire() for _ in range(gate.window)]
            await asyncio.sleep(seconds)
            for permit in permits:
                gate.on_success(permit, limits)
            for permit in permits:
                gate.release(permit)
            sizes.append(gate.window)
        return sizes

    return main()  # type: ignore[return-value]


@pytest.mark.parametrize("limits", [Limits(10_000, 9_000, 1.0), None])
def test_it_more_than_doubles_each_round_trip_up_to_the_cap(limits: Limits | None):
    async def main() -> list[int]:
        return await grown(limiter(cap=100), 5, limits)  # type: ignore[misc]

    assert virtual.run(main) == [17, 35, 71, 100, 100]


def test_it_does_not_grow_while_it_is_not_used():
    async def main() -> int:
        gate = limiter()
        for _ in range(50):
            permit = await gate.acquire()
            gate.on_success(permit)
            gate.release(permit)
        return gate.window

    assert virtual.run(main) == 8


def test_where_all_in_flight_are_refused_together_the_window_shrinks_once():
    async def main() -> list[int]:
        gate = limiter(start=32)
        permits = [await gate.acquire() for _ in range(32)]
        await asyncio.sleep(0.01)
        for permit in permits:
            gate.on_rate_limit(permit, 1.0)
            gate.release(permit)
        return [gate.window]

    assert virtual.run(main) == [4]


def test_one_that_is_refused_waits_alone_and_just_as_long_as_asked():
    async def main() -> tuple[bool, float, float]:
        gate = limiter()
        permits = [await gate.acquire() for _ in range(4)]
        pause = gate.on_rate_limit(permits[1], 7.0)
        gate.release(permits[1])
        return pause.shared, pause.seconds, gate.delay()

    assert virtual.run(main) == (False, 7.0, 0.0)


def test_a_row_may_be_refused_thousands_of_times_and_a_rate_rest_for_days():
    async def main() -> tuple[float, float]:
        gate = limiter()
        permit = await gate.acquire()
        rate = LearnedRate()
        rate.rate = 2.0
        rate.record_send(3.0)
        rate.record_send(10**6)
        return gate.on_rate_limit(permit, None, None, 5_000).seconds, rate.rate

    seconds, rate = virtual.run(main)
    assert seconds <= 30
    assert rate < 100


def test_where_a_quota_ends_everybody_pauses_and_a_little_longer_than_asked():
    async def main() -> float:
        gate, loop = limiter(), asyncio.get_running_loop()
        permits = [await gate.acquire() for _ in range(8)]
        await asyncio.sleep(0.01)
        start = loop.time()
        pauses = [gate.on_rate_limit(permit, 7.0) for permit in permits]
        for permit in permits:
            gate.release(permit)
        assert pauses[-1].shared
        assert pauses[-1].seconds == pytest.approx(gate.delay())
        await gate.acquire()
        return loop.time() - start

    assert 7.0 <= virtual.run(main) <= 7.7


def test_without_retry_after_a_rows_waits_double():
    async def main() -> list[float]:
        gate, waits = limiter(), []
        for refusals in range(1, 8):
            permit = await gate.acquire()
            gate.on_success(await gate.acquire())
            waits.append(gate.on_rate_limit(permit, refusals=refusals).seconds)
            gate.release(permit)
        return waits

    waits = virtual.run(main)
    assert all(0.75 * 0.5 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits[:6]))
    assert waits[-1] <= 30


def test_a_quota_that_is_gone_for_hours_is_tried_with_one_request_alone():
    async def main() -> tuple[float, float]:
        gate = limiter()
        permit = await gate.acquire()
        gate.on_success(permit, Limits(50, 0, 36_000.0))
        gate.release(permit)
        alone = gate.delay()
        await gate.acquire()
        return alone, gate.delay()

    assert virtual.run(main) == (0.0, float("inf"))


def test_however_often_it_is_refused_it_goes_on_and_soon_after_the_last_refusal():
    """2,000 refusals within seconds: a rate that is halved each time comes to nothing, and its pause to eternity."""

    async def main() -> float:
        gate, loop = limiter(), asyncio.get_running_loop()
        for _ in range(2000):
            permit = await gate.acquire()
            gate.on_rate_limit(permit, 0.001)
            gate.release(permit)
        last = loop.time()
        for _ in range(3):
            permit = await gate.acquire()
            gate.on_success(permit)
            gate.release(permit)
        return loop.time() - last

    assert virtual.run(main) < 67


def test_nonsense_in_headers_stops_nobody():
    async def main() -> None:
        gate = limiter()
        for limits in (Limits(0, 0, 0.0), Limits(None, 0, 1e12), Limits(5, 9, 0.0), Limits(None, 0, None), Limits(10, 0, 0.0, 10, 0, 0.0)):
            permit = await gate.acquire(10)
            gate.on_success(permit, limits)
            gate.release(permit)

    start = time.monotonic()
    virtual.run(main)
    assert time.monotonic() - start < 5


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_a_waiter_that_is_cancelled_leaves_the_others_their_turn():
    async def main() -> None:
        gate = limiter(cap=1)
        permit = await gate.acquire()
        waiting = [asyncio.create_task(gate.acquire()) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        await asyncio.sleep(0)
        gate.release(permit)
        gate.release(permit)
        gate.release(await waiting[1])
        gate.release(await waiting[2])
        assert gate.in_flight == 0

    virtual.run(main)


def test_runs_on_one_loop_share_a_limiter_and_it_goes_with_them():
    async def main() -> None:
        first = shared_limiter(("https://x", 1), limiter)
        assert shared_limiter(("https://x", 1), limiter) is first
        assert shared_limiter(("https://x", 2), limiter) is not first
        gate = id(first)
        del first
        gc.collect()
        again = shared_limiter(("https://x", 1), limiter)
        assert again.in_flight == 0
        assert gate is not None

    virtual.run(main)


def test_two_runs_through_one_limiter_meet_one_quota():
    quota = Quota()
    result = drive(quota, 750, runs=2)
    assert quota.refused == 0
    assert result.seconds <= 1.15 * OPTIMUM


def test_it_costs_microseconds():
    async def main() -> float:
        gate = limiter(cap=64, start=64)
        limits = Limits(10_000_000, 9_000_000, 1.0)
        start = time.process_time()
        for _ in range(20_000):
            permit = await gate.acquire(100)
            gate.on_success(permit, limits)
            gate.release(permit)
        return (time.process_time() - start) / 20_000

    assert virtual.run(main) < 50e-6
