"""What the live view is told: a snapshot when a page opens, then what changed. Pure; folds one run's events, knows no widget.

Rows are sent when they change, failed ones first, a bounded number a tick; the rest follows in later ticks, so that ten thousand rows open
at once. Every string is cleaned and cut here, and numbers that a person reads are written here, so that every view writes them alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from holynb.results import dollars
from holynb.types import Ended, Event, Failed, Outcome, Paused, Started
from holynb.ui.live.timeseries import Price, TimeSeries
from holynb.ui.live.totals import Totals
from holynb.ui.output import clean, clip, one_line, price, seconds, shared_prefix, status

__all__ = ["Feed", "RunInfo", "Tails"]

#: Characters of a prompt, of an ended answer and of a running one in the table.
PROMPT, ANSWER, TAIL = 120, 200, 140
#: Characters of rows in one message, and rows in flight whose text is refreshed in one: the server drops messages above 1 MB a second.
BUDGET, SPOKEN = 40_000, 64
#: The first message is smaller: what is in sight, so that the first picture does not wait for the rest on a slow line.
FIRST = 6_000
#: A single answer is shown whole up to here, then in pages of this many characters.
PAGE = 60_000

#: Row → how many pieces it has said, and the last characters of them (all of them where there is one row).
Tails = Mapping[int, tuple[int, str]]
Row = list[Any]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run asks, as a view needs it. `labels` are index labels, None for 0…n-1; `price_as` prices an outcome at `as_route`."""

    prompts: Sequence[str]
    labels: Sequence[object] | None = None
    started: float = 0.0
    title: str = ""
    as_route: str | None = None
    price_as: Price | None = None

    def label(self, row: int) -> str:
        value = row if self.labels is None else self.labels[row]
        return clip(one_line(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)), 40)


@dataclass(slots=True)
class InFlightRow:
    """A row that has started and not ended. `state` is running or retrying."""

    attempt: int
    state: str = "running"
    pieces: int = 0
    tail: str = ""


