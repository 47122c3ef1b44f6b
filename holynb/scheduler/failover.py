"""The failover chain: tiers in order of preference, each with a queue and the equal endpoints that serve it. asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from holynb.config.model_traits import ModelTraits
from holynb.errors import Fault
from holynb.scheduler.breaker import Breaker
from holynb.scheduler.limiter import MAX_WAIT_S, Limiter
from holynb.scheduler.prompt_cache import PromptCache
from holynb.scheduler.queues import Backlog, Queue, WorkItem
from holynb.scheduler.token_estimate import TokenEstimate
from holynb.scheduler.waiting import within
from holynb.types import Completion, Engine, Route

__all__ = ["EndpointState", "FailoverChain", "Queue", "Tier", "WorkItem"]

#: Items that are made of a backlog at once.
REFILL = 16


class EndpointState:
    """One endpoint within a run: engine, limiter and circuit breaker. Owned by the io thread.

    `verified` is set once the endpoint has replied: its key is good. `answered`: in this process, so that it may come back where it is
    gone. `last_fault` and `refused_since` (the first 429) are None after an answer. `fatal`: the fault after which nothing more is sent
    there. `changed` is set when a probe may have ended. `traits`: what its model thinks, and how long it answers. `service_tiers`: those
    to ask there, in order. `cache`: the provider's prompt cache, None where it is left to itself.
    """

    def __init__(
        self,
        route: Route,
        engine: Engine,
        limiter: Limiter,
        *,
        verified: bool = True,
        answered: bool = False,
        traits: ModelTraits | None = None,
    ) -> None:
        self.route = route
        self.service_tiers: tuple[str, ...] = ()
        self.cache: PromptCache | None = None
        self.engine = engine
        self.limiter = limiter
        self.traits = traits or ModelTraits()
        self.breaker = Breaker()
        self.fatal: Fault | None = None
        self.verified = asyncio.Event()
        self.answered = answered
        self.last_fault: str | None = None
        self.refused_since: float | None = None
        self.probing = False
        self.probe_timer: asyncio.TimerHandle | None = None
        self.changed = asyncio.Event()
        self.tokens = TokenEstimate()
        if verified:
            self.verified.set()

    def settle_mark(self, item: WorkItem, result: Completion | Fault | None) -> None:
        """Tell the prompt cache how an attempt ended whose mark was taken; None: it was not sent."""
        if self.cache is not None:
            self.cache.ended(item.request.row, result)


class Tier:
    """One tier of a failover chain: a queue and the equal endpoints that serve it."""

    def __init__(self, name: str, endpoints: Sequence[EndpointState]) -> None:
        self.name = name
        self.endpoints = tuple(endpoints)
        self.queue = Queue()

    @property
    def fatal(self) -> Fault | None:
        """The last endpoint's fatal fault, where every endpoint of the tier has one; else None."""
        faults = [e.fatal for e in self.endpoints]
        return faults[-1] if all(faults) else None

    @property
    def closed(self) -> bool:
        """Whether the circuit of an endpoint is closed, and no fault is fatal to it."""
        return any(e.fatal is None and not e.breaker.is_open for e in self.endpoints)

    def available(self, now: float) -> bool:
        """Whether an endpoint takes rows that could go elsewhere: its circuit is closed, or has cooled down."""
        return any(e.fatal is None and (e.breaker.probe_at(needed=False) or now) <= now for e in self.endpoints)

    def probe_at(self) -> float:
        """When the next row that waits here can be sent at the earliest."""
        return min((e.breaker.probe_at(needed=True) or 0.0 for e in self.endpoints if e.fatal is None), default=0.0)

    def alone(self, endpoint: EndpointState) -> bool:
        """Whether no other endpoint of the tier serves its rows now."""
        return all(e is endpoint or e.fatal or e.breaker.is_open for e in self.endpoints)

    def sends_at(self, endpoint: EndpointState) -> float | None:
        """When this endpoint may be sent a row that waits here; None where its circuit is closed."""
        if not endpoint.breaker.is_open:
            return None
        return endpoint.breaker.probe_at(needed=self.alone(endpoint))

    def may_send(self, endpoint: EndpointState) -> bool:
        """Whether this endpoint takes a row now: its circuit is closed, or half-open with no probe in flight."""
        at = self.sends_at(endpoint)
        return at is None or (not endpoint.probing and asyncio.get_running_loop().time() >= at)

    async def wait_until_available(self, endpoint: EndpointState) -> None:
        """Wait until `may_send`."""
        while not self.may_send(endpoint):
            endpoint.changed.clear()
            left = (self.sends_at(endpoint) or 0.0) - asyncio.get_running_loop().time()
            # Never less than a timer can tell apart, or rounding makes this a loop without a pause.
            await within(endpoint.changed.wait(), None if endpoint.probing else max(left, 0.001))

    def notify(self) -> None:
        """Wake those who wait for a circuit of the tier: one that opens changes what the others are needed for."""
        for endpoint in self.endpoints:
            endpoint.changed.set()


