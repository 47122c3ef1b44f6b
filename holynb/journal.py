"""The events of a run, in order, and the text of its rows in flight. Written by the io thread alone; read by any thread without a lock.

The list of events only grows, and appending and slicing it are atomic, so a slow reader delays nobody. The text of rows in
flight is kept beside it, not in it: an hour of streaming must not become an hour of events. What a large run holds lies in a spool.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol, TypeVar

from holynb.event_log import EventLog
from holynb.events import Ended, Event, Failed, Noted
from holynb.outcome_rows import OutcomeRows
from holynb.spool import MANY, Spool
from holynb.types import Outcome, Usage

__all__ = ["EventSink", "Journal", "PartialThought", "Payment", "Sink", "has_ended", "payment_at_end"]

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Payment:
    """One line of the run log's payments. `cost` is None where no price is known; `at` is in seconds since 1970.

    `what`: `answer` or `attempt` for what a server counted (`attempt` gave no answer); else how a row ended that its last attempt did not
    answer: `cached`, `error` (in older logs `cancelled`, too).
    """

    row: int
    at: float
    route: str | None
    model: str | None
    what: str
    usage: Usage
    cost: Decimal | None


def payment_at_end(event: Ended) -> Payment | None:
    """The payment of a row's end. None where its answer has one already, no request was sent, or the row was cancelled on its way."""
    o = event.outcome
    if o.cached:
        return Payment(event.row, event.at, o.route, o.model, "cached", Usage(), Decimal(0))
    return Payment(event.row, event.at, o.route, o.model, o.status, Usage(), None) if o.attempts and o.status == "error" else None


class EventSink(Protocol):
    """Where a scheduler writes. `rows[i]` is the outcome of row i, None until it ends."""

    @property
    def rows(self) -> Sequence[Outcome | None]: ...

    def append(self, event: Event) -> Awaitable[None] | None:
        """Add an event. Returns an awaitable where the event must be on disk before the next step."""

    def record_payment(self, payment: Payment) -> None:
        """Record the tokens and dollars of an attempt."""

    def append_text(self, row: int, text: str) -> None:
        """Add a piece to the answer of a row in flight."""

    def append_thoughts(self, row: int, text: str, tokens: int | None) -> None:
        """Add a piece to what a row in flight thinks. `tokens`: how many it was so far, where the server counts while it thinks."""

    def partial_text(self, row: int) -> str | None:
        """The text so far of a row in flight; None where there is none."""

    def partial_thoughts(self, row: int) -> str | None:
        """What a row in flight has thought so far; None where nothing of it is known."""


class Sink:
    """A sink that passes everything on to `to`: a subclass has `rows`, and overrides what it changes."""

    def __init__(self, to: EventSink) -> None:
        self._to = to

    def row_shown(self, row: int) -> int | None:
        """Which row the text of this one is shown at; None: it is not shown."""
        return row

    def append(self, event: Event) -> Awaitable[None] | None:
        """Passed on."""
        return self._to.append(event)

    def record_payment(self, payment: Payment) -> None:
        """Passed on."""
        self._to.record_payment(payment)

    def append_text(self, row: int, text: str) -> None:
        """Passed on where it is shown."""
        if (shown := self.row_shown(row)) is not None:
            self._to.append_text(shown, text)

    def append_thoughts(self, row: int, text: str, tokens: int | None) -> None:
        """Passed on where they are shown."""
        if (shown := self.row_shown(row)) is not None:
            self._to.append_thoughts(shown, text, tokens)

    def partial_text(self, row: int) -> str | None:
        """What is shown of it."""
        return None if (shown := self.row_shown(row)) is None else self._to.partial_text(shown)

    def partial_thoughts(self, row: int) -> str | None:
        """What is shown of it."""
        return None if (shown := self.row_shown(row)) is None else self._to.partial_thoughts(shown)


@dataclass(slots=True)
class PartialThought:
    """What a row in flight thinks: its pieces, their characters, and the tokens that the server has counted."""

    pieces: list[str]
    chars: int = 0
    tokens: int | None = None


#: An event older than the one before it by more than this many seconds means that the wall clock was set back, not that a thread was late.
CLOCK_SET_BACK_S = 5.0


