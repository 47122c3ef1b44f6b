"""The rows of a plan as the run log keeps them, made as they are written: kept until then, they would be a second copy of the plan."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from holynb.events import Ended
from holynb.results import index_labels
from holynb.run.pending import Pending
from holynb.run.plan import Plan
from holynb.runlog import StoredRow
from holynb.spool import MANY
from holynb.types import Outcome, Sampling

__all__ = ["KnownRows", "StoredRows"]

#: Labels of an index that are made at once.
WINDOW = 2_000
#: Rows whose requests are queued for the log at most.
BEHIND = 4 * MANY


@dataclass(frozen=True, slots=True)
class StoredRows(Collection[StoredRow]):
    """The requests of a plan, from `begin` on, before `end`. `own`: rows that this run itself answered before.

    What `--only failed` keeps stays beside the request that it answered, and is left out: asked anew, it would be another question.
    """

    plan: Plan
    route: str
    keys: Sequence[str | None]
    own: Collection[int]
    begin: int = 0
    end: int | None = None

    def first(self, n: int) -> StoredRows:
        """The first `n` rows of these."""
        return replace(self, end=self.begin + n)

    def after(self, n: int) -> StoredRows:
        """The rows of these behind the first `n`."""
        return replace(self, begin=self.begin + n)

    async def written_before(self, write: Callable[[StoredRows], Awaitable[None]]) -> StoredRows:
        """Of many, write the first ones: a run that the log has is whole. Returns the rest, which the run itself is written with.

        Requests may still be on their way to the disk when the first are sent, since answers come behind them; but of very many so few that
        the answers of other runs have their turn.
        """
        left = self
        while len(left) >= MANY:
            written, left = write(left.first(MANY)), left.after(MANY)
            if len(left) >= BEHIND:
                await written
        return left

    @property
    def _stop(self) -> int:
        return len(self.plan.rows.requests) if self.end is None else self.end

    def __len__(self) -> int:
        return max(0, self._stop - self.begin)

    def __iter__(self) -> Iterator[StoredRow]:
        kept, index = self.plan.earlier.kept, self.plan.rows.index
        for first in range(self.begin, self._stop, WINDOW):
            rows = range(first, min(self._stop, first + WINDOW))
            labels: Sequence[object] = rows if index is None else index_labels.labels(index[rows.start : rows.stop])
            for row, label in zip(rows, labels, strict=True):
                request = self.plan.rows.requests[row]
                expected = None if self.plan.labels is None else self.plan.labels.of(row)
                if request is None:  # a row that asks nothing has a place in the index all the same
                    yield StoredRow(row, 0, None, label, (), Sampling(), self.route, expected)
                elif not (row in kept and row in self.own):
                    route = str(request.route)
                    yield StoredRow(row, request.sample, self.keys[row], label, request.messages, request.sampling, route, expected)

    def __contains__(self, row: object) -> bool:
        return any(row == stored for stored in self)


@dataclass(frozen=True, slots=True)
class KnownRows(Collection["tuple[Ended, str | None]"]):
    """What the log has of a run that goes on: the ends of its rows, each with its key."""

    left: Pending
    kept: Mapping[int, Outcome]

    def __len__(self) -> int:
        return len(self.left.own)

    def __iter__(self) -> Iterator[tuple[Ended, str | None]]:
        for row in self.left.own:
            outcome = self.kept[row] if row in self.kept else self.left.answers[row]
            yield Ended(row, outcome, time.time()), self.left.keys[row]

    def __contains__(self, known: object) -> bool:
        return any(known == one for one in self)
