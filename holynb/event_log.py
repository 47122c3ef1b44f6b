"""The events of a large run, in order: the last ones as objects, the others as bytes in a spool. Outcomes are the rows' own."""

from __future__ import annotations

import marshal
import pickle
import threading
from collections.abc import Iterator, Sequence
from typing import overload

from holynb.events import Ended, Event, Started
from holynb.spool import Spool
from holynb.types import Outcome

__all__ = ["EventLog"]

#: Events of a block, and how many stay objects, so that readers who keep up need not read any.
BLOCK, LIVE = 2_048, 4_096


class EventLog(Sequence[Event]):
    """Like a list that only grows. Written by one thread; read by any. `rows`: the outcome of each row that has ended."""

    def __init__(self, rows: Sequence[Outcome | None], spool: Spool) -> None:
        self._rows, self._spool = rows, spool
        self._lock = threading.Lock()
        self._blocks: list[int] = []
        self._live: list[Event] = []

    def append(self, event: Event) -> None:
        """Add an event; an end after its outcome stands in `rows`."""
        self._live.append(event)
        if len(self._live) >= LIVE + BLOCK:
            place = self._spool.put(marshal.dumps([_packed(e) for e in self._live[:BLOCK]]))
            with self._lock:
                self._blocks.append(place)
                del self._live[:BLOCK]

    def since(self, cursor: int) -> list[Event]:
        """Some of the events from `cursor` on, the next ones first; none where there are none. A reader that is late gets a block."""
        with self._lock:
            behind = len(self._blocks) * BLOCK
            if cursor >= behind:
                return self._live[cursor - behind :]
            place = self._blocks[cursor // BLOCK]
        return [self._unpacked(e) for e in marshal.loads(self._spool.get(place))[cursor % BLOCK :]]  # noqa: S302 - bytes of this process

    def of_row(self, row: int) -> list[Event]:
        """The events of one row."""
        with self._lock:
            blocks, live = list(self._blocks), list(self._live)
        events: list[Event] = []
        for place in blocks:
            packed = marshal.loads(self._spool.get(place))  # noqa: S302 - as above
            events += [self._unpacked(e) for e in packed if e[0] == row]
        return events + [e for e in live if getattr(e, "row", None) == row]

    def __len__(self) -> int:
        with self._lock:
            return len(self._blocks) * BLOCK + len(self._live)

    def __iter__(self) -> Iterator[Event]:
        return self.after(0)

    def after(self, cursor: int) -> Iterator[Event]:
        """The events from `cursor` on, read as they are asked for."""
        while events := self.since(cursor):
            yield from events
            cursor += len(events)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        place = at + len(self) if at < 0 else at
        events = self.since(place) if place >= 0 else []
        if not events:
            raise IndexError(at)
        return events[0]

    def _unpacked(self, packed: tuple[object, ...]) -> Event:
        match packed:
            case (int(row), float(at)):
                outcome = self._rows[row]
                if outcome is None:
                    raise LookupError(f"row {row} has ended, and has no outcome")
                return Ended(row, outcome, at)
            case (int(row), int(attempt), str(route), float(at)):
                return Started(row, attempt, route, at)
            case (_, bytes(pickled)):
                event: Event = pickle.loads(pickled)  # noqa: S301 - bytes of this process
                return event
        raise TypeError(f"not an event: {packed!r}")


def _packed(event: Event) -> tuple[object, ...]:
    if isinstance(event, Ended):
        return event.row, float(event.at)
    if isinstance(event, Started):
        return event.row, event.attempt, event.route, float(event.at)
    return getattr(event, "row", -1), pickle.dumps(event)
