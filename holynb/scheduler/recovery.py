"""What follows a failed attempt: a retry, a wait for the server, another route, or the row's end. asyncio only; sends nothing.

Three things are told apart. A row that failed is retried, and each retry counts. A server that refuses (429) is waited for as long as it
asks, which counts as no retry; where there is another route, for 30 s. A server that is gone is waited for by its whole queue while one
row probes it, if it has answered before; where there is another route, the rows go there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from holynb.errors import Fault
from holynb.events import Paused
from holynb.journal import EventSink
from holynb.scheduler import attempt, endpoint_faults, service_order
from holynb.scheduler.attempt import InFlight, Pieces
from holynb.scheduler.ends import RowEnds
from holynb.scheduler.failover import EndpointState, FailoverChain, Tier, WorkItem
from holynb.scheduler.limiter import Pause
from holynb.scheduler.retry import Policy, exceeds_max_wait, retry_delay

__all__ = ["Recovery"]

#: Probes that a silent or broken server fails before it is given up: its faults may be a row's own, and each probe asks another row.
PROBES, FIRST_PROBES = 8, 3
#: How often rows that wait for a quota look whether another route is there again.
LOOK_AGAIN_S = 1.0
#: After so long a server that was gone, or refused, is taken to have taken a probe.
TAKEN_AFTER_S = 2.0


class Recovery:
    """Owned by the scheduler. `stopping`: nothing is sent any more, so nothing is retried."""

    def __init__(self, tiers: FailoverChain, rows: RowEnds, policy: Policy, sink: EventSink) -> None:
        self.stopping = False
        self.delayed: set[asyncio.Task[None]] = set()
        self._tiers = tiers
        self._rows = rows
        self._policy = policy
        self._sink = sink

    # -- after an attempt ------------------------------------------------------------------------------------------
    def answered(self, tier: Tier, endpoint: EndpointState) -> None:
        """The endpoint has answered."""
        endpoint.verified.set()
        endpoint.answered, endpoint.last_fault = True, None
        self._probe_ended(endpoint)
        self._is_there(tier, endpoint)
        tier.notify()

    def probe_sent(self, tier: Tier, endpoint: EndpointState, pieces: Pieces) -> Pieces:
        """A probe is on its way. Its answer may take minutes, but that the server took it is known sooner. Returns where its pieces go."""

        def is_there() -> None:
            if endpoint.probing:
                self._probe_ended(endpoint)
                self._is_there(tier, endpoint)
                tier.notify()

        if endpoint.breaker.refusing or endpoint.breaker.kind == "connection":
            endpoint.probe_timer = asyncio.get_running_loop().call_later(self._policy.backoff_scale * TAKEN_AFTER_S, is_there)
        return pieces.after(is_there)

    async def failed(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, in_flight: InFlight) -> None:
        """An attempt failed: see to its endpoint and to its row."""
        endpoint.verified.set()
        item.last_fault = endpoint.last_fault = fault.message  # not the fault, whose traceback holds the request
        if in_flight.probe:
            self._probe_ended(endpoint)
        if fault.tier_refused and not self.stopping and service_order.moves_on(item, endpoint, fault):
            endpoint.limiter.on_error(in_flight.permit, fault.limits)
            self._is_there(tier, endpoint)
            self._tell(item, endpoint, fault, 0.0)
            tier.queue.put(item, first=True)  # at the next service tier, which counts as no retry
        elif fault.kind == "rate_limit" and (not exceeds_max_wait(fault) or self._tiers.goes_elsewhere(item, tier)):
            await self._refused(item, tier, endpoint, fault, in_flight)
        else:
            endpoint.limiter.on_error(in_flight.permit, fault.limits)
            item.refusals, item.refused_at = 0, None
            await self._broken(item, tier, endpoint, fault, in_flight)
        tier.notify()
        self._tiers.wake()

    def close(self) -> None:
        """Forget the probes that are due."""
        for timer in (e.probe_timer for tier in self._tiers for e in tier.endpoints if e.probe_timer is not None):
            timer.cancel()

    def _probe_ended(self, endpoint: EndpointState) -> None:
        endpoint.probing = False
        if endpoint.probe_timer is not None:
            endpoint.probe_timer.cancel()

    def _is_there(self, tier: Tier, endpoint: EndpointState) -> None:
        """The endpoint serves requests: close its circuit. Where that was open, it gets its rows back."""
        endpoint.refused_since = None
        was_open = endpoint.breaker.is_open
        endpoint.breaker.record_success()
        if was_open:
            self._tiers.reclaim(tier, self._rows.remaining)

    # -- a server that refuses -------------------------------------------------------------------------------------
    async def _refused(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, in_flight: InFlight) -> None:
        """A 429: wait as long as the server asks; where that gets too long and there is another route, go there."""
        now, breaker = _now(), endpoint.breaker
        if breaker.is_open and not breaker.refusing:
            self._is_there(tier, endpoint)
        endpoint.answered = True
        item.refusals += 1
        item.refused_at = now if item.refused_at is None else item.refused_at
        endpoint.refused_since = now if endpoint.refused_since is None else endpoint.refused_since
        if exceeds_max_wait(fault):  # the next run need not wait so long
            endpoint.limiter.on_error(in_flight.permit, fault.limits)
            pause = Pause(fault.wait or 0.0, shared=True)
        else:
            pause = endpoint.limiter.on_rate_limit(in_flight.permit, fault.wait, fault.limits, item.refusals)
        elsewhere, limit = self._tiers.goes_elsewhere(item, tier), self._policy.refusal_limit
        everybody = now - endpoint.refused_since + (pause.seconds if pause.shared else 0.0)
        if self.stopping:
            self._tell(item, endpoint, fault, None)
            await self._fail_over(item, tier, endpoint, fault)
        elif elsewhere and (breaker.refusing or everybody > limit):
            self._tell(item, endpoint, fault, None)
            if in_flight.probe and breaker.is_open:
                breaker.record_failed_probe(now)
            tier.queue.put(item, first=True)
            await self._leave(
                tier, endpoint, fault, (pause.seconds, endpoint_faults.refusal(endpoint, fault, now - endpoint.refused_since))
            )
        elif elsewhere and tier.alone(endpoint) and now - item.refused_at + pause.seconds > limit:
            self._tell(item, endpoint, fault, None)
            self._tiers.enqueue(item, endpoint_faults.refusal(endpoint, fault, now - item.refused_at), leaving=tier)
        else:
            self._tell(item, endpoint, fault, pause.seconds)
            breaker.record_success()  # there is no other route any more: the limiter paces this one
            if pause.shared:
                self._sink.append(Paused(str(endpoint.route), pause.seconds, fault.kind, time.time()))
                await self._requeue(item, tier, endpoint, fault, first=True)
            else:
                self._later(self._requeue(item, tier, endpoint, fault, wait=pause.seconds, first=True))

    def patience(self, item: WorkItem, tier: Tier, endpoint: EndpointState) -> float:
        """How long the item may wait for a quota of the endpoint's that its headers report: for ever where there is no other route."""
        if endpoint.breaker.is_open or not self._tiers.has_others(item, tier):
            return math.inf
        return max(0.0, self._policy.refusal_limit - (0.0 if item.refused_at is None else _now() - item.refused_at))

    async def out_of_quota(self, item: WorkItem, tier: Tier, endpoint: EndpointState, hold: float) -> None:
        """Nothing is left there for `hold` seconds, as its headers say: its rows go elsewhere, as soon as another route takes them."""
        if hold <= self.patience(item, tier, endpoint):
            return
        if not self._tiers.goes_elsewhere(item, tier):
            await asyncio.sleep(min(hold, LOOK_AGAIN_S))
            return
        words = f"its headers say that its quota is used up for {hold:.0f} s"
        fault = Fault("rate_limit", words, wait=hold)
        endpoint.last_fault = fault.message
        await self._leave(tier, endpoint, fault, (hold, f"{endpoint.route}: {words}"))
        tier.notify()

    async def _leave(self, tier: Tier, endpoint: EndpointState, fault: Fault, why: tuple[float, str]) -> None:
        """Open the circuit of an endpoint that takes nothing for so many seconds: what waits there goes elsewhere, for this reason."""
        hold, reason = why
        endpoint.breaker.refuse(_now(), hold)
        self._arm_probe(tier, endpoint)
        for waiting in list(tier.queue.drain()):
            if not self._tiers.enqueue(waiting, reason):
                await self._rows.end(waiting, attempt.error_outcome(waiting, endpoint, fault))
        self._tiers.wake()

    # -- a server that fails ---------------------------------------------------------------------------------------
    async def _broken(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, in_flight: InFlight) -> None:
        """Any other fault: what it says about the endpoint, then what the row does."""
        stuck = tier.alone(endpoint) and not self._tiers.goes_elsewhere(item, tier)
        opened = self._judge(tier, endpoint, fault, probe=in_flight.probe)
        if stuck and in_flight.probe and self._is_over(endpoint, fault):
            fault = endpoint_faults.last_word(endpoint, fault)
        waits = self._waits(endpoint, fault)
        wait = None if self.stopping else 0.0 if waits else self._retry_delay(item, endpoint, fault)
        left = max(0.0, (endpoint.breaker.probe_at(needed=True) or 0.0) - _now())
        self._tell(item, endpoint, fault, left if waits and stuck else wait)
        if stuck and endpoint.breaker.is_open and (opened or in_flight.probe) and wait is not None:
            self._sink.append(Paused(str(endpoint.route), left, endpoint_faults.kind(endpoint, fault), time.time()))
        if wait is None:
            if fault.stops or exceeds_max_wait(fault):
                await self._disable(tier, endpoint, fault)
            await self._fail_over(item, tier, endpoint, fault)
        elif waits:
            await self._requeue(item, tier, endpoint, fault)
        else:
            self._later(self._requeue(item, tier, endpoint, fault, wait=wait, first=item.repair_messages is not None))
        if opened:
            for waiting in list(tier.queue.drain()):
                await self._requeue(waiting, tier, endpoint, fault)

    def _judge(self, tier: Tier, endpoint: EndpointState, fault: Fault, *, probe: bool) -> bool:
        """Tell the circuit breaker. Returns whether it has just opened: for a server that was there, by one request nobody took."""
        breaker, kind = endpoint.breaker, endpoint_faults.kind(endpoint, fault)
        whole = fault.finish_reason not in (None, "error")  # an answer came to its end, with nothing in it
        if (kind not in breaker.kinds and kind != "truncated") or whole:
            endpoint.answered |= fault.status not in endpoint_faults.GATEWAY_STATUSES
            self._is_there(tier, endpoint)  # what failed is the request
            return False
        endpoint.answered |= fault.status is not None and fault.status not in endpoint_faults.GATEWAY_STATUSES
        was_open = breaker.is_open
        opened = breaker.record_failure(kind, _now(), certain=endpoint.answered and fault.unreachable)
        if probe and was_open and kind in breaker.kinds:
            breaker.record_failed_probe(_now())
        if opened or (probe and breaker.is_open):
            self._arm_probe(tier, endpoint)
        return opened

    def _waits(self, endpoint: EndpointState, fault: Fault) -> bool:
        """Whether the row's attempt does not count: a server that has answered is gone, and it failed with it."""
        final = exceeds_max_wait(fault) or ((fault.stops or not fault.retry) and not fault.unreachable)
        gone = endpoint_faults.kind(endpoint, fault) in ("connection", "truncated")
        return endpoint.answered and endpoint.breaker.is_open and gone and not final

    def _is_over(self, endpoint: EndpointState, fault: Fault) -> bool:
        """Whether a server without an answer has been probed for long enough."""
        breaker, policy = endpoint.breaker, self._policy
        until = (breaker.failing_since or 0.0) + (policy.patience if endpoint.answered else policy.first_patience)
        probes = PROBES if endpoint.answered else min(FIRST_PROBES, max(1, policy.retries))
        enough = endpoint_faults.kind(endpoint, fault) == "connection" or breaker.failed_probes >= probes
        return breaker.is_open and enough and (breaker.probe_at(needed=True) or 0.0) > until

    def _retry_delay(self, item: WorkItem, endpoint: EndpointState, fault: Fault) -> float | None:
        """The row's own wait; at an address where nobody ever answered it is soon over."""
        wait, since = retry_delay(item, fault, self._policy), endpoint.breaker.failing_since
        if wait is None or since is None or endpoint.answered or endpoint_faults.kind(endpoint, fault) != "connection":
            return wait
        return min(wait, max(0.0, since + self._policy.first_patience - _now()))

    # -- where rows go ---------------------------------------------------------------------------------------------
    def _arm_probe(self, tier: Tier, endpoint: EndpointState) -> None:
        """When the circuit is half-open, move one row that prefers this tier back to it, as the probe."""

        def probe() -> None:
            if not tier.queue and not self.stopping:
                self._tiers.reclaim(tier, 1)

        if endpoint.probe_timer is not None:
            endpoint.probe_timer.cancel()
        at = endpoint.breaker.probe_at(needed=False)
        endpoint.probe_timer = None if at is None else asyncio.get_running_loop().call_at(at, probe)

    def _later(self, requeue: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(requeue)
        self.delayed.add(task)
        task.add_done_callback(self.delayed.discard)

    async def _requeue(
        self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault, *, wait: float = 0.0, first: bool = False
    ) -> None:
        """Back into a queue: the front of its own where `first`, else its first available tier; end the row where none is left."""
        if wait:
            await asyncio.sleep(wait)
        if first and tier.fatal is None and (tier.available(_now()) or not self._tiers.goes_elsewhere(item, tier)):
            tier.queue.put(item, first=True)
        elif not self._tiers.enqueue(item, f"{endpoint.route}: {fault.message}"):
            await self._rows.end(item, attempt.error_outcome(item, endpoint, tier.fatal or fault))

    async def _disable(self, tier: Tier, endpoint: EndpointState, fault: Fault) -> None:
        """Send nothing more to this endpoint; where its tier has no other, what waits there fails over or ends, unsent."""
        endpoint.fatal = fault
        if tier.fatal:
            for item in list(tier.queue.drain()):
                await self._fail_over(item, tier, endpoint, fault)
            for item in self._tiers.given_up():
                await self._rows.end_soon(item, attempt.error_outcome(item, endpoint, fault))

    async def _fail_over(self, item: WorkItem, tier: Tier, endpoint: EndpointState, fault: Fault) -> None:
        """Move the item to another endpoint of the tier or to the next tier of its chain, or end it."""
        if fault.stops and tier.fatal is None and not self.stopping:
            tier.queue.put(item, first=True)
            return
        item.exhausted_tiers |= {tier.name, *(self._tiers.no_quieter(item, endpoint) if fault.spent else ())}
        item.faults = item.empty_answers = 0
        if not self.stopping and self._tiers.enqueue(item, f"{endpoint.route}: {fault.message}"):
            return
        if fault.retry and item.followers and not self.stopping:
            # A retryable fault need not hit the next row with the same request; one that the request itself causes will.
            successor = WorkItem(replace(item.request, row=item.followers[0]), item.chain, item.followers[1:])
            if self._tiers.enqueue(successor):
                item.followers = []
                self._rows.add([successor])
        await self._rows.end(item, attempt.error_outcome(item, endpoint, fault))

    def _tell(self, item: WorkItem, endpoint: EndpointState, fault: Fault, wait: float | None) -> None:
        self._sink.append(attempt.failed_event(item, endpoint, fault, wait))


def _now() -> float:
    return asyncio.get_running_loop().time()
