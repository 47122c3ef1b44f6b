"""What waits to be sent: requests with their state, in queues; and those that are not made yet. asyncio only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from holynb.cache_mark import CacheMark
from holynb.types import Message, Outcome, Request, Usage
from holynb.usage import NO_USAGE

__all__ = ["Backlog", "Queue", "WorkItem"]


@dataclass(slots=True)
class WorkItem:
    """A request with its state. `chain` names its tiers in order; `followers` are rows with the same request, which share its answer.

    `faults` restarts at each tier; `attempts`, `usage` and `cost` are totals over all of them. `tier`: where it waits or is in flight;
    `refusals` counts 429s in a row there, since `refused_at`. `dropped`: the answer is no longer wanted, and this is the outcome if the
    item still waits. `repair_messages`: the conversation that asks to repair an invalid answer; `empty_answers`: how many
    in a row came without a word; `thought`: the last answer is known to have been thought about; `service_tier`: how many of its service
    tiers were refused; `cache`: what its attempt says of the provider's prompt cache. `urgent`: it waits before those that are not, since
    a row's end waits for it. Owned by the scheduler.
    """

    request: Request
    chain: Sequence[str]
    followers: list[int] = field(default_factory=list)
    attempts: int = 0
    faults: int = 0
    tier: str | None = None
    refusals: int = 0
    refused_at: float | None = None
    last_fault: str | None = None
    exhausted_tiers: set[str] = field(default_factory=set)
    failover_reason: str | None = None
    usage: Usage = NO_USAGE
    cost: Decimal | None = None
    dropped: Outcome | None = None
    repair_messages: tuple[Message, ...] | None = None
    empty_answers: int = 0
    thought: bool = False
    service_tier: int = 0
    cache: CacheMark | None = None
    urgent: bool = False


class Backlog:
    """Items of one chain that are made when an endpoint is there for them. `left`: how many."""

    def __init__(self, chain: Sequence[str], items: Iterator[WorkItem], left: int) -> None:
        self.chain, self.left = chain, left
        self._items = items

    def take(self) -> WorkItem | None:
        """The next item; None where there is none."""
        item = next(self._items, None)
        self.left = 0 if item is None else self.left - 1
        return item


class Queue:
    """Items in order, urgent ones before the others. Several endpoints may wait at one queue; the first with a permit takes the next, so
    the faster serves more.

    `refill`: puts further items into it where there are some; whether it did.
    """

    refill: Callable[[], bool] | None = None

    def __init__(self) -> None:
        self._items: deque[WorkItem] = deque()
        self._urgent: deque[WorkItem] = deque()
        self._nonempty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._items)

    def put(self, item: WorkItem, *, first: bool = False) -> None:
        items = self._urgent if item.urgent else self._items
        (items.appendleft if first else items.append)(item)
        self._nonempty.set()

    async def first(self) -> WorkItem:
        """Wait for an item and return the first, which stays in the queue."""
        while not self and not (self.refill is not None and self.refill()):
            self._nonempty.clear()
            await self._nonempty.wait()
        return (self._urgent or self._items)[0]

    def wake(self) -> None:
        """Whoever waits here looks again whether there is something."""
        self._nonempty.set()

    def pop(self) -> WorkItem:
        return (self._urgent or self._items).popleft()

    def drain(self) -> Iterable[WorkItem]:
        while self:
            yield self.pop()
