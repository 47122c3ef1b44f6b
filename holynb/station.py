"""One endpoint within a run: the jobs that wait for it and whether it may be asked. asyncio only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from holynb.errors import Fault
from holynb.types import Engine, Request, Route, Usage
from holynb.window import Window

__all__ = ["Job", "Station"]


@dataclass(slots=True)
class Job:
    """A request under way. `followers` are rows that ask the same; they share its answer. Owned by the scheduler."""

    request: Request
    chain: Sequence[Route]
    followers: list[int] = field(default_factory=list)
    attempts: int = 0
    faults: int = 0
    waits: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None


class Station:
    """One endpoint within a run: its queue, its window, and whether it has been proven or tripped. Owned by the io thread."""

    def __init__(self, route: Route, engine: Engine, window: Window, *, proven: bool = True) -> None:
        self.route = route
        self.engine = engine
        self.window = window
        self.tripped: Fault | None = None
        self.proof = asyncio.Event()
        if proven:
            self.proof.set()
        self._queue: deque[Job] = deque()
        self._some = asyncio.Event()

    def put(self, job: Job, *, first: bool = False) -> None:
        (self._queue.appendleft if first else self._queue.append)(job)
        self._some.set()

    async def next(self) -> Job:
        while not self._queue:
            self._some.clear()
            await self._some.wait()
        return self._queue.popleft()

    def drain(self) -> Iterable[Job]:
        while self._queue:
            yield self._queue.popleft()
