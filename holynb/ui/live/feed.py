"""What a page is sent of one run: a snapshot when it opens, then deltas. Pure: folds the run's events; knows no widget.

Rows are sent when they change, failed ones first, a bounded number per message; the rest follows in later messages, so that ten thousand
rows open at once. Every string is cleaned and cut here, and numbers that a person reads are formatted here, so that all views agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from holynb.events import Ended, Event, Failed, Paused, Started
from holynb.results import dollars
from holynb.types import Outcome
from holynb.ui.live.in_flight import InFlightRow
from holynb.ui.live.only_row import OnlyRow
from holynb.ui.live.protocol import (
    Answer,
    DeltaMessage,
    EncodedRow,
    ErrorCount,
    Head,
    Points,
    PromptRange,
    Row,
    RunState,
    SnapshotMessage,
    Thoughts,
    Update,
    ViewOptions,
    encode_row,
)
from holynb.ui.live.timeseries import Price, TimeSeries
from holynb.ui.live.totals import Totals
from holynb.ui.output import clip, one_line, price, seconds, shared_prefix, status
from holynb.units import three_digits

__all__ = ["Feed", "RunInfo", "Tails"]

#: Characters in the table: of a prompt, of an ended answer.
PROMPT_CHARS, ANSWER_CHARS = 120, 200
LABEL_CHARS, NOTE_CHARS = 40, 300
#: Characters of rows, and rows in flight whose text is refreshed, per message: the server drops messages above 1 MB a second.
MAX_MESSAGE_CHARS, MAX_STREAMED_ROWS = 40_000, 64
#: The first message is smaller, so that the first picture does not wait for rows out of sight on a slow line.
MAX_FIRST_MESSAGE_CHARS = 6_000
#: About what a row takes beside its text, and a prompt beside its characters.
ROW_OVERHEAD_CHARS, PROMPT_OVERHEAD_CHARS = 40, 10
#: A page's visible range is cut to this many rows.
MAX_VISIBLE_ROWS = 200
MAX_ERROR_KINDS = 4
UNLIMITED = 10**12

#: Row → how many pieces of its answer came, and the last characters of them (all of them where there is one row).
Tails = Mapping[int, tuple[int, str]]
#: Row → characters and tokens (None: not counted) of what it thinks.
Thinking = Mapping[int, tuple[int, int | None]]
NO_THOUGHTS: Thinking = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as a view needs it. `labels` are index labels, None for 0…n-1; `price_as` prices an outcome at `as_route`.

    format: how an answer in full is shown.
    """

    prompts: Sequence[str]
    labels: Sequence[object] | None = None
    started: float = 0.0
    title: str = ""
    as_route: str | None = None
    price_as: Price | None = None
    format: str = "text"

    def label(self, row: int) -> str:
        value = row if self.labels is None else self.labels[row]
        return clip(one_line(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)), LABEL_CHARS)


