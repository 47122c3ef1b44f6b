"""What a page is sent of one run: a snapshot when it opens, then deltas. Pure: folds the run's events; knows no widget.

Rows are sent when they change, failed ones first, a bounded number per message; the rest follows in later messages, so that ten thousand
rows open at once. Of a longer run the page has its first rows, those in flight and some that failed. Every string is cleaned and cut
here, and numbers that a person reads are formatted here, so that all views agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from holynb.events import Ended, Event, Failed, Started
from holynb.translation import brief
from holynb.types import Outcome
from holynb.ui.live.heading import Heading
from holynb.ui.live.in_flight import InFlightRow, preview
from holynb.ui.live.only_row import OnlyRow
from holynb.ui.live.pictures import Pictures
from holynb.ui.live.protocol import (
    Answer,
    DeltaMessage,
    EncodedRow,
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
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.live.timeseries import TimeSeries
from holynb.ui.live.totals import Totals
from holynb.ui.output import count, one_line, price, seconds, shared_prefix, verdict

__all__ = ["Feed", "Starts"]

#: Characters of a prompt in the table, and of the beginning that all share, above it: its first and its last ones.
PROMPT_CHARS, PREFIX_CHARS = 120, 300
#: Characters of rows, and rows in flight whose text is refreshed, per message: the server drops messages above 1 MB a second.
MAX_MESSAGE_CHARS, MAX_STREAMED_ROWS = 40_000, 64
#: The first message is smaller, so that the first picture does not wait for rows out of sight on a slow line.
MAX_FIRST_MESSAGE_CHARS = 6_000
#: About what a row takes beside its text, and a prompt beside its characters.
ROW_OVERHEAD_CHARS, PROMPT_OVERHEAD_CHARS = 40, 10
#: A page's visible range is cut to this many rows.
MAX_VISIBLE_ROWS = 200
UNLIMITED = 10**12
#: Rows that a page shows before it has said which are in sight.
FIRST_ROWS = 20
#: Rows from the first that a page has all of, and failed ones behind them: what the kernel and the page hold must not grow with the run.
LISTED_ROWS, LISTED_FAILED = 10_000, 2_000

#: Row → how many pieces of its answer came, and its first characters (all of them where there is one row).
Starts = Mapping[int, tuple[int, str]]
#: Row → characters and tokens (None: not counted) of what it thinks.
Thinking = Mapping[int, tuple[int, int | None]]
NO_THOUGHTS: Thinking = MappingProxyType({})


class Feed:
    """The fold of one run, and what a view has been sent of it. Owned by that view; called from one thread."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self._scale = info.scale
        self.n = len(info.prompts)
        self.listed = min(self.n, LISTED_ROWS)
        self.outcomes: dict[int, Outcome] = {}
        """Of the rows that the page has, or is about to."""
        self.in_flight: dict[int, InFlightRow] = {}
        self.series = TimeSeries(info.started, info.price_as, info.compared)
        self.totals = Totals(self.n)
        self.seq = 0
        """Of the last message."""
        self._heading = Heading(info)
        # Rows to send, in order: dicts are ordered sets.
        self._failed: dict[int, None] = {}
        self._changed: dict[int, None] = {}
        self._streamed: dict[int, None] = {}
        self._behind: set[int] = set()
        """Rows behind the listed ones that the page has."""
        self._failed_behind = 0
        self._untold: list[int] = []
        """Those of them whose prompts go with the next message."""
        self._prompts_sent = 0
        self._visible = self._seen = range(0)
        self._pictures = Pictures(info.attached, self.n)
        self._only = OnlyRow()
        self._thoughts = ""
        self._prefix_chars = shared_prefix(info.prompts)

    # -- folding ---------------------------------------------------------------------------------------------------
    def fold(self, events: Sequence[Event], starts: Starts, at: float, thinking: Thinking = NO_THOUGHTS, thoughts: str = "") -> None:
        """Fold events since the last call and the text of rows in flight, `at` seconds into the run.

        `thinking`: characters and tokens of what rows in flight think; `thoughts`: what the only row has thought so far.
        """
        self._thoughts = thoughts
        self.fold_events(events)
        for row, counts in thinking.items():
            current = self.in_flight.get(row)
            if current is not None and current.thinks(counts):
                self._streamed[row] = None
        pieces_by_row = {}
        for row, (pieces, text) in starts.items():
            current = self.in_flight.get(row)
            if current is not None and current.pieces != pieces:
                if text != current.text or not current.pieces:  # what comes after the beginning is not shown here
                    self._streamed[row] = None
                self.in_flight[row] = InFlightRow(current.attempt, "running", pieces, text, current.thought)
                pieces_by_row[row] = pieces
        self.series.sample(at, pieces_by_row)

    def fold_events(self, events: Sequence[Event]) -> None:
        """The events alone: of a long run they come in several parts before the text of what is in flight now."""
        for event in events:
            self.series.fold(event)
            self._heading.fold(event)
            self._fold_event(event)
        self.totals.fold(events)

    def _fold_event(self, event: Event) -> None:
        if isinstance(event, Started):
            self.in_flight[event.row] = InFlightRow(event.attempt)
            self._changed[event.row] = None
        elif isinstance(event, Failed):
            again = "" if event.wait is None else f" · again in {seconds(event.wait)}"
            self.in_flight[event.row] = InFlightRow(event.attempt, "retrying", 0, f"{event.kind}: {event.message}{again}")
            self._changed[event.row] = None
        elif isinstance(event, Ended):
            self.in_flight.pop(event.row, None)
            self._streamed.pop(event.row, None)
            self._changed.pop(event.row, None)
            failed = event.outcome.status == "error"
            if event.row >= self.listed:
                if not failed or self._failed_behind >= LISTED_FAILED:
                    if event.row in self._behind:  # else the page never heard of it
                        self._changed[event.row] = None
                    return
                self._failed_behind += 1
            self.outcomes[event.row] = event.outcome
            (self._failed if failed else self._changed)[event.row] = None

    # -- messages --------------------------------------------------------------------------------------------------
    def set_visible(self, first: int, last: int) -> None:
        """The rows that are in sight, `last` exclusive: they are sent first."""
        self._visible = self._seen = range(max(0, first), min(self.listed, last, first + MAX_VISIBLE_ROWS))

    def head(self, elapsed: float, state: RunState = "running") -> Head:
        """The numbers above the table, `elapsed` seconds into the run."""
        return self._heading.head(self.totals, self.series, len(self.in_flight), elapsed, state)

    def snapshot(self, head: Head, view: ViewOptions, *, whole: bool = False) -> SnapshotMessage:
        """All that a page needs to begin; deltas continue from here. `whole`: nothing is left for deltas."""
        self._prompts_sent = 0
        self._only.reset()
        self._streamed.clear()
        self._behind.clear()
        self._untold.clear()
        self._failed = {i: None for i, o in sorted(self.outcomes.items()) if o.status == "error"}
        ended = {i: None for i, o in sorted(self.outcomes.items()) if o.status != "error"}
        self._changed = {**dict.fromkeys(self.in_flight), **ended}
        self.series.points.flush()
        return {
            "kind": "snapshot",
            "title": self.info.title,
            "as_route": self.info.as_route,
            "shared_prefix": self._shared_prefix(),
            "listed": self.listed,
            "window": self._window(),
            "view": view,
            **self._update(head, UNLIMITED if whole else MAX_FIRST_MESSAGE_CHARS, self.series.points.all()),
            "pictures": self._pictures.all(),
        }

    def _shared_prefix(self) -> str:
        """What all prompts begin with. It stands above the table, not in each row; a search looks in it too."""
        text = one_line(self.info.prompts[0][: self._prefix_chars]) if self._prefix_chars else ""
        return text if len(text) <= 2 * PREFIX_CHARS else f"{text[:PREFIX_CHARS]} … {text[-PREFIX_CHARS:]}"

    def _window(self) -> str:
        """Which rows the page has; empty where it has all."""
        if self.listed == self.n:
            return ""
        return brief(
            f"Listed are the first {self.listed:,} of {self.n:,} rows, those in progress, and up to {LISTED_FAILED:,} others that failed. "
            "Find and sort look at these; the figures are of all rows."
        )

    def delta(self, head: Head) -> DeltaMessage:
        """What changed since the last message."""
        return {"kind": "delta", **self._update(head, MAX_MESSAGE_CHARS, self.series.points.flush())}

    @property
    def drained(self) -> bool:
        """Whether nothing is left to send."""
        return self._prompts_sent >= self.listed and not (self._failed or self._changed or self._streamed or self._pictures.pending)

    def row(self, row: int) -> Row:
        """A line of the table, as it stands."""
        outcome = self.outcomes.get(row)
        if outcome is None:
            current = self.in_flight.get(row)
            return Row(row) if current is None else current.line(row)
        sent, usage = outcome.attempts or outcome.cached, outcome.usage
        failure = f"{outcome.error_type or 'error'}: {outcome.error or ''}" if outcome.status == "error" else None
        return Row(
            row,
            outcome.status,
            outcome.cached,
            preview(outcome.text if failure is None else failure),
            count(usage.tokens_in) if sent else "",
            count(usage.tokens_out) if sent else "",
            brief(price(outcome)) if sent else "",
            "" if outcome.latency_s is None else seconds(outcome.latency_s),
            outcome.attempts,
            verdict(outcome, self._scale),
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
            "pictures": self._pictures.take(self._seen),
            "quality": None if (quality := self._heading.quality) is None else quality.tables(again=max_chars != MAX_MESSAGE_CHARS),
        }

    def _rows(self, max_chars: int) -> Iterator[EncodedRow]:
        """Changed rows: visible ones, failed ones, the others in order of change; then text of rows in flight, in turn."""
        left = max_chars
        seen = self._seen or range(min(FIRST_ROWS, self.listed))
        visible = [r for r in seen if r in self._changed or r in self._failed]
        for queue in (visible, list(self._failed), list(self._changed)):
            for row in queue:
                if left <= 0:
                    return
                if self._failed.pop(row, 0) is None or self._changed.pop(row, 0) is None:
                    self._streamed.pop(row, None)
                    line = self.row(row)
                    left -= len(line.text) + ROW_OVERHEAD_CHARS
                    if row >= self.listed:
                        left -= self._send_behind(row)
                    yield encode_row(line)
        for row in [r for r in seen if r in self._streamed] + list(self._streamed)[:MAX_STREAMED_ROWS]:
            if self._streamed.pop(row, 0) is None:
                yield encode_row(self.row(row))

    def _send_behind(self, row: int) -> int:
        """A row behind the listed ones goes out: the page keeps it while it is in flight, or where it failed. Characters of its prompt."""
        if row not in self.in_flight and row not in self.outcomes:
            self._behind.discard(row)
            return 0
        if row in self._behind:
            return 0
        self._behind.add(row)
        self._untold.append(row)
        return min(PROMPT_CHARS, len(self.info.prompts[row])) + PROMPT_OVERHEAD_CHARS

    def _prompts(self, max_chars: int) -> Iterator[PromptRange]:
        """Those in sight, and the next of those not sent yet."""
        yield from (self._prompt_range(range(row, row + 1)) for row in self._untold)
        self._untold.clear()
        if len(self._visible) and self._visible.stop > self._prompts_sent:
            yield self._prompt_range(self._visible)
            self._visible = range(0)
        first, left = self._prompts_sent, max_chars
        while self._prompts_sent < self.listed and left > 0:
            left -= min(PROMPT_CHARS, len(self.info.prompts[self._prompts_sent])) + PROMPT_OVERHEAD_CHARS
            self._prompts_sent += 1
        if self._prompts_sent > first:
            yield self._prompt_range(range(first, self._prompts_sent))

    def _prompt_range(self, rows: range) -> PromptRange:
        labels = None if self.info.labels is None else [self.info.label(r) for r in rows]
        prompts = [preview(self.info.prompts[r][self._prefix_chars :], PROMPT_CHARS) for r in rows]
        return {"first": rows.start, "labels": labels, "prompts": prompts}

    def _answer(self) -> Answer | None:
        outcome, current = self.outcomes.get(0), self.in_flight.get(0)
        return self._only.answer((outcome.text or "") if outcome is not None else current.text if current and current.pieces else "")

    def _thoughts_of_one(self) -> Thoughts | None:
        current = self.in_flight.get(0)
        return self._only.thoughts(self.outcomes.get(0), self._thoughts, current.thought if current else None)