class Feed:
    """The fold of one run, and what a view has been told of it. Owned by that view; called from one thread."""

    def __init__(self, asked: RunInfo) -> None:
        self.asked = asked
        self.n = len(asked.prompts)
        self.outcomes: list[Outcome | None] = [None] * self.n
        self.flying: dict[int, InFlightRow] = {}
        self.course = TimeSeries(asked.started, asked.price_as)
        self.tally = Totals(self.n)
        self._pause: tuple[float, str] = (0.0, "")
        self._failed: dict[int, None] = {}
        self._changed: dict[int, None] = {}
        self._spoke: dict[int, None] = {}
        self._told = 0
        self._look = range(0)
        self._answer = ""
        self._same = shared_prefix(asked.prompts)
        self._simulated = False

    # -- folding ---------------------------------------------------------------------------------------------------
    def take(self, events: Sequence[Event], tails: Tails, at: float) -> None:
        """Fold what is new: events since the last call, the text of rows in flight, `at` seconds into the run."""
        for event in events:
            self.course.take(event)
            self._fold(event)
        self.tally.take(events)
        heard = {}
        for row, (pieces, tail) in tails.items():
            flight = self.flying.get(row)
            if flight is not None and flight.pieces != pieces:
                self.flying[row] = InFlightRow(flight.attempt, "running", pieces, tail)
                self._spoke[row] = None
                heard[row] = pieces
        self.course.now(at, heard)

    def _fold(self, event: Event) -> None:
        if isinstance(event, Started):
            self.flying[event.row] = InFlightRow(event.attempt)
            self._changed[event.row] = None
        elif isinstance(event, Failed):
            again = "" if event.wait is None else f" · again in {seconds(event.wait)}"
            self.flying[event.row] = InFlightRow(event.attempt, "retrying", 0, f"{event.kind}: {event.message}{again}")
            self._changed[event.row] = None
        elif isinstance(event, Paused):
            until = event.at - self.asked.started + event.seconds
            self._pause = (until, f"{event.route} asked everybody to wait {seconds(event.seconds)} ({event.kind})")
        elif isinstance(event, Ended):
            self.flying.pop(event.row, None)
            self._spoke.pop(event.row, None)
            self._changed.pop(event.row, None)
            self.outcomes[event.row] = event.outcome
            self._simulated |= (event.outcome.route or "").startswith("sim/")
            (self._failed if event.outcome.status == "error" else self._changed)[event.row] = None

    # -- telling ---------------------------------------------------------------------------------------------------
    def look(self, first: int, last: int) -> None:
        """The rows that are in sight: they go first."""
        self._look = range(max(0, first), min(self.n, last, first + 200))

    def head(self, elapsed: float, state: str = "running") -> dict[str, Any]:
        """The numbers above the table. state: running, stopping, stopped or done."""
        told = self.tally.summary(elapsed)
        rate, tokens = self.tally.speed(elapsed)[0], self.course.token_rate()
        waits = elapsed < self._pause[0] and state == "running"
        return {
            "n": told.n,
            "ended": told.n - told.running,
            "ok": told.ok,
            "failed": told.error,
            "cached": told.cached,
            "cancelled": told.cancelled,
            "skipped": told.skipped,
            "flying": len(self.flying),
            "elapsed": seconds(elapsed),
            "eta": seconds(told.running / rate) if rate and told.running else "",
            "rows_s": f"{rate:,.1f}" if rate else "",
            "tokens_s": f"{tokens:,.0f}" if tokens else "",
            "cost": dollars(told.cost if told.cost is not None else None if told.unknown_cost else Decimal(0)),
            "unknown": told.unknown_cost if told.cost is not None else 0,
            "as_cost": dollars(self.course.elsewhere) if self.asked.as_route else "",
            "errors": [[kind, n] for kind, n in told.errors.most_common(4)],
            "simulated": self._simulated,
            "state": state,
            "note": self._pause[1] if waits else clip(one_line(self.tally.note), 300),
        }

    def snapshot(self, head: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
        """Everything a page needs to begin; what is told later continues from here. `whole`: nothing is left for later."""
        self._told, self._answer = 0, ""
        self._spoke.clear()
        self._failed = {i: None for i, o in enumerate(self.outcomes) if o is not None and o.status == "error"}
        ended = {i: None for i, o in enumerate(self.outcomes) if o is not None and o.status != "error"}
        self._changed = {**dict.fromkeys(self.flying), **ended}
        self.course.points.flush()
        return {
            "kind": "snapshot",
            "title": self.asked.title,
            "as_route": self.asked.as_route,
            "labelled": self.asked.labels is not None,
            "same": self._shared(),
            **self._part(head, 10**12 if whole else FIRST),
            "points": self.course.points.all(),
        }

    def _shared(self) -> str:
        """The end of what all prompts begin with, which their column leaves out: whoever looks for a word looks for it there, too."""
        return one_line(self.asked.prompts[0][: self._same])[-PROMPT:] if self._same else ""

    def delta(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """What has changed since the last message."""
        return {"kind": "delta", **self._part(head, BUDGET), "points": self.course.points.flush()}

    @property
    def drained(self) -> bool:
        """Whether the view has been told everything."""
        return self._told >= self.n and not (self._failed or self._changed or self._spoke)

    def row(self, row: int) -> Row:
        """A line of the table: row, state (`!` before a failure), text, tokens, cost, time, attempts."""
        outcome = self.outcomes[row]
        if outcome is None:
            flight = self.flying.get(row)
            if flight is None:
                return [row, "waiting", "", "", "", "", 0]
            return [row, flight.state, one_line(flight.tail[-TAIL:] if flight.pieces else flight.tail), "", "", "", flight.attempt]
        bad, sent = outcome.status == "error", outcome.attempts or outcome.cached
        tokens = outcome.usage.tokens_out
        return [
            row,
            f"{'!' * bad}{status(outcome)}",
            _preview(outcome.error if bad else outcome.text),
            "" if not sent else "?" if tokens is None else f"{tokens:,}",
            price(outcome) if sent else "",
            "" if outcome.latency_s is None else seconds(outcome.latency_s),
            outcome.attempts,
        ]

    # -- one message -----------------------------------------------------------------------------------------------
    def _part(self, head: Mapping[str, Any], budget: int) -> dict[str, Any]:
        rows = list(self._rows(budget))
        return {"head": head, "rows": rows, "asked": list(self._prompts(budget)), "answer": self._single() if self.n == 1 else None}

    def _rows(self, budget: int) -> Iterator[Row]:
        """Changed rows: failed ones, those in sight, the others in order of change; then text of rows in flight, in turn."""
        seen = [r for r in self._look if r in self._changed]
        for queue in (list(self._failed), seen, list(self._changed)):
            for row in queue:
                if budget <= 0:
                    return
                if self._failed.pop(row, 0) is None or self._changed.pop(row, 0) is None:
                    self._spoke.pop(row, None)
                    line = self.row(row)
                    budget -= len(line[2]) + 40
                    yield line
        for row in [r for r in self._look if r in self._spoke] + list(self._spoke)[:SPOKEN]:
            if self._spoke.pop(row, 0) is None:
                yield self.row(row)

    def _prompts(self, budget: int) -> Iterator[Row]:
        """Stretches of [first row, labels or None, prompts]: those in sight, and the next of those not told yet."""
        if len(self._look) and self._look.stop > self._told:
            yield self._stretch(self._look)
            self._look = range(0)
        first = self._told
        while self._told < self.n and budget > 0:
            budget -= min(PROMPT, len(self.asked.prompts[self._told])) + 10
            self._told += 1
        if self._told > first:
            yield self._stretch(range(first, self._told))

    def _stretch(self, rows: range) -> Row:
        labels = None if self.asked.labels is None else [self.asked.label(r) for r in rows]
        cut = "…" if self._same else ""
        return [rows.start, labels, [cut + _preview(self.asked.prompts[r][self._same :], PROMPT) for r in rows]]

    def _single(self) -> dict[str, Any] | None:
        """The one answer: what came since, or all of it where it began anew."""
        outcome, flight = self.outcomes[0], self.flying.get(0)
        full = (outcome.text or "") if outcome is not None else flight.tail if flight and flight.pieces else ""
        text = clean(full[max(0, len(full) // PAGE - 1) * PAGE :])
        before, self._answer = self._answer, text
        if text == before:
            return None
        return {"more": text[len(before) :]} if before and text.startswith(before) else {"text": text}


def _preview(text: str | None, width: int = ANSWER) -> str:
    """The beginning of a text on one line; a megabyte costs no more than a page."""
    return clip(one_line((text or "")[: width * 4]), width)
