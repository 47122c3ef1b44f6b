"""Where jobs wait and who takes them: a queue for each stop of a chain, and the stations (endpoints) that serve it. asyncio only."""

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


#: Tokens of an answer, before so many have come that their mean says more.
FIRST_GUESS, ENOUGH = 512, 5


@dataclass(slots=True)
class WorkItem:
    """A request under way. `chain` names the stops it may go to, in order; `followers` are rows that ask the same and share its answer.

    `faults` are counted anew at each stop; `attempts`, `usage` and `cost` over all of them. `dropped`: nobody wants its answer any more,
    and this is how it ends where it still waits. `again`: the conversation that asks to repair an answer. Owned by the scheduler.
    """

    request: Request
    chain: Sequence[str]
    followers: list[int] = field(default_factory=list)
    attempts: int = 0
    faults: int = 0
    given_up: set[str] = field(default_factory=set)
    moved: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    dropped: Outcome | None = None
    again: tuple[Message, ...] | None = None


class Queue:
    """Jobs in order. Several stations may wait at one queue; whoever has a place takes the next, so the quicker serves more."""

    def __init__(self) -> None:
        self._jobs: deque[WorkItem] = deque()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: WorkItem, *, first: bool = False) -> None:
        (self._jobs.appendleft if first else self._jobs.append)(job)
        self._some.set()

    async def first(self) -> WorkItem:
        """The job whose turn it is, once there is one; it stays in the queue."""
        while not self._jobs:
            self._some.clear()
            await self._some.wait()
        return self._jobs[0]

    def pop(self) -> WorkItem:
        return self._jobs.popleft()

    def drain(self) -> Iterable[WorkItem]:
        while self._jobs:
            yield self._jobs.popleft()


class EndpointState:
    """One endpoint within a run: its engine and limiter, and whether it is proven, tripped or cooling down. Owned by the io thread."""

    def __init__(self, route: Route, engine: Engine, limiter: Limiter, *, proven: bool = True) -> None:
        self.route = route
        self.engine = engine
        self.limiter = limiter
        self.breaker = Breaker()
        self.tripped: Fault | None = None
        self.proof = asyncio.Event()
        self.probing = False
        self.woken = asyncio.Event()
        self._answers = self._tokens_out = 0
        if proven:
            self.proof.set()

    def answered(self, tokens_out: int | None) -> None:
        """Learn how long answers are, for the estimate of the next ones."""
        if tokens_out is not None:
            self._answers += 1
            self._tokens_out += tokens_out

    def size(self, request: Request) -> int:
        """About how many tokens a request will count for: a quarter of its bytes, and twice the mean answer so far (at most max_tokens)."""
        prompt = sum(len(m.content) for m in request.messages) // 4 + 8
        longest = request.sampling.max_tokens or FIRST_GUESS
        likely = 2 * self._tokens_out // self._answers + 32 if self._answers >= ENOUGH else FIRST_GUESS
        return prompt + min(longest, likely)

    async def cool(self, clock: Callable[[], float]) -> None:
        """Wait until the circuit is closed, or half-open with no probe on its way."""
        while (reopens := self.breaker.reopens()) is not None and (self.probing or clock() < reopens):
            self.woken.clear()
            try:
                async with asyncio.timeout(None if self.probing else reopens - clock()):
                    await self.woken.wait()
            except TimeoutError:
                continue


class Tier:
    """A stop of a chain: one queue and the equal stations that serve it."""

    def __init__(self, name: str, stations: Sequence[EndpointState]) -> None:
        self.name = name
        self.stations = tuple(stations)
        self.queue = Queue()

    @property
    def tripped(self) -> Fault | None:
        """The fault that ended this stop, where every station of it is tripped."""
        faults = [s.tripped for s in self.stations]
        return faults[-1] if all(faults) else None

    def open_until(self, now: float) -> float | None:
        """When the first station here may be asked again; None where one may be now."""
        times = [s.breaker.reopens() if s.breaker.is_open(now) else now for s in self.stations if s.tripped is None]
        first = min((t for t in times if t is not None), default=now)
        return first if first > now else None


class FailoverChain:
    """The stops of a run. Decides where a job waits: at the first stop of its chain that may be asked now."""

    def __init__(self, stops: Sequence[Tier]) -> None:
        self._stops = {s.name: s for s in stops}

    def __iter__(self) -> Iterator[Tier]:
        return iter(self._stops.values())

    def place(self, job: WorkItem, why: str | None = None) -> bool:
        """Queue the job at the first stop that may be asked now, else at the first that may be again. False: at none.

        `why` is what moves it, where it moves.
        """
        now = time.monotonic()
        soonest: tuple[float, Tier] | None = None
        for name in job.chain:
            stop = self._stops[name]
            if name in job.given_up or stop.tripped:
                continue
            until = stop.open_until(now)
            if until is None:
                job.moved = why if why and name != job.chain[0] else job.moved
                stop.queue.put(job)
                return True
            if soonest is None or until < soonest[0]:
                soonest = (until, stop)
        if soonest is not None:
            soonest[1].queue.put(job)
        return soonest is not None

    def call_back(self, stop: Tier, most: int) -> None:
        """Bring up to `most` waiting jobs back to a stop that they would rather go to."""
        for other in self:
            for job in list(other.queue.drain()) if other is not stop else ():
                wanted = stop.name in job.chain and stop.name not in job.given_up
                back = most > 0 and wanted and list(job.chain).index(stop.name) < list(job.chain).index(other.name)
                most -= back
                (stop if back else other).queue.put(job)
