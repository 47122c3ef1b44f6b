"""What happened in a run, in order. Written by the io thread alone; read by anyone, at any pace, without a lock.

The list of events only grows, and appending and slicing it are atomic, so a slow reader delays nobody. The text of rows in
flight is kept beside it, not in it: an hour of streaming must not become an hour of events.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from holynb.types import Ended, Event, Failed, Noted, Outcome, Usage

__all__ = ["Journal", "Paid", "Sink", "ended"]


@dataclass(frozen=True, slots=True)
class Paid:
    """One line. `what`: `answer` or `attempt` (a server counted it; `attempt` was no answer), else how a row ended that was not answered
    by its last attempt: `cached`, `error` (in older logs `cancelled`, too). `cost` is None where no price is known; `at` in seconds since 1970.
    """

    row: int
    at: float
    route: str | None
    model: str | None
    what: str
    usage: Usage
    cost: Decimal | None


def ended(event: Ended) -> Paid | None:
    """The line of a row's end; None where its answer has one already, nobody was asked, or it was only stopped on its way."""
    o = event.outcome
    if o.cached:
        return Paid(event.row, event.at, o.route, o.model, "cached", Usage(), Decimal(0))
    return Paid(event.row, event.at, o.route, o.model, o.status, Usage(), None) if o.attempts and o.status == "error" else None


class Sink(Protocol):
    """Where a scheduler writes what happens. `rows[i]` is the outcome of row i, None until it ends."""

    @property
    def rows(self) -> list[Outcome | None]: ...

    def append(self, event: Event) -> Awaitable[None] | None:
        """Add an event. Returns something to wait for where it must be on disk first."""

    def pay(self, paid: Paid) -> None:
        """What an attempt came to."""

    def say(self, row: int, text: str) -> None:
        """A piece of the answer of a row in flight."""

    def partial(self, row: int) -> str | None:
        """The text so far of a row in flight; None where there is none."""


#: An event that is older than the one before by more than this many seconds says that the wall clock was set back, not that a thread was late.
SET_BACK_S = 5.0


class Journal:
    """The events of one run of `n` rows. `rows[i]` is the outcome of row i, None until it ends."""

    def __init__(self, n: int) -> None:
        self.rows: list[Outcome | None] = [None] * n
        self._events: list[Event] = []
        self._live: dict[int, list[str]] = {}
        self.ended = 0
        self._at = self._behind = 0.0

    # -- writing: the io thread ------------------------------------------------------------------------------------
    def append(self, event: Event) -> None:
        """Add an event."""
        self.add(event)

    def add(self, event: Event) -> Event:
        """Add an event, and return it as it stands here: times go on where a clock is set back.

        Raises RuntimeError for a second end of a row: exactly one each is what readers count on.
        """
        if event.at + self._behind < self._at - SET_BACK_S:
            self._behind = self._at - event.at
        if self._behind:
            event = replace(event, at=event.at + self._behind)
        self._at = event.at
        if isinstance(event, Ended):
            if self.rows[event.row] is not None:
                raise RuntimeError(f"row {event.row} ended twice")
            self.rows[event.row] = event.outcome
            self.ended += 1
            self._live.pop(event.row, None)
        elif isinstance(event, Failed):
            self._live.pop(event.row, None)
        self._events.append(event)
        return event

    def pay(self, paid: Paid) -> None:
        """Nothing: what an attempt came to is for the run log. Readers see the sum in the row's end."""

    def say(self, row: int, text: str) -> None:
        """A piece of the answer of a row in flight."""
        parts = self._live.get(row)
        if parts is None:
            self._live[row] = [text]
        else:
            parts.append(text)

    def tell(self, row: int, text: str) -> None:
        """What is to be seen of a row in flight in place of an answer; the next such line takes its place."""
        self._live[row] = [*("" for _ in self._live.get(row, ())), text]

    def note(self, text: str, level: str = "info") -> None:
        """A line for the person who watches."""
        self.append(Noted(text, time.time(), level))

    def partial(self, row: int) -> str | None:
        """What a row in flight has said so far; None where it has said nothing."""
        parts = self._live.get(row)
        return "".join(parts) if parts else None

    # -- reading: any thread ---------------------------------------------------------------------------------------
    def since(self, cursor: int) -> tuple[list[Event], int]:
        """The events after `cursor` (0 at first) and the next cursor. Never blocks."""
        events = self._events[cursor:]
        return events, cursor + len(events)

    def live(self) -> dict[int, str]:
        """The text so far of every row in flight."""
        return {row: "".join(parts) for row, parts in list(self._live.items())}

    def tails(self, most: int) -> dict[int, tuple[int, str]]:
        """Of every row in flight: how many pieces it has said, and the last of them, `most` characters or a little more. Cheap at any length."""
        return {row: (len(parts), _tail(parts, most)) for row, parts in list(self._live.items())}


def _tail(parts: list[str], most: int) -> str:
    out: list[str] = []
    for part in reversed(parts):
        out.append(part)
        most -= len(part)
        if most <= 0:
            break
    return "".join(reversed(out))
