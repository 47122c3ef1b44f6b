"""Rows to engines and outcomes back: lanes, one retry layer, failover, timeouts, cancellation. asyncio only; gets engines, imports none.

Every row ends exactly once. Waiting for a place happens in the pump, never in a lane, so one provider's 429 holds nothing that
another could use; whatever is left at the end, for whatever reason, is swept.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from holynb.errors import Fault
from holynb.journal import Journal
from holynb.station import Job, Station
from holynb.types import Completion, Done, Ended, Failed, Outcome, Paused, Request, Route, Started, Timeouts, Usage

__all__ = ["LONGEST_WAIT_S", "Job", "Policy", "Scheduler", "Station"]

#: A server that asks for more is not waited for: the row moves on or ends, saying until when (as the OpenAI SDK does).
LONGEST_WAIT_S = 120.0
#: How long the first request to an unproven key has the endpoint to itself: a refused key must cost one request, not ten thousand.
PROOF_S = 2.0
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0

Price = Callable[[Route, str | None, Usage], Decimal | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the run may do. `retries` counts attempts after the first that failed; waiting out a 429 is not one."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 3
    deadline: float | None = None
    grace: float = 3.0


class Scheduler:
    """Runs jobs to their ends. `run` once; `stop` and `expire` from the io loop. `error` holds a fault of ours, if one came up."""

    def __init__(self, stations: Mapping[Route, Station], policy: Policy, journal: Journal, price: Price) -> None:
        self.error: Exception | None = None
        self._stations = stations
        self._policy = policy
        self._journal = journal
        self._price = price
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._left = 0
        self._over = asyncio.Event()
        self._jobs: list[Job] = []
        self._why = Outcome("cancelled")
        self._stopping = False

    async def run(self, jobs: Sequence[Job]) -> None:
        """Send every job and return when each row has ended."""
        self._jobs, self._left = list(jobs), len(jobs)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._policy.deadline, self.expire) if self._policy.deadline else None
        try:
            for job in jobs:
                self._stations[job.chain[0]].put(job)
            self._pumps = [asyncio.create_task(self._pump(s)) for s in self._stations.values()]
            if jobs:
                await self._over.wait()
        finally:
            if timer:
                timer.cancel()
            await self._halt()
            await self._sweep()

    def stop(self, *, hard: bool = False) -> None:
        """No new requests; those in flight get the policy's grace, or none where `hard`."""
        self._stopping = True
        for pump in self._pumps:
            pump.cancel()
        if hard or not self._tasks:
            self._over.set()
        else:
            asyncio.get_running_loop().call_later(self._policy.grace, self._over.set)

    def expire(self) -> None:
        """The run's deadline has passed: what has not ended ends now, as an error that says so."""
        seconds = self._policy.deadline or 0
        self._why = Outcome("error", error_type="deadline", error=f"not answered within the run's deadline of {seconds:g} s (--deadline)")
        self.stop(hard=True)

    # -- one endpoint ----------------------------------------------------------------------------------------------
    async def _pump(self, station: Station) -> None:
        while True:
            # A place first, then a job: what is taken from the queue goes out at once, so a trip or a stop finds all that waits in it.
            await station.window.acquire()
            job = await station.next()
            if station.tripped:
                station.window.release()
                await self._fail(job, station, station.tripped)
                continue
            task = asyncio.create_task(self._serve(job, station))
            self._tasks[task] = job
            task.add_done_callback(self._landed)
            if not station.proof.is_set():
                await _within(station.proof.wait(), PROOF_S)
                station.proof.set()

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if self._stopping and not self._tasks:
            self._over.set()

    async def _serve(self, job: Job, station: Station) -> None:
        """One attempt, to whatever end."""
        try:
            await self._attempt(job, station)
        except Fault as fault:
            station.proof.set()
            self._count(job, station, fault.usage)
            await self._after(job, station, fault)
        except Exception as exc:  # noqa: BLE001 - a fault of ours must end its row and be seen, not hang the run
            self.error = self.error or exc
            await self._end(job, self._failure(job, station, Fault("internal", f"a fault in holynb: {type(exc).__name__}: {exc}")))
        finally:
            station.window.release()

    async def _attempt(self, job: Job, station: Station) -> None:
        job.attempts += 1
        row = job.request.row
        self._journal.append(Started(row, job.attempts, str(station.route), time.time()))
        sent = time.perf_counter()
        done, first = await self._listen(job.request, station)
        latency = time.perf_counter() - sent
        station.window.grew()
        self._count(job, station, done.completion.usage, done.completion.model)
        await self._end(job, _answered(job, station.route, done.completion, (latency, first - sent if first else None)))

    async def _listen(self, request: Request, station: Station) -> tuple[Done, float | None]:
        """The answer, and when its first text came. Content resets the silence clock; the engine's keep-alives do not reach it."""
        silence, row = self._policy.timeouts.silence, request.row
        done: Done | None = None
        first: float | None = None
        now = asyncio.get_running_loop().time
        stream = station.engine.send(request, self._policy.timeouts)
        try:
            async with asyncio.timeout(silence) as timer:
                async for item in stream:
                    station.proof.set()
                    if isinstance(item, Done):
                        done = item
                        continue
                    timer.reschedule(now() + silence)
                    if item.text:
                        first = first or time.perf_counter()
                        self._journal.say(row, item.text)
        except TimeoutError:
            if done is None:
                raise Fault("timeout", f"no content from {station.route} for {silence:g} s (--timeout)") from None
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        if done is None:
            raise Fault("truncated", f"{station.route} ended its answer early")
        return done, first

    # -- what follows a fault --------------------------------------------------------------------------------------
    async def _after(self, job: Job, station: Station, fault: Fault) -> None:
        """Wait and ask again, move on to the next route, or end the row."""
        wait = self._wait(job, fault)
        if wait is None or self._stopping:
            self._note(job, station, fault, None)
            if fault.stops or (fault.wait or 0) > LONGEST_WAIT_S:
                await self._trip(station, fault)
            await self._fail(job, station, fault)
            return
        self._note(job, station, fault, wait)
        if fault.kind == "rate_limit":
            station.window.limited(wait)
            self._journal.append(Paused(str(station.route), wait, fault.kind, time.time()))
            station.put(job, first=True)
        else:
            asyncio.get_running_loop().call_later(wait, station.put, job)

    def _wait(self, job: Job, fault: Fault) -> float | None:
        """Seconds until the same endpoint is asked again; None where it is not."""
        if not fault.retry or fault.stops or (fault.wait or 0) > LONGEST_WAIT_S:
            return None
        if fault.kind == "rate_limit":
            job.waits += 1
            return fault.wait if fault.wait is not None else self._backoff(job.waits)
        job.faults += 1
        if job.faults > self._policy.retries:
            return None
        return fault.wait if fault.wait is not None else self._backoff(job.faults)

    def _backoff(self, k: int) -> float:
        """Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""
        return self._rng.uniform(0, min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(k, 10)))

    async def _trip(self, station: Station, fault: Fault) -> None:
        """Nothing will succeed here any more: what waits for this endpoint moves on or ends at once, unsent."""
        station.tripped = fault
        for job in list(station.drain()):
            await self._fail(job, station, fault)

    async def _fail(self, job: Job, station: Station, fault: Fault) -> None:
        """This endpoint has failed the job: the next of its chain, or the end."""
        place = list(job.chain).index(station.route)
        for route in job.chain[place + 1 :]:
            if self._stations[route].tripped is None and not self._stopping:
                job.faults = job.waits = 0
                self._stations[route].put(job)
                return
        followers, job.followers = job.followers, []
        if fault.retry and followers and not self._stopping:
            # What failed by bad luck may succeed for the next row that asks the same; what the request itself causes will not.
            heir = Job(replace(job.request, row=followers[0]), job.chain, followers[1:])
            self._jobs.append(heir)
            self._left += 1
            self._stations[job.chain[0]].put(heir)
        else:
            job.followers = followers
        await self._end(job, self._failure(job, station, fault))

    def _failure(self, job: Job, station: Station, fault: Fault) -> Outcome:
        return Outcome(
            "error", error_type=fault.kind, error=fault.message, route=str(station.route), attempts=job.attempts, usage=job.usage,
            cost=job.cost,
        )  # fmt: skip

    def _note(self, job: Job, station: Station, fault: Fault, wait: float | None) -> None:
        self._journal.append(
            Failed(job.request.row, job.attempts, str(station.route), fault.kind, fault.message, time.time(), wait, fault.usage, fault.raw)
        )

    # -- ends ------------------------------------------------------------------------------------------------------
    def _count(self, job: Job, station: Station, usage: Usage | None, model: str | None = None) -> None:
        """Add an attempt's tokens and dollars to the row's."""
        if usage is None:
            return
        cost = self._price(station.route, model, usage)
        job.usage = job.usage + usage
        job.cost = cost if job.cost is None else job.cost if cost is None else job.cost + cost

    async def _end(self, job: Job, outcome: Outcome) -> None:
        """End the row and those that asked the same. Returns when the answer is on disk, so that a lane frees only then."""
        if self._journal.rows[job.request.row] is not None:
            return
        shared = replace(outcome, attempts=0, usage=Usage(), cost=None, cached=outcome.status == "ok")
        if shared.cached:
            shared = replace(shared, usage=outcome.usage, cost=Decimal(0))
        kept = [self._journal.append(Ended(job.request.row, outcome, time.time()))]
        kept += [self._journal.append(Ended(row, shared, time.time())) for row in job.followers]
        for promise in kept:
            if isinstance(promise, Awaitable):
                await promise
        self._left -= 1
        if self._left == 0:
            self._over.set()

    async def _halt(self) -> None:
        tasks = [*self._pumps, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        """Whatever has not ended ends here: cancelled, with the text it had, or out of time."""
        for job in self._jobs:
            for row in (job.request.row, *job.followers):
                if self._journal.rows[row] is None:
                    attempts = job.attempts if row == job.request.row else 0
                    text = self._journal.partial(row) if self._why.status == "cancelled" else None
                    route = str(job.chain[0]) if attempts else None
                    usage, cost = (job.usage, job.cost) if attempts else (Usage(), None)
                    self._journal.append(
                        Ended(row, replace(self._why, text=text, attempts=attempts, route=route, usage=usage, cost=cost), time.time())
                    )


def _answered(job: Job, route: Route, said: Completion, times: tuple[float, float | None]) -> Outcome:
    return Outcome(
        "ok", said.text, route=str(route), model=said.model, attempts=job.attempts, usage=job.usage, cost=job.cost, latency_s=times[0],
        ttft_s=times[1], finish_reason=said.finish_reason,
    )  # fmt: skip


async def _within(what: Awaitable[object], seconds: float) -> None:
    """Wait, but not longer than that. (`asyncio.wait_for` swallows a cancellation in Python 3.11 when both come in one tick.)"""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return
