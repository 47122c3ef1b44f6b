"""What the kernel and the page exchange over the widget's comm, as types. Knows no run, no event and no widget.

Kernel to page: SnapshotMessage, DeltaMessage, DetailMessage, ExportedMessage. Page to kernel: PageMessage. The page's half is
assets/protocol.js; tests/ui/live/test_protocol.py holds the two together. Strings in messages are cleaned, cut and formatted for reading.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NotRequired, TypedDict, cast, get_args

from holynb.ui.live.qualitytable import QualityTable

__all__ = [
    "ROW_FIELDS",
    "Answer",
    "AnswerFormat",
    "AttemptLine",
    "DeltaMessage",
    "DetailMessage",
    "DetailPart",
    "DetailRequest",
    "EncodedRow",
    "ErrorCount",
    "ExportKind",
    "ExportRequest",
    "ExportedMessage",
    "Head",
    "PageMessage",
    "PageReady",
    "Points",
    "PromptRange",
    "Row",
    "RunState",
    "SnapshotMessage",
    "StopRequest",
    "Thoughts",
    "Update",
    "ViewOptions",
    "VisibleRange",
    "encode_row",
    "parse_page_message",
]

AnswerFormat = Literal["text", "markdown", "code", "json"]
RunState = Literal["running", "stopping", "stopped", "done"]
ExportKind = Literal["copy", "csv", "parquet"]


# -- kernel to page ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, in the words of the result's columns. Before a row ends, `status` is waiting, thinking, running or retrying.

    `text` of a row that failed is the kind of its fault and the message; `score`: a judge's.
    """

    row: int
    status: str = "waiting"
    cached: bool = False
    text: str = ""
    tokens_in: str = ""
    tokens_out: str = ""
    cost: str = ""
    latency_s: str = ""
    attempts: int = 0
    score: str = ""


#: The order of an encoded row; ROW_FIELDS of assets/protocol.js is the same.
ROW_FIELDS = tuple(f.name for f in fields(Row))
EncodedRow = list[int | str | bool]


def encode_row(row: Row) -> EncodedRow:
    """A row as an array: with its fields' names, ten thousand rows would be twice as large."""
    return [getattr(row, name) for name in ROW_FIELDS]


class ErrorCount(TypedDict):
    """How many rows failed in one way."""

    kind: str
    n: int


class Head(TypedDict):
    """The numbers above the table. Strings are empty where there is nothing to show yet.

    as_cost: of the answers on `as_route`; cache_saved: by providers' prompt caches; errors: the commonest first; quality: a line a route;
    by: the routes that were asked; where others answered, which ones, and how many rows.
    """

    n: int
    ended: int
    ok: int
    failed: int
    cached: int
    cancelled: int
    skipped: int
    in_flight: int
    elapsed: str
    eta: str
    rows_s: str
    tokens_s: str
    cost: str
    as_cost: str
    cache_saved: str
    errors: list[ErrorCount]
    simulated: bool
    by: str
    state: RunState
    note: str
    quality: str


class PromptRange(TypedDict):
    """Prompts of the rows from `first` on. `labels` is None where rows are numbered."""

    first: int
    labels: list[str] | None
    prompts: list[str]


class Answer(TypedDict):
    """The text of a run's only row: appended to what was sent before, or in its place."""

    text: str
    append: bool


class Thoughts(Answer):
    """What a run's only row thinks or has thought. `summary`: how much that is; `text` is empty where it is not told."""

    summary: str


class Points(TypedDict):
    """Columns of the charts from bucket `first` on; `size` buckets of `width` seconds in all. charts: chart → column → values."""

    width: float
    first: int
    size: int
    charts: dict[str, dict[str, list[float | None]]]


class Update(TypedDict):
    """Of snapshots and deltas. `seq` counts messages: a page that misses one asks for a snapshot. `quality`: None: it is as it was."""

    seq: int
    head: Head
    rows: list[EncodedRow]
    prompts: list[PromptRange]
    answer: Answer | None
    thoughts: Thoughts | None
    points: Points | None
    pictures: list[tuple[int, str]]
    """Rows and the small picture of what goes along with each, as a data: address."""
    quality: list[QualityTable] | None


