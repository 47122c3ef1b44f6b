"""Rows to engines and outcomes back: permits, failover, timeouts, budget, cancellation. asyncio only; gets engines, imports none.

Every row ends exactly once. A dispatcher waits for its endpoint's permit before it takes an in-flight slot, so that a 429 holds no slot
that another endpoint could use; rows left at the end, for whatever reason, are ended there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from decimal import Decimal

from holynb.errors import Fault
from holynb.journal import EventSink
from holynb.scheduler import attempt
from holynb.scheduler.attempt import InFlight
from holynb.scheduler.budget import UNBILLED_KINDS, Money
from holynb.scheduler.failover import EndpointState, FailoverChain, Tier, WorkItem
from holynb.scheduler.limiter import Pause, Permit
from holynb.scheduler.retry import Policy, exceeds_max_wait, retry_delay
from holynb.scheduler.validation import ResponseValidator
from holynb.types import Completion, Ended, Outcome, Paused, Started, Usage

__all__ = ["Scheduler"]

#: How long the first request with an unverified key has the endpoint to itself: a refused key must cost one request, not ten thousand.
VERIFY_WAIT_S = 2.0


class Scheduler:
    """Runs items to their ends. Call `run` once, `add` and `stop` on the io loop. `error` holds an internal error, if there was one."""

    def __init__(
        self, tiers: Sequence[Tier], policy: Policy, sink: EventSink, money: Money, validator: ResponseValidator | None = None
    ) -> None:
        self.error: Exception | None = None
        self._tiers = FailoverChain(tiers)
        self._policy = policy
        self._sink = sink
        self._money = money
        self._validator = validator
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatchers: list[asyncio.Task[None]] = []
        self._delayed: set[asyncio.Task[None]] = set()
        self._remaining = 0
        self._finished = asyncio.Event()
        self._items: list[WorkItem] = []
        self._unfinished_outcome = Outcome("cancelled")
        self._stopping = False
        self._slots = asyncio.Semaphore(policy.max_in_flight or 1 << 30)
        endpoints = [endpoint for tier in tiers for endpoint in tier.endpoints]
        if len(endpoints) == 1:
            endpoints[0].breaker.limit = 1 << 62  # nowhere else to go: rows end after their retries instead of waiting for a probe

    async def run(self, items: Sequence[WorkItem]) -> None:
        """Send every item and return when each row has ended."""
        self._items, self._remaining = list(items), len(items)
        timer = asyncio.get_running_loop().call_later(self._policy.deadline, self.on_deadline) if self._policy.deadline else None
        try:
            for item in items:
                self._tiers.enqueue(item)
            self._dispatchers = [asyncio.create_task(self._dispatch(tier, endpoint)) for tier in self._tiers for endpoint in tier.endpoints]
            for dispatcher in self._dispatchers:
                dispatcher.add_done_callback(self._dispatcher_ended)
            if items:
                await self._finished.wait()
        finally:
            if timer:
                timer.cancel()
            await self._cancel_tasks()
            self._end_unfinished()

    def add(self, item: WorkItem) -> bool:
        """Add an item during the run. Returns False, and does not take it, where no tier of its chain is left."""
        if placed := self._tiers.enqueue(item):
            self._items.append(item)
            self._remaining += 1
        return placed

    def stop(self, *, hard: bool = False) -> None:
        """No new requests; those in flight get the policy's grace, or none where `hard`."""
        self._stopping = True
        for dispatcher in self._dispatchers:
            dispatcher.cancel()
        if hard or not self._tasks:
            self._finished.set()
        else:
            asyncio.get_running_loop().call_later(self._policy.grace, self._finished.set)

    def on_deadline(self) -> None:
        """End every unfinished row now, as an error of kind `deadline`."""
        message = f"not answered within the run's deadline of {self._policy.deadline or 0:g} s (--deadline)"
        self._unfinished_outcome = Outcome("error", error_type="deadline", error=message)
        self.stop(hard=True)

    # -- one endpoint ----------------------------------------------------------------------------------------------
    async def _dispatch(self, tier: Tier, endpoint: EndpointState) -> None:
        # The permit before the item: what is taken from the queue is sent at once, so a fatal fault, a stop or an open circuit finds
        # everything that waits in the queue; and a pause is waited out here, where it holds no slot.
        while endpoint.fatal is None:
            await endpoint.wait_until_available(time.monotonic)
            item = await tier.queue.first()
            if (outcome := attempt.unsent_outcome(item, endpoint, self._money)) is not None:
                tier.queue.pop()
                await self._end(item, outcome)
                continue
            permit = await endpoint.limiter.acquire(endpoint.estimate_tokens(attempt.request_for(item, endpoint, self._validator)))
            await self._slots.acquire()
            taken = None
            if tier.queue and not endpoint.fatal and not endpoint.breaker.is_open(time.monotonic()):
                taken = await self._take_next(tier, endpoint)
            if taken is None:
                self._release(endpoint, permit)
                continue
            endpoint.probing = endpoint.breaker.half_open(time.monotonic())
            task = asyncio.create_task(self._run_attempt(taken[0], tier, endpoint, InFlight(permit, taken[1])))
            self._tasks.add(task)
            task.add_done_callback(self._attempt_ended)
            if not endpoint.verified.is_set():
                await attempt.wait_at_most(endpoint.verified.wait(), VERIFY_WAIT_S)
                endpoint.verified.set()

    async def _take_next(self, tier: Tier, endpoint: EndpointState) -> tuple[WorkItem, Decimal] | None:
        """The next item and the dollars reserved for it; None where it was dropped or exceeds the budget, and its row has ended."""
        item, budget = tier.queue.pop(), self._money.budget
        worst_case = self._money.worst_case(attempt.request_for(item, endpoint, self._validator), endpoint.route) if budget else Decimal(0)
        if item.dropped is None and (budget is None or (worst_case is not None and await budget.reserve(worst_case))):
            return item, worst_case or Decimal(0)
        dropped = attempt.unsent_outcome(item, endpoint, self._money)
        await self._end(item, dropped or attempt.error_outcome(item, endpoint, self._money.refusal(worst_case)))
        return None

    def _release(self, endpoint: EndpointState, permit: Permit) -> None:
        endpoint.limiter.release(permit)
        self._slots.release()

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._stopping and not self._tasks:
            self._finished.set()

    def _dispatcher_ended(self, dispatcher: asyncio.Task[None]) -> None:
        # A dispatcher ends when its endpoint has a fatal fault or the run stops; anything else is a bug of ours and must not hang the run.
        if not dispatcher.cancelled() and (exc := dispatcher.exception()) is not None:
            self.error = exc if isinstance(exc, Exception) else RuntimeError(str(exc))
            self._finished.set()

    async def _run_attempt(self, item: WorkItem, tier: Tier, endpoint: EndpointState, in_flight: InFlight) -> None:
        """One attempt and what follows from its result."""
        try:
            item.attempts += 1
            self._sink.append(Started(item.request.row, item.attempts, str(endpoint.route), time.time()))
            done, times = await attempt.run(item, endpoint, self._policy.timeouts, self._sink.append_text, self._validator)
            cost = self._record_usage(item, endpoint, done.completion)
            endpoint.record_answer(done.completion.usage.tokens_out)
            endpoint.limiter.on_success(in_flight.permit, done.limits, attempt.total_tokens(done.completion.usage))
            self._close_circuit(tier, endpoint)
            self._money.settle(in_flight.reserved, cost)
            await self._end(item, attempt.ok_outcome(item, endpoint.route, done.completion, times))
        except asyncio.CancelledError:
            self._money.settle(in_flight.reserved, None)
            raise
        except Fault as fault:
            cost = self._record_usage(item, endpoint, fault) if fault.usage else Decimal(0) if fault.kind in UNBILLED_KINDS else None
            self._money.settle(in_flight.reserved, cost)
            await self._handle_fault(item, tier, endpoint, fault, self._report_fault(item, endpoint, fault, in_flight.permit))
        except Exception as exc:  # noqa: BLE001 - a fault of ours must end its row and be seen, not hang the run
            self.error = self.error or exc
            self._money.settle(in_flight.reserved, None)
            internal = Fault("internal", f"a fault in holynb: {type(exc).__name__}: {exc}")
            await self._end(item, attempt.error_outcome(item, endpoint, internal))
        finally:
            self._release(endpoint, in_flight.permit)

    # -- what follows ----------------------------------------------------------------------------------------------
    def _close_circuit(self, tier: Tier, endpoint: EndpointState) -> None:
        """Close the circuit after an answer; an endpoint whose circuit was open gets its rows back."""
        endpoint.verified.set()
        was_open = endpoint.breaker.opened_at is not None
        endpoint.breaker.record_success()
        endpoint.probing = False
        endpoint.changed.set()
        if was_open:
            self._tiers.reclaim(tier, len(self._items))

    def _report_fault(self, item: WorkItem, endpoint: EndpointState, fault: Fault, permit: Permit) -> Pause | None:
        """Report the fault to the limiter. Returns what follows from a 429; None for any other fault."""
        if fault.kind == "rate_limit" and not exceeds_max_wait(fault):
            item.refusals += 1
            return endpoint.limiter.on_rate_limit(permit, fault.wait, fault.limits, item.refusals)
        item.refusals = 0
        endpoint.limiter.on_error(permit, fault.limits)
        return None

    async def _handle_fault(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, pause: Pause | None) -> None:
        """Retry after a wait, fail over to the next tier, or end the row."""
        endpoint.verified.set()
        opened = endpoint.breaker.record_failure(fault.kind, time.monotonic())
        endpoint.probing = False
        endpoint.changed.set()
        wait = None if self._stopping else pause.seconds if pause else retry_delay(item, fault, self._policy)
        self._sink.append(attempt.failed_event(item, endpoint, fault, wait))
        if wait is None:
            if fault.stops or exceeds_max_wait(fault):
                await self._disable(tier, endpoint, fault)
            await self._fail_over(item, tier, endpoint, fault)
        elif pause is not None and pause.shared:
            self._sink.append(Paused(str(endpoint.route), wait, fault.kind, time.time()))
            await self._requeue(item, tier, endpoint, fault, first=True)
        else:
            later = asyncio.create_task(
                self._requeue(item, tier, endpoint, fault, wait=wait, first=pause is not None or item.repair_messages is not None)
            )
            self._delayed.add(later)
            later.add_done_callback(self._delayed.discard)
        if opened:
            asyncio.get_running_loop().call_later(endpoint.breaker.cooldown, self._probe, tier)
            for waiting in list(tier.queue.drain()):
                await self._requeue(waiting, tier, endpoint, fault)

    def _probe(self, tier: Tier) -> None:
        """The circuit is half-open: move one row that prefers this tier back to it, as the probe."""
        if not tier.queue and not self._stopping:
            self._tiers.reclaim(tier, 1)

    async def _requeue(
        self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, *, wait: float = 0.0, first: bool = False
    ) -> None:
        """Back into a queue: the front of its own where `first`, else its first available tier; end the row where none is left."""
        if wait:
            await asyncio.sleep(wait)
        if first and tier.fatal is None:
            tier.queue.put(item, first=True)
        elif not self._tiers.enqueue(item, f"{endpoint.route}: {fault.message}"):
            await self._end(item, attempt.error_outcome(item, endpoint, tier.fatal or fault))

    async def _disable(self, tier: Tier, endpoint: EndpointState, fault: Fault) -> None:
        """Send nothing more to this endpoint; where its tier has no other, what waits there fails over or ends, unsent."""
        endpoint.fatal = fault
        if tier.fatal:
            for item in list(tier.queue.drain()):
                await self._fail_over(item, tier, endpoint, fault)

    async def _fail_over(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault) -> None:
        """Move the item to another endpoint of the tier or to the next tier of its chain, or end it."""
        if fault.stops and tier.fatal is None and not self._stopping:
            tier.queue.put(item, first=True)
            return
        item.exhausted_tiers.add(tier.name)
        item.faults = 0
        if not self._stopping and self._tiers.enqueue(item, f"{endpoint.route}: {fault.message}"):
            return
        if fault.retry and item.followers and not self._stopping:
            # A retryable fault need not hit the next row with the same request; one that the request itself causes will.
            successor, item.followers = WorkItem(replace(item.request, row=item.followers[0]), item.chain, item.followers[1:]), []
            self.add(successor)
        await self._end(item, attempt.error_outcome(item, endpoint, fault))

    # -- ends ------------------------------------------------------------------------------------------------------
    def _record_usage(self, item: WorkItem, endpoint: EndpointState, result: Completion | Fault) -> Decimal | None:
        """Add an attempt's tokens and dollars to the item's, and record the payment. Returns the dollars."""
        payment = attempt.record_usage(item, endpoint.route, self._money, result)
        self._sink.record_payment(payment)
        return payment.cost

    async def _end(self, item: WorkItem, outcome: Outcome) -> None:
        """End the row and its followers. Returns when the answer is on disk, so that the permit is released only then."""
        if self._sink.rows[item.request.row] is not None:
            return
        writes = [self._sink.append(Ended(item.request.row, outcome, time.time()))]
        if item.followers:
            ok = outcome.status == "ok"
            usage, cost = (outcome.usage, Decimal(0)) if ok else (Usage(), None)
            shared = replace(outcome, attempts=0, usage=usage, cost=cost, cached=ok)
            writes += [self._sink.append(Ended(row, shared, time.time())) for row in item.followers]
        for write in writes:
            if isinstance(write, Awaitable):
                await write
        self._remaining -= 1
        if self._remaining == 0:
            self._finished.set()

    async def _cancel_tasks(self) -> None:
        for task in (tasks := [*self._dispatchers, *self._delayed, *self._tasks]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end_unfinished(self) -> None:
        """End every row that has not ended: cancelled with its partial text, or past the deadline."""
        for item in self._items:
            for row in (item.request.row, *item.followers):
                if self._sink.rows[row] is None:
                    outcome = self._unfinished_outcome
                    if row == item.request.row and item.attempts:
                        outcome = replace(outcome, route=str(item.request.route), attempts=item.attempts, usage=item.usage, cost=item.cost)
                    text = self._sink.partial_text(row) if outcome.status == "cancelled" else None
                    self._sink.append(Ended(row, replace(outcome, text=text), time.time()))