class Feed:
    """The fold of one run, and what a view has been sent of it. Owned by that view; called from one thread."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.n = len(info.prompts)
        self.outcomes: list[Outcome | None] = [None] * self.n
        self.in_flight: dict[int, InFlightRow] = {}
        self.series = TimeSeries(info.started, info.price_as)
        self.totals = Totals(self.n)
        self.seq = 0
        """Of the last message."""
        self._pause: tuple[float, str] = (0.0, "")
        # Rows to send, in order: dicts are ordered sets.
        self._failed: dict[int, None] = {}
        self._changed: dict[int, None] = {}
        self._streamed: dict[int, None] = {}
        self._prompts_sent = 0
        self._visible = range(0)
        self._only = OnlyRow()
        self._thoughts = ""
        self._prefix_chars = shared_prefix(info.prompts)
        self._simulated = False

    # -- folding ---------------------------------------------------------------------------------------------------
    def fold(self, events: Sequence[Event], tails: Tails, at: float, thinking: Thinking = NO_THOUGHTS, thoughts: str = "") -> None:
        """Fold events since the last call and the text of rows in flight, `at` seconds into the run.

        `thinking`: characters and tokens of what rows in flight think; `thoughts`: what the only row has thought so far.
        """
        self._thoughts = thoughts
        for event in events:
            self.series.fold(event)
            self._fold_event(event)
        self.totals.fold(events)
        for row, counts in thinking.items():
            current = self.in_flight.get(row)
            if current is not None and current.thinks(counts):
                self._streamed[row] = None
        pieces_by_row = {}
        for row, (pieces, tail) in tails.items():
            current = self.in_flight.get(row)
            if current is not None and current.pieces != pieces:
                self.in_flight[row] = InFlightRow(current.attempt, "running", pieces, tail, current.thought)
                self._streamed[row] = None
                pieces_by_row[row] = pieces
        self.series.sample(at, pieces_by_row)

    def _fold_event(self, event: Event) -> None:
        if isinstance(event, Started):
            self.in_flight[event.row] = InFlightRow(event.attempt)
            self._changed[event.row] = None
        elif isinstance(event, Failed):
            again = "" if event.wait is None else f" · again in {seconds(event.wait)}"
            self.in_flight[event.row] = InFlightRow(event.attempt, "retrying", 0, f"{event.kind}: {event.message}{again}")
            self._changed[event.row] = None
        elif isinstance(event, Paused) and event.kind == "rate_limit":
            until = event.at - self.info.started + event.seconds
            self._pause = (until, f"{event.route} asked everybody to wait {seconds(event.seconds)} ({event.kind})")
        elif isinstance(event, Ended):
            self.in_flight.pop(event.row, None)
            self._streamed.pop(event.row, None)
            self._changed.pop(event.row, None)
            self.outcomes[event.row] = event.outcome
            self._simulated |= (event.outcome.route or "").startswith("sim/")
            (self._failed if event.outcome.status == "error" else self._changed)[event.row] = None

    # -- messages --------------------------------------------------------------------------------------------------
    def set_visible(self, first: int, last: int) -> None:
        """The rows that are in sight, `last` exclusive: they are sent first."""
        self._visible = range(max(0, first), min(self.n, last, first + MAX_VISIBLE_ROWS))

    def head(self, elapsed: float, state: RunState = "running") -> Head:
        """The numbers above the table, `elapsed` seconds into the run."""
        summary = self.totals.summary(elapsed)
        rate, tokens = self.totals.speed(elapsed)[0], self.series.token_rate()
        paused = elapsed < self._pause[0] and state == "running"
        return {
            "n": summary.n,
            "ended": summary.n - summary.running,
            "ok": summary.ok,
            "failed": summary.error,
            "cached": summary.cached,
            "cancelled": summary.cancelled,
            "skipped": summary.skipped,
            "in_flight": len(self.in_flight),
            "elapsed": seconds(elapsed),
            "eta": seconds(summary.running / rate) if rate and summary.running else "",
            "rows_s": three_digits(rate) if rate else "",
            "tokens_s": three_digits(tokens) if tokens else "",
            "cost": dollars(summary.cost if summary.cost is not None else None if summary.unknown_cost else Decimal(0)),
            "unknown_cost": summary.unknown_cost if summary.cost is not None else 0,
            "as_cost": dollars(self.series.elsewhere) if self.info.as_route else "",
            "errors": [ErrorCount(kind=kind, n=n) for kind, n in summary.errors.most_common(MAX_ERROR_KINDS)],
            "simulated": self._simulated,
            "state": state,
            "note": self._pause[1] if paused else clip(one_line(self.totals.note), NOTE_CHARS),
        }

    def snapshot(self, head: Head, view: ViewOptions, *, whole: bool = False) -> SnapshotMessage:
        """All that a page needs to begin; deltas continue from here. `whole`: nothing is left for deltas."""
        self._prompts_sent = 0
        self._only.reset()
        self._streamed.clear()
        self._failed = {i: None for i, o in enumerate(self.outcomes) if o is not None and o.status == "error"}
        ended = {i: None for i, o in enumerate(self.outcomes) if o is not None and o.status != "error"}
        self._changed = {**dict.fromkeys(self.in_flight), **ended}
        self.series.points.flush()
        return {
            "kind": "snapshot",
            "title": self.info.title,
            "as_route": self.info.as_route,
            "shared_prefix": self._shared_prefix(),
            "view": view,
            **self._update(head, UNLIMITED if whole else MAX_FIRST_MESSAGE_CHARS, self.series.points.all()),
        }

    def _shared_prefix(self) -> str:
        """The end of what all prompts begin with, which their column leaves out: a search for a word looks in it too."""
        return one_line(self.info.prompts[0][: self._prefix_chars])[-PROMPT_CHARS:] if self._prefix_chars else ""

    def delta(self, head: Head) -> DeltaMessage:
        """What changed since the last message."""
        return {"kind": "delta", **self._update(head, MAX_MESSAGE_CHARS, self.series.points.flush())}

    @property
    def drained(self) -> bool:
        """Whether nothing is left to send."""
        return self._prompts_sent >= self.n and not (self._failed or self._changed or self._streamed)

    def row(self, row: int) -> Row:
        """A line of the table, as it stands."""
        outcome = self.outcomes[row]
        if outcome is None:
            current = self.in_flight.get(row)
            return Row(row) if current is None else current.line(row)
        failed, sent = outcome.status == "error", outcome.attempts or outcome.cached
        tokens = outcome.usage.tokens_out
        return Row(
            row,
            status(outcome),
            failed,
            _preview(outcome.error if failed else outcome.text),
            "" if not sent else "?" if tokens is None else f"{tokens:,}",
            price(outcome) if sent else "",
            "" if outcome.latency_s is None else seconds(outcome.latency_s),
            outcome.attempts,
        )

    # -- one message -----------------------------------------------------------------------------------------------
    def _update(self, head: Head, max_chars: int, points: Points | None) -> Update:
        self.seq += 1
        return {
            "seq": self.seq,
            "head": head,
            "rows": list(self._rows(max_chars)),
            "prompts": list(self._prompts(max_chars)),
            "answer": self._answer() if self.n == 1 else None,
            "thoughts": self._thoughts_of_one() if self.n == 1 else None,
            "points": points,
        }

    def _rows(self, max_chars: int) -> Iterator[EncodedRow]:
        """Changed rows: failed ones, visible ones, the others in order of change; then text of rows in flight, in turn."""
        left = max_chars
        visible = [r for r in self._visible if r in self._changed]
        for queue in (list(self._failed), visible, list(self._changed)):
            for row in queue:
                if left <= 0:
                    return
                if self._failed.pop(row, 0) is None or self._changed.pop(row, 0) is None:
                    self._streamed.pop(row, None)
                    line = self.row(row)
                    left -= len(line.text) + ROW_OVERHEAD_CHARS
                    yield encode_row(line)
        for row in [r for r in self._visible if r in self._streamed] + list(self._streamed)[:MAX_STREAMED_ROWS]:
            if self._streamed.pop(row, 0) is None:
                yield encode_row(self.row(row))

    def _prompts(self, max_chars: int) -> Iterator[PromptRange]:
        """Those in sight, and the next of those not sent yet."""
        if len(self._visible) and self._visible.stop > self._prompts_sent:
            yield self._prompt_range(self._visible)
            self._visible = range(0)
        first, left = self._prompts_sent, max_chars
        while self._prompts_sent < self.n and left > 0:
            left -= min(PROMPT_CHARS, len(self.info.prompts[self._prompts_sent])) + PROMPT_OVERHEAD_CHARS
            self._prompts_sent += 1
        if self._prompts_sent > first:
            yield self._prompt_range(range(first, self._prompts_sent))

    def _prompt_range(self, rows: range) -> PromptRange:
        labels = None if self.info.labels is None else [self.info.label(r) for r in rows]
        cut = "…" if self._prefix_chars else ""
        prompts = [cut + _preview(self.info.prompts[r][self._prefix_chars :], PROMPT_CHARS) for r in rows]
        return {"first": rows.start, "labels": labels, "prompts": prompts}

    def _answer(self) -> Answer | None:
        outcome, current = self.outcomes[0], self.in_flight.get(0)
        return self._only.answer((outcome.text or "") if outcome is not None else current.tail if current and current.pieces else "")

    def _thoughts_of_one(self) -> Thoughts | None:
        current = self.in_flight.get(0)
        return self._only.thoughts(self.outcomes[0], self._thoughts, current.thought if current else None)


def _preview(text: str | None, width: int = ANSWER_CHARS) -> str:
    """The beginning of a text on one line; a megabyte costs no more than a page."""
    return clip(one_line((text or "")[: width * 4]), width)
