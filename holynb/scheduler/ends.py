"""The rows of a run and their ends: each exactly once, its followers with it, whatever happens. asyncio only; no policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from decimal import Decimal

from holynb.events import Ended
from holynb.journal import EventSink, has_ended
from holynb.scheduler.failover import WorkItem
from holynb.types import Outcome, Usage

__all__ = ["RowEnds", "shared_outcome"]


def shared_outcome(outcome: Outcome) -> Outcome:
    """How a row ends that asked the same as one which ended so: it was not sent, and costs nothing."""
    ok = outcome.status == "ok"
    # What an unknown cost is shared with costs as little known: 0 would make it look like a sum.
    usage, cost = (outcome.usage, None if outcome.cost is None else Decimal(0)) if ok else (Usage(), None)
    return replace(outcome, attempts=0, usage=usage, cost=cost, cached=ok)


#: Of so many unsent rows that end, one waits until it is on disk: what is to be written does not pile up.
WAIT_EVERY = 128


class RowEnds:
    """The items of a run. `finished` is set when every row has ended, or the run is to end without them."""

    def __init__(self, sink: EventSink) -> None:
        self._open: dict[int, WorkItem] = {}
        """Row → the item that is to end it."""
        self.finished = asyncio.Event()
        self._sink = sink
        self._remaining = self._unawaited = 0

    @property
    def remaining(self) -> int:
        """How many items have not ended, those included that are not made yet."""
        return self._remaining

    def add(self, items: Iterable[WorkItem]) -> None:
        """Items whose rows are to end."""
        for item in items:
            self.begin(item)
            self._remaining += 1

    def expect(self, n: int) -> None:
        """So many items come later, each with `begin`."""
        self._remaining += n

    def begin(self, item: WorkItem) -> None:
        """An item that was expected is there."""
        self._open[item.request.row] = item

    async def end(self, item: WorkItem, outcome: Outcome) -> None:
        """End the row and its followers. Returns when the answer is on disk, so that the permit is released only then."""
        if not has_ended(self._sink.rows, item.request.row):
            if item.followers:
                for write in self.settle(item, outcome):
                    await write
            elif (alone := self._sink.append(Ended(item.request.row, outcome, time.time()))) is not None:
                await alone
            self._ended(item)

    async def end_soon(self, item: WorkItem, outcome: Outcome) -> None:
        """The same for a row that is not sent and holds no permit: of many in a row, one in a while waits for the disk."""
        if not has_ended(self._sink.rows, item.request.row):
            writes = self.settle(item, outcome)
            self._unawaited += 1
            if writes and self._unawaited % WAIT_EVERY == 0:
                await writes[-1]
            self._ended(item)

    def settle(self, item: WorkItem, outcome: Outcome) -> list[Awaitable[None]]:
        """End the row and its followers. Returns what to wait for until they are on disk."""
        if has_ended(self._sink.rows, item.request.row):
            return []
        writes = [self._sink.append(Ended(item.request.row, outcome, time.time()))]
        if item.followers:
            shared = shared_outcome(outcome)
            writes += [self._sink.append(Ended(row, shared, time.time())) for row in item.followers]
        return [write for write in writes if write is not None]

    def _ended(self, item: WorkItem) -> None:
        self._open.pop(item.request.row, None)
        self._remaining -= 1
        if self._remaining == 0:
            self.finished.set()

    def end_unfinished(self, outcome_of: Callable[[WorkItem], Outcome]) -> None:
        """End every row of an item that is there and has not ended, a cancelled one with its partial text and thoughts."""
        for item in self._open.values():
            for row in (item.request.row, *item.followers):
                if not has_ended(self._sink.rows, row):
                    outcome = outcome_of(item)
                    if row == item.request.row and item.attempts:
                        outcome = replace(outcome, route=str(item.request.route), attempts=item.attempts, usage=item.usage, cost=item.cost)
                    cancelled = outcome.status == "cancelled"
                    text, thoughts = (self._sink.partial_text(row), self._sink.partial_thoughts(row)) if cancelled else (None, None)
                    self._sink.append(Ended(row, replace(outcome, text=text, reasoning=thoughts), time.time()))