class FailoverChain:
    """The tiers of a run. An item waits at the first tier of its own chain that is available."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = {tier.name: tier for tier in tiers}
        self._backlogs: list[Backlog] = []
        self._begin: Callable[[WorkItem], None] = lambda _: None

    def supply(self, backlogs: Sequence[Backlog], begin: Callable[[WorkItem], None]) -> None:
        """Where further items come from; `begin` is told of each that is made."""
        self._backlogs, self._begin = list(backlogs), begin
        for tier in self:
            if any(tier.name in b.chain for b in backlogs):
                tier.queue.refill = partial(self._refill, tier)

    def _refill(self, tier: Tier) -> bool:
        """Make items until one waits at this tier: those that go elsewhere now are made when they are taken there."""
        now = asyncio.get_running_loop().time()
        for backlog in self._backlogs:
            if not backlog.left or tier.name not in backlog.chain:
                continue
            chain = [self._tiers[name] for name in backlog.chain]
            elsewhere = next((t for t in chain if not t.fatal and (t.closed if t is chain[0] else t.available(now))), None)
            if elsewhere is not None and elsewhere is not tier:
                elsewhere.queue.wake()
                continue
            for item in islice(iter(backlog.take, None), REFILL):
                self._begin(item)
                if not self.enqueue(item, self._reason(item)):
                    self._put(item, tier)  # no endpoint is left: whoever takes it ends it
            if tier.queue:
                return True
        return False

    def _reason(self, item: WorkItem) -> str | None:
        """Why an item that is made now goes past the first tier of its chain; None where it does not."""
        first = self._tiers[item.chain[0]]
        if first.closed or (last := self.last_fault(item)) is None:
            return None
        return f"{last[0]}: {last[1]}"

    def given_up(self) -> Iterator[WorkItem]:
        """The items that no tier is left for, each made as it is taken."""
        for backlog in self._backlogs:
            while backlog.left and all(self._tiers[name].fatal for name in backlog.chain) and (item := backlog.take()) is not None:
                self._begin(item)
                yield item

    def wake(self) -> None:
        """Where items go has changed: those who wait for some look again."""
        for tier in self if self._backlogs else ():
            tier.queue.wake()

    def __iter__(self) -> Iterator[Tier]:
        return iter(self._tiers.values())

    def enqueue(self, item: WorkItem, reason: str | None = None, *, leaving: Tier | None = None) -> bool:
        """Queue the item at its first available tier, else at the one that can be probed first. Returns False where it has none left.

        `reason` is recorded on the item where it lands below its first tier. `leaving`: a tier that it does not go back to now.
        """
        first = self._tiers[item.chain[0]]
        if first.closed and first is not leaving and not item.exhausted_tiers:
            self._put(item, first)  # as nearly every row is
            return True
        now = asyncio.get_running_loop().time()
        left = [t for t in self._left(item) if t is not leaving]
        available = next((t for t in left if t.available(now)), None)
        if available is not None and available.name != item.chain[0]:
            item.failover_reason = reason or item.failover_reason
        target = available or min(left, key=Tier.probe_at, default=None)
        if target is not None:
            self._put(item, target)
        return target is not None

    def has_others(self, item: WorkItem, tier: Tier) -> bool:
        """Whether another tier of the item's chain may serve it, now or within MAX_WAIT_S."""
        return len(item.chain) > 1 and any(t is not tier for t in self._left(item))

    def goes_elsewhere(self, item: WorkItem, tier: Tier) -> bool:
        """Whether another tier of the item's chain is available now."""
        now = asyncio.get_running_loop().time()
        return any(t is not tier and t.available(now) for t in self._left(item))

    def no_quieter(self, item: WorkItem, endpoint: EndpointState) -> set[str]:
        """The tiers of the item's chain that would think as long about it as this endpoint did, which came to no answer."""
        think = item.request.sampling.think
        return {
            name
            for name in item.chain
            if not all(e.traits.thinks_less(endpoint.traits, think, thought=item.thought) for e in self._tiers[name].endpoints)
        }

    def reclaim(self, tier: Tier, limit: int) -> None:
        """Move up to `limit` waiting items to `tier`: those that prefer it to the tier at which they wait, or wait where none is served."""
        if tier.fatal:
            return
        now = asyncio.get_running_loop().time()
        for other in self:
            stuck = not other.available(now)
            for item in list(other.queue.drain()) if other is not tier else ():
                eligible = tier.name in item.chain and tier.name not in item.exhausted_tiers
                preferred = eligible and list(item.chain).index(tier.name) < list(item.chain).index(other.name)
                reclaimed = limit > 0 and eligible and (preferred or stuck)
                limit -= reclaimed
                self._put(item, tier if reclaimed else other)
        backlog = next((b for b in self._backlogs if b.left and tier.name in b.chain), None)
        if backlog is not None and limit > 0 and not tier.queue and (taken := backlog.take()) is not None:
            self._begin(taken)
            self._put(taken, tier)
        self.wake()

    def last_fault(self, item: WorkItem) -> tuple[Route, str] | None:
        """What last failed at an endpoint of the item's chain that has not answered since; None where nothing has."""
        endpoints = (e for name in item.chain for e in self._tiers[name].endpoints)
        return next(((e.route, e.last_fault) for e in endpoints if e.last_fault is not None), None)

    def _left(self, item: WorkItem) -> list[Tier]:
        """The tiers that may still serve the item, without those that ask for a longer wait than any request is made to wait."""
        latest = asyncio.get_running_loop().time() + MAX_WAIT_S
        tiers = (self._tiers[name] for name in item.chain if name not in item.exhausted_tiers)
        return [t for t in tiers if not t.fatal and t.probe_at() <= latest]

    def _put(self, item: WorkItem, tier: Tier) -> None:
        if item.tier != tier.name:
            item.tier, item.refusals, item.refused_at, item.service_tier = tier.name, 0, None, 0
        tier.queue.put(item)
