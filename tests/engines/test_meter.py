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
    assert meter.in_flight == 0


@pytest.fixture
def pool(fake_pools: None, ended: None, model: str) -> Iterator[str]:
    pools.start(model)
    yield "pool/bytes"
    settings.reset()


class WatchedMeter(Meter):
    """Keeps when each request began and ended, as the instants just around the meter's own reading of the clock."""

    begun: list[tuple[float, float]] = []  # noqa: RUF012 - of all meters of this process
    ended: list[tuple[float, float]] = []  # noqa: RUF012

    def begin(self) -> float:
        before = time.monotonic()
        token = super().begin()
        self.begun.append((before, time.monotonic()))
        return token

    def end(self, began: float) -> float:
        before = time.monotonic()
        share = super().end(began)
        self.ended.append((before, time.monotonic()))
        return share

    @classmethod
    def busy(cls, *, outer: bool) -> float:
        """Seconds in which any request was in flight: at most (`outer`), or at least."""
        marks = sorted([(t[0 if outer else 1], 1) for t in cls.begun] + [(t[1 if outer else 0], -1) for t in cls.ended])
        seconds, in_flight, last = 0.0, 0, 0.0
        for at, change in marks:
            seconds += at - last if in_flight > 0 else 0.0
            in_flight, last = in_flight + change, at
        return seconds


def test_a_pool_with_a_price_an_hour_has_a_bill_and_without_one_it_is_not_known(pool, monkeypatch):
    monkeypatch.setattr("holynb.engines.pool.Meter", WatchedMeter)
    texts = [f"row {i}" for i in range(12)]
    unknown = holynb.infer(texts, pool, max_tokens=20, cache=False).wait(60)
    assert unknown.frame()["cost"].isna().all()
    assert "$" not in unknown.summary().line()
    settings.override(price={pool: {"per_device_hour": 3600}})  # a dollar a second
    WatchedMeter.begun.clear()
    WatchedMeter.ended.clear()
    began = time.monotonic()
    run = holynb.infer(texts, pool, max_tokens=20, cache=False, budget=0.000001).wait(60)
    elapsed = time.monotonic() - began
    costs = run.frame()["cost"]
    assert run.frame()["status"].eq("ok").all(), "a pool spends nothing of a budget"
    assert (costs > 0).all()
    assert costs.sum() <= elapsed
    assert len(WatchedMeter.begun) == len(WatchedMeter.ended) == len(texts)
    assert WatchedMeter.busy(outer=False) <= costs.sum() + 1e-6, "all the time in which any row was at work"
    assert costs.sum() <= WatchedMeter.busy(outer=True) + 1e-6, "and no other"
    assert run.summary().unknown_cost == 0
    again = holynb.infer(texts, pool, max_tokens=20).wait(60)
    assert (again.frame()["cost"] > 0).all()
    assert holynb.infer(texts, pool, max_tokens=20).wait(60).frame()["cost"].eq(0).all(), "from the run log"
