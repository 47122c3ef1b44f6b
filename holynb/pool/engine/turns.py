"""Rows that wait, and whose turn it is: those who ask take turns by the tokens that they were given. Knows jobs; no blocks, no torch.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), as the virtual token counter of Sheng et al. has it for language models
(OSDI 2024, arXiv:2401.00588): next is a row of the client that was given the fewest tokens; one that comes anew begins where the others
are, so that nobody saves up turns. Of two who always wait, neither is ahead of the other by more than a row of each. Rows of one client
stay in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from holynb.pool.protocol import Job

__all__ = ["Turns"]

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue of rows by client; `job_of` is a row's job. Owned by the rank's scheduler."""

    def __init__(self, job_of: Callable[[T], Job]) -> None:
        self._job_of = job_of
        self._back: deque[T] = deque()
        """Those that had their turn and lost their place again: they come first."""
        self._queues: dict[str, deque[T]] = {}
        """Of clients with rows that wait."""
        self._given: dict[str, int] = {}
        """Tokens by client; of one that is not there, `_level`."""
        self._level = 0
        """What the client had been given whose turn it last was."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: T) -> None:
        client = self._job_of(row).client
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = deque()
            level = self._level
            self._given = {c: n for c, n in self._given.items() if c in self._queues or n > level}
            self._given[client] = max(level, self._given.get(client, level))
        queue.append(row)
        self._count += 1

    def put_back(self, row: T) -> None:
        """A row that had its turn comes first again."""
        self._back.appendleft(row)
        self._count += 1

    @property
    def first(self) -> T:
        """Whose turn it is. There must be one."""
        return self._back[0] if self._back else self._queues[self._next()][0]

    def take(self) -> T:
        """The first, which waits no more; its prompt counts from now on."""
        self._count -= 1
        if self._back:
            return self._back.popleft()
        client = self._next()
        row = self._queues[client].popleft()
        self._level = self._given[client]
        self._given[client] += len(self._job_of(row).ids)
        if not self._queues[client]:
            del self._queues[client]
        return row

    def count(self, client: str, tokens: int) -> None:
        """What a client was given besides: the tokens of an answer."""
        self._given[client] = self._given.get(client, self._level) + tokens

    def remove(self, row: T) -> None:
        """Raises ValueError where it does not wait."""
        client = self._job_of(row).client
        queue = self._back if row in self._back else self._queues.get(client, self._back)
        queue.remove(row)
        self._count -= 1
        if queue is not self._back and not queue:
            del self._queues[client]

    def _next(self) -> str:
        if len(self._queues) == 1:
            return next(iter(self._queues))
        return min(self._queues, key=self._given.__getitem__)
