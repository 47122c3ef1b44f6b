"""What a pool's rows cost: their shares of its devices' time, at the user's price an hour."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

import holynb
from holynb import pools
from holynb.config import settings
from holynb.engines.meter import Meter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_request_has_the_devices_for_itself_and_two_share_them():
    clock = Clock()
    meter = Meter(4, clock)
    first = meter.begin()
    clock.now += 1
    second = meter.begin()
    clock.now += 2
    assert meter.end(first) == pytest.approx(4 * 1 + 4 * 2 / 2)
    clock.now += 3
    assert meter.end(second) == pytest.approx(4 * 2 / 2 + 4 * 3)
    clock.now += 1000  # nobody is asked: nobody pays
    assert meter.end(meter.begin()) == 0


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_to_the_time_in_which_any_was_under_way(seed):
    rng, clock = random.Random(seed), Clock()
    meter, under_way, shares, busy = Meter(2, clock), [], [], 0.0
    for _ in range(400):
        passed = rng.random()
        clock.now += passed
        busy += passed if under_way else 0.0
        if under_way and rng.random() < 0.5:
            shares.append(meter.end(under_way.pop(rng.randrange(len(under_way)))))
        else:
            under_way.append(meter.begin())
    while under_way:
        shares.append(meter.end(under_way.pop()))
    assert sum(shares) == pytest.approx(2 * busy)
    assert meter.flying == 0


@pytest.fixture
def pool(fake_pools: None, ended: None, model: str) -> Iterator[str]:
    pools.start(model)
    yield "pool/bytes"
    settings.reset()


def test_a_pool_with_a_price_an_hour_has_a_bill_and_without_one_it_is_not_known(pool):
    texts = [f"row {i}" for i in range(12)]
    unknown = holynb.infer(texts, pool, max_tokens=20, cache=False).wait(60)
    assert unknown.frame()["cost"].isna().all()
    assert "$" not in unknown.summary().line()
    settings.override(price={pool: {"per_device_hour": 3600}})  # a dollar a second
    began = time.monotonic()
    run = holynb.infer(texts, pool, max_tokens=20, cache=False, budget=0.000001).wait(60)
    elapsed = time.monotonic() - began
    costs = run.frame()["cost"]
    assert run.frame()["status"].eq("ok").all(), "a pool spends nothing of a budget"
    assert (costs > 0).all()
    assert costs.sum() <= elapsed
    assert costs.sum() >= run.frame()["latency_s"].max() / 4
    assert run.summary().unknown_cost == 0
    again = holynb.infer(texts, pool, max_tokens=20).wait(60)
    assert (again.frame()["cost"] > 0).all()
    assert holynb.infer(texts, pool, max_tokens=20).wait(60).frame()["cost"].eq(0).all(), "from the run log"