class DeltaMessage(Update):
    """What changed since the last message."""

    kind: Literal["delta"]


class ViewOptions(TypedDict):
    """How a view is shown, whatever its run does. `recorded` marks a recording; `parts` is all, table or charts.

    standin: the id of the sentence that a saved notebook shows in the view's place. again: what to type once the kernel is gone; then: what
    that does. no_parquet: why rows cannot be taken out as such a file.
    """

    can_stop: bool
    recorded: str
    parts: str
    standin: str
    again: str
    then: str
    no_parquet: str


class SnapshotMessage(Update):
    """All that a page needs to begin; deltas continue from here. `shared_prefix`: what all prompts begin with, left out of `prompts`.

    listed: how many rows from the first the table has; window: which others, for reading, where that is not all.
    """

    kind: Literal["snapshot"]
    title: str
    as_route: str | None
    shared_prefix: str
    listed: int
    window: str
    view: ViewOptions


class DetailPart(TypedDict):
    """One text of a row in full. kind: failed, raw (a server's own words), thought (folded), or empty.

    html: an answer as somebody asked to see it, by the allow-list of `ui/output/markdown.py`; the page shows it in place of the text.
    """

    title: str
    text: str
    kind: str
    html: NotRequired[str]


class AttemptLine(TypedDict):
    """One event of a row, and how long after the start of the run it came."""

    at: str
    text: str


class DetailMessage(TypedDict):
    """One row in full, for a DetailRequest. format: how its answer is shown."""

    kind: Literal["detail"]
    row: int
    label: str
    facts: str
    format: str
    parts: list[DetailPart]
    attempts: list[AttemptLine]


class ExportedMessage(TypedDict):
    """What became of an ExportRequest, `said` for reading. text: what the page shall copy."""

    kind: Literal["exported"]
    what: ExportKind
    said: str
    text: str
    failed: bool


# -- page to kernel ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PageReady:
    """A page has drawn message `seq`, its first or the one after which it missed some. width: CSS pixels, None where it is not shown."""

    page: str
    seq: int
    width: int | None


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stop was clicked."""


@dataclass(frozen=True, slots=True)
class DetailRequest:
    """A row was opened. format: how its answer shall be shown; None: as the run's own `--format` says."""

    row: int
    format: AnswerFormat | None = None


@dataclass(frozen=True, slots=True)
class VisibleRange:
    """Rows `first` to `last` (exclusive) came into sight."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Rows shall be taken out. safe: no cell is a formula. rows: those that the table shows, in its order; a file has all of them."""

    what: ExportKind
    safe: bool = False
    rows: tuple[int, ...] = ()


PageMessage = PageReady | StopRequest | DetailRequest | VisibleRange | ExportRequest


def parse_page_message(content: object) -> PageMessage | None:
    """A message of the page; None for anything else. Never raises: what comes from a page may be anything."""
    match content:
        case {"cmd": "ready", "page": str(page), "seq": int(seq), **rest}:
            width = rest.get("width")
            return PageReady(page, seq, width if isinstance(width, int) and width > 0 else None)
        case {"cmd": "stop"}:
            return StopRequest()
        case {"cmd": "detail", "row": int(row), **rest}:
            known = get_args(AnswerFormat)
            return DetailRequest(row, next((name for name in known if name == rest.get("format")), None))
        case {"cmd": "visible", "first": int(first), "last": int(last)}:
            return VisibleRange(first, last)
        case {"cmd": "export", "what": str(what), **rest} if what in get_args(ExportKind):
            rows = rest.get("rows")
            listed = tuple(row for row in rows if type(row) is int) if isinstance(rows, list) else ()
            return ExportRequest(cast("ExportKind", what), rest.get("safe") is True, listed)
    return None
