"""The congestion window: slow start, halving at a 429, one place more a round trip after it, nothing while paused."""

from __future__ import annotations

import asyncio

from holynb.window import Window


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_slow_start_doubles_each_round_trip_to_the_cap():
    window = Window(64, start=16, clock=Clock())
    for _ in range(16):
        window.grew()
    assert window.size == 32
    for _ in range(100):
        window.grew()
    assert window.size == 64


def test_a_429_halves_once_for_all_that_were_in_flight_together():
    clock = Clock()
    window = Window(64, start=64, clock=clock)
    for _ in range(10):
        window.limited(1.0)
    assert window.size == 32
    clock.now += 2
    window.limited(1.0)
    assert window.size == 16


def test_after_a_429_it_grows_by_one_a_round_trip():
    window = Window(64, start=16, clock=Clock())
    window.limited(0.0)
    assert window.size == 8
    for _ in range(8):
        window.grew()
    assert 8.9 < window.size <= 9


def test_never_under_one():
    clock = Clock()
    window = Window(4, start=1, clock=clock)
    for _ in range(5):
        clock.now += 10
        window.limited(0.1)
    assert window.size == 1


def test_places_are_given_back_in_turn():
    async def main() -> list[str]:
        window, log = Window(1, start=1), []
        await window.acquire()

        async def second() -> None:
            await window.acquire()
            log.append("second in")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        log.append("first out")
        window.release()
        async with asyncio.timeout(5):
            await waiting
        return log

    assert asyncio.run(main()) == ["first out", "second in"]


def test_a_pause_holds_and_ends():
    async def main() -> float:
        window = Window(4)
        window.limited(0.15)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(5):
            await window.acquire()
        return loop.time() - began

    assert asyncio.run(main()) >= 0.14
