"""Rows through a limiter to a server that refuses some of them, on a virtual clock; and an oracle that knows which are refused by chance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from servers import virtual
from servers.virtual import Quota

from holynb.scheduler.limiter import Limiter, Pause, Permit


@dataclass
class Result:
    """seconds: until the last answer. most: requests in flight."""

    seconds: float
    answered: int
    most: int


def limiter(**options: Any) -> Limiter:
    loop = asyncio.get_running_loop()
    gate = Limiter(clock=loop.time, **options)
    gate.rng = loop.rng  # type: ignore[attr-defined]
    return gate


def drive(quota: Quota, rows: int, *, tokens: Callable[[int], int] = lambda row: 1, runs: int = 1, **options: Any) -> Result:
    """All rows through one limiter, by so many runs at once."""

    async def main() -> Result:
        return await through([limiter(**options)] * runs, quota, rows, tokens)

    return virtual.run(main)


async def through(
    gates: Sequence[Limiter], quota: Quota, rows: int, tokens: Callable[[int], int] = lambda row: 1, *, alike: bool = True
) -> Result:
    """As the scheduler does it: a refused row is first in the queue again, after its own wait unless all pause.

    alike: the gates share one queue; else each has its part of the rows, as two processes have.
    """
    loop = asyncio.get_running_loop()
    start, answered, most = loop.time(), 0, 0
    tasks: set[asyncio.Task[None]] = set()
    parts = [list(range(rows))] * len(gates) if alike else [list(range(i, rows, len(gates))) for i in range(len(gates))]
    refusals = dict.fromkeys(range(rows), 0)
    changed = asyncio.Event()

    async def serve(gate: Limiter, queue: list[int], row: int, permit: Permit) -> None:
        nonlocal answered
        ok, wait, limits = await quota.ask(tokens(row))
        pause = Pause(0.0, shared=True)
        if ok:
            answered += 1
            gate.on_success(permit, limits)
        else:
            refusals[row] += 1
            pause = gate.on_rate_limit(permit, wait, limits, refusals[row])
        gate.release(permit)
        if not ok:
            if not pause.shared:
                await asyncio.sleep(pause.seconds)
            queue.insert(0, row)
        changed.set()

    async def dispatch(gate: Limiter, queue: list[int]) -> None:
        nonlocal most
        while answered < rows:
            if not queue:
                changed.clear()
                await changed.wait()
                continue
            permit = await gate.acquire(tokens(queue[0]))
            if not queue:
                gate.release(permit)
                continue
            task = asyncio.create_task(serve(gate, queue, queue.pop(0), permit))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            most = max(most, gate.in_flight)

    async with asyncio.timeout(36000):
        await asyncio.gather(*(dispatch(gate, queue) for gate, queue in zip(gates, parts, strict=True)))
    assert not tasks
    assert all(gate.in_flight == 0 for gate in gates)
    return Result(loop.time() - start, answered, most)


def oracle(quota: Quota, rows: int, *, at_once: int = 64) -> float:
    """Seconds that it takes who knows that every refusal is by chance: so many at once, a refused row waits its own time, nobody else does.

    Where no wait is told, as the OpenAI SDK waits: half a second, doubled each time up to eight, less up to a quarter.
    """
    rng = random.Random(quota.seed)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        start, slots = loop.time(), asyncio.Semaphore(at_once)

        async def one() -> None:
            refused = 0
            while True:
                async with slots:
                    ok, wait, _ = await quota.ask()
                if ok:
                    return
                await asyncio.sleep(min(8.0, 0.5 * 2**refused) * rng.uniform(0.75, 1.0) if wait is None else wait)
                refused += 1

        await asyncio.gather(*(one() for _ in range(rows)))
        return loop.time() - start

    return virtual.run(main)


def against_oracle(share: float, retry_after: float | None, latency: float, seed: int, rows: int = 300) -> float:
    """How much longer `rows` take through a fresh limiter than they take the oracle, of whom a share is refused by chance."""

    def server() -> Quota:
        told = None if retry_after is None else "slot"
        return Quota(10_000_000, headers=False, retry_after=told, latency=latency, moods=share, mood_wait=retry_after, seed=seed)

    return drive(server(), rows, start=16).seconds / oracle(server(), rows)
