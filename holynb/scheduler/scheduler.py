"""Rows to engines and outcomes back: lanes, failover, timeouts, budget, cancellation. asyncio only; gets engines, imports none.

Every row ends exactly once. Waiting for a place happens in a station's pump, never in a lane, so one provider's 429 holds nothing that
another could use; whatever is left at the end, for whatever reason, is swept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from decimal import Decimal

from holynb.errors import Fault
from holynb.journal import Sink
from holynb.scheduler.attempt import Heard, InFlight, answer, answered, asked, failure, paid, unsent, within
from holynb.scheduler.budget import FREE, Money
from holynb.scheduler.failover import EndpointState, FailoverChain, Tier, WorkItem
from holynb.scheduler.limiter import Permit
from holynb.scheduler.retry import Policy, pause, too_long
from holynb.scheduler.validation import ResponseValidator
from holynb.types import Completion, Ended, Failed, Outcome, Paused, Started, Usage

__all__ = ["PROOF_S", "Scheduler"]

#: How long the first request to an unproven key has the endpoint to itself: a refused key must cost one request, not ten thousand.
PROOF_S = 2.0


class Scheduler:
    """Runs jobs to their ends. `run` once; `stop` and `expire` from the io loop. `error` holds a fault of ours, if one came up."""

    def __init__(self, stops: Sequence[Tier], policy: Policy, sink: Sink, money: Money, judge: ResponseValidator | None = None) -> None:
        self.error: Exception | None = None
        self._stops = FailoverChain(stops)
        self._policy = policy
        self._sink = sink
        self._money = money
        self._judge = judge
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumps: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self._left = 0
        self._over = asyncio.Event()
        self._jobs: list[WorkItem] = []
        self._why = Outcome("cancelled")
        self._stopping = False
        self._places = asyncio.Semaphore(policy.most or 1 << 30)
        stations = [station for s in stops for station in s.stations]
        if len(stations) == 1:
            stations[0].breaker.limit = 1 << 62  # nowhere else to go: rows end after their retries instead of waiting for a probe

    async def run(self, jobs: Sequence[WorkItem]) -> None:
        """Send every job and return when each row has ended."""
        self._jobs, self._left = list(jobs), len(jobs)
        timer = asyncio.get_running_loop().call_later(self._policy.deadline, self.expire) if self._policy.deadline else None
        try:
            for job in jobs:
                self._stops.place(job)
            self._pumps = [asyncio.create_task(self._pump(stop, station)) for stop in self._stops for station in stop.stations]
            for pump in self._pumps:
                pump.add_done_callback(self._pump_ended)
            if jobs:
                await self._over.wait()
        finally:
            if timer:
                timer.cancel()
            await self._halt()
            self._sweep()

    def add(self, job: WorkItem) -> bool:
        """One more job while the run goes on. False, and it is not taken, where nobody may be asked any more."""
        if placed := self._stops.place(job):
            self._jobs.append(job)
            self._left += 1
        return placed

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
        message = f"not answered within the run's deadline of {self._policy.deadline or 0:g} s (--deadline)"
        self._why = Outcome("error", error_type="deadline", error=message)
        self.stop(hard=True)

    # -- one endpoint ----------------------------------------------------------------------------------------------
    async def _pump(self, stop: Tier, station: EndpointState) -> None:
        # The place before the job: what is taken from the queue goes out at once, so a trip, a stop or an open circuit finds all
        # that waits in it; and a pause is waited out here, where it holds no lane.
        while station.tripped is None:
            await station.cool(time.monotonic)
            job = await stop.queue.first()
            if (ending := unsent(job, station, self._money)) is not None:
                stop.queue.pop()
                await self._end(job, ending)
                continue
            place = await station.limiter.acquire(station.size(asked(job, station, self._judge)))
            await self._places.acquire()
            taken = None
            if stop.queue and not station.tripped and not station.breaker.is_open(time.monotonic()):
                taken = await self._take(stop, station)
            if taken is None:
                self._release(station, place)
                continue
            station.probing = station.breaker.half_open(time.monotonic())
            task = asyncio.create_task(self._serve(taken[0], stop, station, InFlight(place, taken[1])))
            self._tasks.add(task)
            task.add_done_callback(self._landed)
            if not station.proof.is_set():
                await within(station.proof.wait(), PROOF_S)
                station.proof.set()

    async def _take(self, stop: Tier, station: EndpointState) -> tuple[WorkItem, Decimal] | None:
        """The next job and what is set aside for it; None where it is wanted no more or the budget has no room, and the row has ended."""
        job, budget = stop.queue.pop(), self._money.budget
        worst = self._money.worst(asked(job, station, self._judge), station.route) if budget else Decimal(0)
        if job.dropped is None and (budget is None or (worst is not None and await budget.reserve(worst))):
            return job, worst or Decimal(0)
        await self._end(job, unsent(job, station, self._money) or failure(job, station, self._money.refusal(worst)))
        return None

    def _release(self, station: EndpointState, place: Permit) -> None:
        station.limiter.release(place)
        self._places.release()

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._stopping and not self._tasks:
            self._over.set()

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        # A pump ends when its station is tripped or the run stops; anything else is a fault of ours and must not hang the run.
        if not pump.cancelled() and (exc := pump.exception()) is not None:
            self.error = exc if isinstance(exc, Exception) else RuntimeError(str(exc))
            self._over.set()

    async def _serve(self, job: WorkItem, stop: Tier, station: EndpointState, going: InFlight) -> None:
        """One attempt, to whatever end."""
        cost: Decimal | None = None
        try:
            done, times = await self._attempt(job, station)
            cost = self._count(job, station, done.completion)
            station.answered(done.completion.usage.tokens_out)
            station.limiter.ok(going.place, done.limits, _sum(done.completion.usage))
            self._recovered(stop, station)
            self._money.settle(going.worst, cost)
            await self._end(job, answered(job, station.route, done.completion, times))
        except asyncio.CancelledError:
            self._money.settle(going.worst, None)
            raise
        except Fault as fault:
            cost = self._count(job, station, fault) if fault.usage else Decimal(0) if fault.kind in FREE else None
            self._money.settle(going.worst, cost)
            await self._after(job, stop, station, fault, self._heard(station, fault, going.place))
        except Exception as exc:  # noqa: BLE001 - a fault of ours must end its row and be seen, not hang the run
            self.error = self.error or exc
            self._money.settle(going.worst, None)
            await self._end(job, failure(job, station, Fault("internal", f"a fault in holynb: {type(exc).__name__}: {exc}")))
        finally:
            self._release(station, going.place)

    async def _attempt(self, job: WorkItem, station: EndpointState) -> Heard:
        """Send, and listen to the end."""
        job.attempts += 1
        self._sink.append(Started(job.request.row, job.attempts, str(station.route), time.time()))
        return await answer(job, station, self._policy.timeouts, self._sink.say, self._judge)

    # -- what follows ----------------------------------------------------------------------------------------------
    def _recovered(self, stop: Tier, station: EndpointState) -> None:
        """An answer: an endpoint that was given up for a while gets its rows back."""
        station.proof.set()
        was_open = station.breaker.opened is not None
        station.breaker.succeeded()
        station.probing = False
        station.woken.set()
        if was_open:
            self._stops.call_back(stop, len(self._jobs))

    def _heard(self, station: EndpointState, fault: Fault, place: Permit) -> float | None:
        """Tell the limiter. Returns the pause that a 429 begins for everybody there, seconds; None for what begins none."""
        if fault.kind == "rate_limit" and not too_long(fault):
            return station.limiter.limited(place, fault.wait, fault.limits)
        station.limiter.failed(place, fault.limits)
        return None

    async def _after(self, job: WorkItem, stop: Tier, station: EndpointState, fault: Fault, paused: float | None) -> None:
        """Wait and ask again, move on to the next stop, or end the row."""
        station.proof.set()
        opened = station.breaker.failed(fault.kind, time.monotonic())
        station.probing = False
        station.woken.set()
        wait = None if self._stopping else paused if paused is not None else pause(job, fault, self._policy)
        self._sink.append(
            Failed(job.request.row, job.attempts, str(station.route), fault.kind, fault.message, time.time(), wait, fault.usage, fault.raw)
        )
        if wait is None:
            if fault.stops or too_long(fault):
                await self._trip(stop, station, fault)
            await self._fail(job, stop, station, fault)
        elif fault.kind == "rate_limit":
            self._sink.append(Paused(str(station.route), wait, fault.kind, time.time()))
            await self._again(job, stop, station, fault, first=True)
        else:
            later = asyncio.create_task(self._again(job, stop, station, fault, wait=wait, first=job.again is not None))
            self._waiting.add(later)
            later.add_done_callback(self._waiting.discard)
        if opened:
            asyncio.get_running_loop().call_later(station.breaker.cooldown, self._probe, stop)
            for waiting in list(stop.queue.drain()):
                await self._again(waiting, stop, station, fault)

    def _probe(self, stop: Tier) -> None:
        """The circuit is half-open: one row that would rather be here tries whether the endpoint is back."""
        if not stop.queue and not self._stopping:
            self._stops.call_back(stop, 1)

    async def _again(
        self, job: WorkItem, stop: Tier, station: EndpointState, fault: Fault, *, wait: float = 0.0, first: bool = False
    ) -> None:
        """Back into a queue: the front of its own where asked, else wherever may be asked now; the end where all have been tripped."""
        if wait:
            await asyncio.sleep(wait)
        if first and stop.tripped is None:
            stop.queue.put(job, first=True)
        elif not self._stops.place(job, f"{station.route}: {fault.message}"):
            await self._end(job, failure(job, station, stop.tripped or fault))

    async def _trip(self, stop: Tier, station: EndpointState, fault: Fault) -> None:
        """Nothing will succeed at this endpoint any more: what waits for it alone moves on or ends at once, unsent."""
        station.tripped = fault
        if stop.tripped:
            for job in list(stop.queue.drain()):
                await self._fail(job, stop, station, fault)

    async def _fail(self, job: WorkItem, stop: Tier, station: EndpointState, fault: Fault) -> None:
        """This endpoint has failed the job: another station of the stop, the next stop of its chain, or the end."""
        if fault.stops and stop.tripped is None and not self._stopping:
            stop.queue.put(job, first=True)
            return
        job.given_up.add(stop.name)
        job.faults = 0
        if not self._stopping and self._stops.place(job, f"{station.route}: {fault.message}"):
            return
        if fault.retry and job.followers and not self._stopping:
            # What failed by bad luck may succeed for the next row that asks the same; what the request itself causes will not.
            heir, job.followers = WorkItem(replace(job.request, row=job.followers[0]), job.chain, job.followers[1:]), []
            self.add(heir)
        await self._end(job, failure(job, station, fault))

    # -- ends ------------------------------------------------------------------------------------------------------
    def _count(self, job: WorkItem, station: EndpointState, said: Completion | Fault) -> Decimal | None:
        """Add an attempt's tokens and dollars to the row's and to what was paid today; returns the dollars."""
        bill = paid(job, station.route, self._money, said)
        self._sink.pay(bill)
        return bill.cost

    async def _end(self, job: WorkItem, outcome: Outcome) -> None:
        """End the row and those that asked the same. Returns when the answer is on disk, so that a lane frees only then."""
        if self._sink.rows[job.request.row] is not None:
            return
        kept = [self._sink.append(Ended(job.request.row, outcome, time.time()))]
        if job.followers:
            fine = outcome.status == "ok"
            usage, cost = (outcome.usage, Decimal(0)) if fine else (Usage(), None)
            shared = replace(outcome, attempts=0, usage=usage, cost=cost, cached=fine)
            kept += [self._sink.append(Ended(row, shared, time.time())) for row in job.followers]
        for promise in kept:
            if isinstance(promise, Awaitable):
                await promise
        self._left -= 1
        if self._left == 0:
            self._over.set()

    async def _halt(self) -> None:
        for task in (tasks := [*self._pumps, *self._waiting, *self._tasks]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _sweep(self) -> None:
        """Whatever has not ended ends here: cancelled, with the text it had, or out of time."""
        for job in self._jobs:
            for row in (job.request.row, *job.followers):
                if self._sink.rows[row] is None:
                    asked = {"route": str(job.request.route), "attempts": job.attempts, "usage": job.usage, "cost": job.cost}
                    ending = replace(self._why, **asked if row == job.request.row and job.attempts else {})  # type: ignore[arg-type]
                    said = self._sink.partial(row) if ending.status == "cancelled" else None
                    self._sink.append(Ended(row, replace(ending, text=said), time.time()))


def _sum(usage: Usage) -> int | None:
    """Tokens in and out; None where the server did not say."""
    return None if usage.tokens_in is None or usage.tokens_out is None else usage.tokens_in + usage.tokens_out
