"""The rows of a run and their ends: each exactly once, its followers with it, whatever happens. asyncio only; no policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from holynb.events import Ended
from holynb.journal import EventSink
from holynb.scheduler.failover import WorkItem
from holynb.types import Outcome, Usage

__all__ = ["RowEnds", "shared_outcome"]


def shared_outcome(outcome: Outcome) -> Outcome:
    """How a row ends that asked the same as one which ended so: it was not sent, and costs nothing."""
    ok = outcome.status == "ok"
    # What an unknown cost is shared with costs as little known: 0 would make it look like a sum.
    usage, cost = (outcome.usage, None if outcome.cost is None else Decimal(0)) if ok else (Usage(), None)
    return replace(outcome, attempts=0, usage=usage, cost=cost, cached=ok)


class RowEnds:
    """The items of a run. `finished` is set when every row has ended, or the run is to end without them."""

    def __init__(self, sink: EventSink) -> None:
        self.items: list[WorkItem] = []
        self.finished = asyncio.Event()
        self._sink = sink
        self._remaining = 0

    def add(self, items: Sequence[WorkItem]) -> None:
        """Items whose rows are to end."""
        self.items.extend(items)
        self._remaining += len(items)

    async def end(self, item: WorkItem, outcome: Outcome) -> None:
        """End the row and its followers. Returns when the answer is on disk, so that the permit is released only then."""
        if self._sink.rows[item.request.row] is not None:
            return
        for write in self.settle(item, outcome):
            await write
        self._remaining -= 1
        if self._remaining == 0:
            self.finished.set()

    def settle(self, item: WorkItem, outcome: Outcome) -> list[Awaitable[None]]:
        """End the row and its followers. Returns what to wait for until they are on disk."""
        if self._sink.rows[item.request.row] is not None:
            return []
        writes = [self._sink.append(Ended(item.request.row, outcome, time.time()))]
        if item.followers:
            shared = shared_outcome(outcome)
            writes += [self._sink.append(Ended(row, shared, time.time())) for row in item.followers]
        return [write for write in writes if isinstance(write, Awaitable)]

    def end_unfinished(self, outcome_of: Callable[[WorkItem], Outcome]) -> None:
        """End every row that has not ended, a cancelled one with its partial text and thoughts."""
        for item in self.items:
            for row in (item.request.row, *item.followers):
                if self._sink.rows[row] is None:
                    outcome = outcome_of(item)
                    if row == item.request.row and item.attempts:
                        outcome = replace(outcome, route=str(item.request.route), attempts=item.attempts, usage=item.usage, cost=item.cost)
                    cancelled = outcome.status == "cancelled"
                    text, thoughts = (self._sink.partial_text(row), self._sink.partial_thoughts(row)) if cancelled else (None, None)
                    self._sink.append(Ended(row, replace(outcome, text=text, reasoning=thoughts), time.time()))
