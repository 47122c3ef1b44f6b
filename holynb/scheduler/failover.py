"""The failover chain: tiers in order of preference, each with a queue and the equal endpoints that serve it. asyncio only."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from holynb.errors import Fault
from holynb.scheduler.breaker import Breaker
from holynb.scheduler.limiter import Limiter
from holynb.types import Engine, Message, Outcome, Request, Route, Usage

__all__ = ["EndpointState", "FailoverChain", "Queue", "Tier", "WorkItem"]


#: Assumed length of an answer in tokens, until MIN_ANSWERS have arrived and their mean is used.
DEFAULT_OUTPUT_TOKENS, MIN_ANSWERS = 512, 5


@dataclass(slots=True)
class WorkItem:
    """A request with its state. `chain` names its tiers in order; `followers` are rows with the same request, which share its answer.

    `faults` restarts at each tier, `refusals` counts 429s in a row; `attempts`, `usage` and `cost` are totals. `dropped`: the answer is no
    longer wanted, and this is the outcome if the item still waits. `repair_messages`: the conversation that asks to repair an answer. Owned by
    the scheduler.
    """

    request: Request
    chain: Sequence[str]
    followers: list[int] = field(default_factory=list)
    attempts: int = 0
    faults: int = 0
    refusals: int = 0
    exhausted_tiers: set[str] = field(default_factory=set)
    failover_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    dropped: Outcome | None = None
    repair_messages: tuple[Message, ...] | None = None


class Queue:
    """Items in order. Several endpoints may wait at one queue; the first with a permit takes the next, so the faster serves more."""

    def __init__(self) -> None:
        self._items: deque[WorkItem] = deque()
        self._nonempty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: WorkItem, *, first: bool = False) -> None:
        (self._items.appendleft if first else self._items.append)(item)
        self._nonempty.set()

    async def first(self) -> WorkItem:
        """Wait for an item and return the first, which stays in the queue."""
        while not self._items:
            self._nonempty.clear()
            await self._nonempty.wait()
        return self._items[0]

    def pop(self) -> WorkItem:
        return self._items.popleft()

    def drain(self) -> Iterable[WorkItem]:
        while self._items:
            yield self._items.popleft()


class EndpointState:
    """One endpoint within a run: engine, limiter and circuit breaker. Owned by the io thread.

    `fatal`: the fault after which nothing more is sent there. `verified` is set once the endpoint has replied.
    `changed` is set when a probe may have ended.
    """

    def __init__(self, route: Route, engine: Engine, limiter: Limiter, *, verified: bool = True) -> None:
        self.route = route
        self.engine = engine
        self.limiter = limiter
        self.breaker = Breaker()
        self.fatal: Fault | None = None
        self.verified = asyncio.Event()
        self.probing = False
        self.changed = asyncio.Event()
        self._answers = self._tokens_out = 0
        if verified:
            self.verified.set()

    def record_answer(self, tokens_out: int | None) -> None:
        """Count an answer's length, for the estimate of the next ones."""
        if tokens_out is not None:
            self._answers += 1
            self._tokens_out += tokens_out

    def estimate_tokens(self, request: Request) -> int:
        """Tokens a request will probably count for: a quarter of its characters, plus twice the mean answer so far (at most max_tokens)."""
        prompt = sum(len(m.content) for m in request.messages) // 4 + 8
        max_tokens = request.sampling.max_tokens or DEFAULT_OUTPUT_TOKENS
        likely = 2 * self._tokens_out // self._answers + 32 if self._answers >= MIN_ANSWERS else DEFAULT_OUTPUT_TOKENS
        return prompt + min(max_tokens, likely)

    async def wait_until_available(self, clock: Callable[[], float]) -> None:
        """Wait until the circuit is closed, or half-open with no probe in flight."""
        while (probe_at := self.breaker.probe_at()) is not None and (self.probing or clock() < probe_at):
            self.changed.clear()
            try:
                async with asyncio.timeout(None if self.probing else probe_at - clock()):
                    await self.changed.wait()
            except TimeoutError:
                continue


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

    def open_until(self, now: float) -> float | None:
        """When the first open circuit of the tier becomes half-open; None where an endpoint is available now."""
        times = [e.breaker.probe_at() if e.breaker.is_open(now) else now for e in self.endpoints if e.fatal is None]
        first = min((t for t in times if t is not None), default=now)
        return first if first > now else None


class FailoverChain:
    """The tiers of a run. An item waits at the first tier of its own chain that is available."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = {tier.name: tier for tier in tiers}

    def __iter__(self) -> Iterator[Tier]:
        return iter(self._tiers.values())

    def enqueue(self, item: WorkItem, reason: str | None = None) -> bool:
        """Queue the item at its first available tier, else at the one that becomes available first. Returns False where it has none left.

        `reason` is recorded on the item where it lands below its first tier.
        """
        now = time.monotonic()
        next_open: tuple[float, Tier] | None = None
        for name in item.chain:
            tier = self._tiers[name]
            if name in item.exhausted_tiers or tier.fatal:
                continue
            until = tier.open_until(now)
            if until is None:
                item.failover_reason = reason if reason and name != item.chain[0] else item.failover_reason
                tier.queue.put(item)
                return True
            if next_open is None or until < next_open[0]:
                next_open = (until, tier)
        if next_open is not None:
            next_open[1].queue.put(item)
        return next_open is not None

    def reclaim(self, tier: Tier, limit: int) -> None:
        """Move up to `limit` waiting items back to `tier`, where they prefer it to the tier at which they wait."""
        for other in self:
            for item in list(other.queue.drain()) if other is not tier else ():
                eligible = tier.name in item.chain and tier.name not in item.exhausted_tiers
                reclaimed = limit > 0 and eligible and list(item.chain).index(tier.name) < list(item.chain).index(other.name)
                limit -= reclaimed
                (tier if reclaimed else other).queue.put(item)
