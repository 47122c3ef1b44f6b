"""Rows to engines and outcomes back: permits, attempts, budget, deadline, cancellation. asyncio only; gets engines, imports none.

Every row ends exactly once. A dispatcher waits for its endpoint's permit before it takes an in-flight slot, so that a 429 holds no slot
that another endpoint could use; rows left at the end, for whatever reason, are ended there. What follows a fault is `recovery`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal

from holynb.errors import Fault
from holynb.events import Started
from holynb.faults import UNBILLED_KINDS
from holynb.journal import EventSink
from holynb.scheduler import attempt
from holynb.scheduler.attempt import InFlight, TimedAnswer
from holynb.scheduler.breaker import ABSENT_KINDS
from holynb.scheduler.budget import Money
from holynb.scheduler.ends import RowEnds
from holynb.scheduler.failover import EndpointState, FailoverChain, Tier, WorkItem
from holynb.scheduler.limiter import Permit
from holynb.scheduler.queues import Backlog
from holynb.scheduler.recovery import Recovery
from holynb.scheduler.retry import Policy
from holynb.scheduler.validation import ResponseValidator
from holynb.scheduler.waiting import within
from holynb.types import Completion, Outcome

__all__ = ["Scheduler"]

#: How long the first request with an unverified key has the endpoint to itself: a refused key must cost one request, not ten thousand.
VERIFY_WAIT_S = 2.0


class Scheduler:
    """Runs items to their ends. Call `run` once, `add` and `stop` on the io loop. `error` holds an internal error, if there was one."""

    def __init__(
        self, tiers: Sequence[Tier], policy: Policy, sink: EventSink, money: Money, validator: ResponseValidator | None = None
    ) -> None:
        self.error: Exception | None = None
        self._rows = RowEnds(sink)
        self._tiers = FailoverChain(tiers)
        self._recovery = Recovery(self._tiers, self._rows, policy, sink)
        self._policy = policy
        self._sink = sink
        self._money = money
        self._validator = validator
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatchers: list[asyncio.Task[None]] = []
        self._past_deadline = False
        self._slots = asyncio.Semaphore(policy.max_in_flight or 1 << 30)
        for endpoint in (e for tier in tiers for e in tier.endpoints):
            endpoint.breaker.scale = policy.backoff_scale

    async def run(self, items: Sequence[WorkItem], backlogs: Sequence[Backlog] = ()) -> None:
        """Send every item, and those of the backlogs as there is room, and return when each row has ended.

        A backlog's items that are not made by then have not ended: `unsent_outcome` says how they do.
        """
        self._rows.add(items)
        self._rows.expect(sum(b.left for b in backlogs))
        self._tiers.supply(backlogs, self._rows.begin)
        self._find_lone_tiers({tuple(chain) for chain in (*(i.chain for i in items), *(b.chain for b in backlogs))})
        timer = asyncio.get_running_loop().call_later(self._policy.deadline, self.on_deadline) if self._policy.deadline else None
        try:
            for item in items:
                self._tiers.enqueue(item)
            self._dispatchers = [asyncio.create_task(self._dispatch(tier, endpoint)) for tier in self._tiers for endpoint in tier.endpoints]
            for dispatcher in self._dispatchers:
                dispatcher.add_done_callback(self._dispatcher_ended)
            if self._rows.remaining:
                await self._rows.finished.wait()
        finally:
            if timer:
                timer.cancel()
            self._recovery.close()
            await self._cancel_tasks()
            self._rows.end_unfinished(self._unfinished_outcome)

    def add(self, item: WorkItem) -> bool:
        """Add an item during the run. Returns False, and does not take it, where no tier of its chain is left."""
        if placed := self._tiers.enqueue(item):
            self._rows.add([item])
        return placed

    def stop(self, *, hard: bool = False) -> None:
        """No new requests; those in flight get the policy's grace, or none where `hard`."""
        self._recovery.stopping = True
        for dispatcher in self._dispatchers:
            dispatcher.cancel()
        if hard or not self._tasks:
            self._rows.finished.set()
        else:
            asyncio.get_running_loop().call_later(self._policy.grace, self._rows.finished.set)

    def on_deadline(self) -> None:
        """End every unfinished row now, as an error of kind `deadline`."""
        self._past_deadline = True
        self.stop(hard=True)

    def unsent_outcome(self) -> Outcome:
        """How a row of a backlog ends that was not made by the end."""
        return Outcome("error", error_type="deadline", error=self._too_late()) if self._past_deadline else Outcome("cancelled")

    def _too_late(self) -> str:
        return f"not answered within the run's deadline of {self._policy.deadline or 0:g} s (--deadline)"

    def _unfinished_outcome(self, item: WorkItem) -> Outcome:
        """How a row ends that the run ended without: cancelled, or past the deadline with what failed last."""
        if not self._past_deadline:
            return Outcome("cancelled")
        message = self._too_late()
        if item.last_fault is not None:
            message += f"; last: {item.last_fault}"
        elif (last := self._tiers.last_fault(item)) is not None:
            message += f"; last of {last[0]}: {last[1]}"
        return Outcome("error", error_type="deadline", error=message)

    def _find_lone_tiers(self, chains: Iterable[tuple[str, ...]]) -> None:
        """Whose rows have nowhere else to go: there, only a server that is gone or silent opens the circuit."""
        chained = {name for chain in chains if len(chain) > 1 for name in chain}
        for tier in self._tiers:
            if len(tier.endpoints) == 1 and tier.name not in chained:
                tier.endpoints[0].breaker.kinds = ABSENT_KINDS

    # -- one endpoint ----------------------------------------------------------------------------------------------
    async def _dispatch(self, tier: Tier, endpoint: EndpointState) -> None:
        # The permit before the item: what is taken from the queue is sent at once, so a fatal fault, a stop or an open circuit finds
        # everything that waits in the queue; and a pause is waited out here, where it holds no slot.
        while endpoint.fatal is None:
            item = await tier.queue.first()
            if tier.sends_at(endpoint) is not None:
                await tier.wait_until_available(endpoint)
                if endpoint.fatal or not tier.queue:
                    continue
                item = await tier.queue.first()
            if (outcome := attempt.unsent_outcome(item, endpoint, self._money)) is not None:
                tier.queue.pop()
                await self._rows.end_soon(item, outcome)
                continue
            tokens = endpoint.tokens.of(attempt.request_for(item, endpoint, self._validator))
            permit = await endpoint.limiter.acquire(tokens, self._recovery.patience(item, tier, endpoint))
            if permit is None:
                await self._recovery.out_of_quota(item, tier, endpoint, endpoint.limiter.quota_wait(tokens))
                continue
            await self._slots.acquire()
            taken = None
            if tier.queue and not endpoint.fatal and tier.may_send(endpoint):
                taken = await self._take_next(tier, endpoint)
            if taken is None:
                self._release(endpoint, permit)
                continue
            endpoint.probing = endpoint.breaker.is_open
            task = asyncio.create_task(self._run_attempt(taken[0], tier, endpoint, InFlight(permit, taken[1], endpoint.probing)))
            self._tasks.add(task)
            task.add_done_callback(self._attempt_ended)
            if endpoint.cache is not None:
                await endpoint.cache.hold()
            if not endpoint.verified.is_set():
                await within(endpoint.verified.wait(), VERIFY_WAIT_S)
                endpoint.verified.set()

    async def _take_next(self, tier: Tier, endpoint: EndpointState) -> tuple[WorkItem, Decimal] | None:
        """The next item and the dollars reserved for it; None where it was dropped or exceeds the budget, and its row has ended."""
        item, budget = tier.queue.pop(), self._money.budget
        attempt.take_mark(item, tier, endpoint, self._validator)
        worst_case = self._money.worst_case(attempt.request_for(item, endpoint, self._validator), endpoint.route) if budget else Decimal(0)
        if item.dropped is None and (budget is None or (worst_case is not None and await budget.reserve(worst_case))):
            return item, worst_case or Decimal(0)
        endpoint.settle_mark(item, None)
        dropped = attempt.unsent_outcome(item, endpoint, self._money)
        await self._rows.end_soon(item, dropped or attempt.error_outcome(item, endpoint, self._money.refusal(worst_case)))
        return None

    def _release(self, endpoint: EndpointState, permit: Permit) -> None:
        endpoint.limiter.release(permit)
        self._slots.release()

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._recovery.stopping and not self._tasks:
            self._rows.finished.set()

    def _dispatcher_ended(self, dispatcher: asyncio.Task[None]) -> None:
        # A dispatcher ends when its endpoint has a fatal fault or the run stops; anything else is a bug of ours and must not hang the run.
        if not dispatcher.cancelled() and (exc := dispatcher.exception()) is not None:
            self.error = exc if isinstance(exc, Exception) else RuntimeError(str(exc))
            self._rows.finished.set()

    async def _run_attempt(self, item: WorkItem, tier: Tier, endpoint: EndpointState, in_flight: InFlight) -> None:
        """One attempt and what follows from its result."""
        cost: Decimal | None = None
        try:
            pieces = attempt.Pieces(self._sink.append_text, self._sink.append_thoughts)
            pieces = self._recovery.probe_sent(tier, endpoint, pieces) if in_flight.probe else pieces
            done, times = await self._send(item, endpoint, pieces)
            endpoint.settle_mark(item, done.completion)
            cost = self._record_usage(item, endpoint, done.completion)
            sent = attempt.request_for(item, endpoint, self._validator) if endpoint.tokens.wants_prompts else None
            endpoint.tokens.record(done.completion.usage, sent)
            endpoint.limiter.on_success(in_flight.permit, done.limits, attempt.total_tokens(done.completion.usage))
            self._recovery.answered(tier, endpoint)
            self._money.settle(in_flight.reserved, cost)
            await self._rows.end(item, attempt.ok_outcome(item, endpoint.route, done.completion, times))
        except asyncio.CancelledError:
            self._money.settle(in_flight.reserved, None)
            raise
        except Fault as fault:
            endpoint.settle_mark(item, fault)
            cost = self._record_usage(item, endpoint, fault) if fault.usage else Decimal(0) if fault.kind in UNBILLED_KINDS else None
            self._money.settle(in_flight.reserved, cost)
            await self._recovery.failed(item, tier, endpoint, fault, in_flight)
        except Exception as exc:  # noqa: BLE001 - a fault of ours must end its row and be seen, not hang the run
            self.error = self.error or exc
            self._money.settle(in_flight.reserved, None)
            internal = Fault("internal", f"a fault in holynb: {type(exc).__name__}: {exc}")
            endpoint.settle_mark(item, internal)
            await self._rows.end(item, attempt.error_outcome(item, endpoint, internal))
        finally:
            if in_flight.probe and endpoint.probing:  # a fault of ours
                endpoint.probing = False
                tier.notify()
            self._release(endpoint, in_flight.permit)

    async def _send(self, item: WorkItem, endpoint: EndpointState, pieces: attempt.Pieces) -> TimedAnswer:
        """Send and receive to the end. Raises Fault."""
        item.attempts += 1
        self._sink.append(Started(item.request.row, item.attempts, str(endpoint.route), time.time()))
        return await attempt.run(item, endpoint, self._policy.timeouts, pieces, self._validator)

    def _record_usage(self, item: WorkItem, endpoint: EndpointState, result: Completion | Fault) -> Decimal | None:
        """Add an attempt's tokens and dollars to the item's, and record the payment. Returns the dollars."""
        payment = attempt.record_usage(item, endpoint.route, self._money, result)
        self._sink.record_payment(payment)
        return payment.cost

    async def _cancel_tasks(self) -> None:
        for task in (tasks := [*self._dispatchers, *self._recovery.delayed, *self._tasks]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