class Journal:
    """The events of one run of `n` rows. `rows[i]` is the outcome of row i, None until it ends.

    `folder`: where what a large run holds lies on the disk.
    """

    def __init__(self, n: int, folder: Path | None = None) -> None:
        self.rows: list[Outcome | None] | OutcomeRows = [None] * n
        self._events: list[Event] | EventLog = []
        if n >= MANY:
            spool = Spool(folder)
            self.rows = OutcomeRows(n, spool)
            self._events = EventLog(self.rows, spool)
        self._texts: dict[int, list[str]] = {}
        self._thinking: dict[int, PartialThought] = {}
        self.ended = 0
        self._last_at = self._clock_offset = 0.0

    # -- writing: the io thread ----------------------------------------------------------------------------------------
    def append(self, event: Event) -> None:
        """Add an event."""
        self.add(event)

    def add(self, event: E) -> E:
        """Add an event, and return it as stored: where the wall clock was set back, its time is moved on to stay in order.

        Raises RuntimeError for a second end of a row: readers count on exactly one.
        """
        if event.at + self._clock_offset < self._last_at - CLOCK_SET_BACK_S:
            self._clock_offset = self._last_at - event.at
        if self._clock_offset:
            event = replace(event, at=event.at + self._clock_offset)
        self._last_at = event.at
        if isinstance(event, Ended):
            if has_ended(self.rows, event.row):
                raise RuntimeError(f"row {event.row} ended twice")
            self.rows[event.row] = event.outcome
            self.ended += 1
            self._forget(event.row)
        elif isinstance(event, Failed):
            self._forget(event.row)
        self._events.append(event)
        return event

    def end_rest(self, outcome: Outcome) -> int:
        """End all rows of a large run that have not ended, without an event for each. Returns how many."""
        filled = self.rows.fill(outcome) if isinstance(self.rows, OutcomeRows) else 0
        self.ended += filled
        return filled

    def _forget(self, row: int) -> None:
        self._texts.pop(row, None)
        self._thinking.pop(row, None)

    def record_payment(self, payment: Payment) -> None:
        """Nothing: payments are for the run log. Readers see the sum in the row's end."""

    def append_text(self, row: int, text: str) -> None:
        """Add a piece to the answer of a row in flight."""
        parts = self._texts.get(row)
        if parts is None:
            self._texts[row] = [text]
        else:
            parts.append(text)

    def append_thoughts(self, row: int, text: str, tokens: int | None) -> None:
        """Add a piece to what a row in flight thinks."""
        thinking = self._thinking.setdefault(row, PartialThought([]))
        if text:
            thinking.pieces.append(text)
        thinking.chars += len(text)
        thinking.tokens = thinking.tokens if tokens is None else tokens

    def replace_text(self, row: int, text: str) -> None:
        """Show `text` for a row in flight, in place of all before it. The number of pieces still grows, so that readers see a change."""
        self._texts[row] = [*("" for _ in self._texts.get(row, ())), text]

    def note(self, text: str, level: str = "info") -> None:
        """Add a note for the user."""
        self.append(Noted(text, time.time(), level))

    def partial_text(self, row: int) -> str | None:
        """The text so far of a row in flight; None where there is none."""
        parts = self._texts.get(row)
        return "".join(parts) if parts else None

    def partial_thoughts(self, row: int) -> str | None:
        """What a row in flight has thought so far; None where nothing of it is known."""
        thinking = self._thinking.get(row)
        return "".join(thinking.pieces) or None if thinking else None

    # -- reading: any thread -------------------------------------------------------------------------------------------
    def events_since(self, cursor: int) -> tuple[list[Event], int]:
        """The events after `cursor` (0 at first) and the next cursor. Never blocks."""
        events = list(self._events.after(cursor)) if isinstance(self._events, EventLog) else self._events[cursor:]
        return events, cursor + len(events)

    def parts_since(self, cursor: int) -> Iterator[list[Event]]:
        """The events after `cursor`, some at a time, so that a reader who is late does not hold all of a large run. Never blocks."""
        if not isinstance(self._events, EventLog):
            yield self._events[cursor:]
            return
        end = len(self._events)  # a reader that is slower than the run comes back
        while cursor < end and (events := self._events.since(cursor)):
            yield events
            cursor += len(events)

    def events(self) -> Sequence[Event]:
        """All events so far; of a large run they are read as they are asked for."""
        return self._events if isinstance(self._events, EventLog) else list(self._events)

    def events_of(self, row: int) -> list[Event]:
        """The events of one row."""
        if isinstance(self._events, EventLog):
            return self._events.of_row(row)
        return [e for e in list(self._events) if getattr(e, "row", None) == row]

    def partial_texts(self) -> dict[int, str]:
        """The text so far of every row in flight."""
        return {row: "".join(parts) for row, parts in list(self._texts.items())}

    def thinking(self) -> dict[int, tuple[int, int | None]]:
        """For each row in flight that thinks, or has: characters and tokens of it so far. Cheap at any length."""
        return {row: (t.chars, t.tokens) for row, t in list(self._thinking.items())}

    def text_starts(self, max_chars: int) -> dict[int, tuple[int, str]]:
        """For each row in flight: number of pieces, and the first of them, `max_chars` characters or a little more. Cheap at any length."""
        return {row: (len(parts), _start(parts, max_chars)) for row, parts in list(self._texts.items())}


def has_ended(rows: Sequence[Outcome | None], row: int) -> bool:
    """Whether the row has an outcome, without reading it."""
    if type(rows) is list:  # of nearly every run, and asked three times a row: an abstract class costs a call to be told apart
        return rows[row] is not None
    return rows.has(row) if isinstance(rows, OutcomeRows) else rows[row] is not None


def _start(parts: list[str], max_chars: int) -> str:
    start: list[str] = []
    for part in parts:
        start.append(part)
        max_chars -= len(part)
        if max_chars <= 0:
            break
    return "".join(start)
