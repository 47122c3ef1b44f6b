"""The rows of a run as the run log has them, read once and in order; many of them lie in a spool. Sends and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holynb.config import settings
from holynb.outcome_rows import OutcomeRows
from holynb.run.pending_rows import Answers
from holynb.run.prompt_spool import PromptSpool
from holynb.run.stored_requests import StoredRequests
from holynb.runlog import RunLog, RunRecord, StoredRow
from holynb.spool import MANY, Spool
from holynb.types import Outcome, Prompt, Request

__all__ = ["LoggedRows", "chosen", "outcomes", "read"]

#: Rows whose answers are read at once.
WINDOW = 2_000


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """What each row asked; a row that the log does not have asks nothing.

    labels: of the index; `range(n)` where each is its row's place. expected: what `--label` says of rows that have a label.
    pairs: route and sample of the rows, each once, in the order that they were asked.
    """

    prompts: Sequence[Prompt]
    requests: Sequence[Request | None]
    labels: Sequence[Any]
    expected: Mapping[int, str]
    pairs: Sequence[tuple[str, int]]


def read(log: RunLog, record: RunRecord, request: Callable[[StoredRow], Request | None] = lambda row: None) -> LoggedRows:
    """The rows of a run. `request`: what a row that asks something is sent as; of many rows it is asked for one of each kind."""
    rows = _Many() if record.n >= MANY else _Few()
    labels: range | list[Any] = range(record.n)
    expected: dict[int, str] = {}
    texts: dict[str, str] = {}  # a few that stand in many rows
    pairs: dict[tuple[str, int], None] = {}
    for row in _each(log, record):
        rows.fill(row.row)
        rows.add(row, request)
        if row.label != row.row or type(row.label) is not int:
            if isinstance(labels, range):
                labels = list(labels)
            labels[row.row] = row.label
        if row.expected is not None:
            expected[row.row] = texts.setdefault(row.expected, row.expected)
        if row.messages:
            pairs[row.route or "", row.sample] = None
    rows.fill(record.n)
    return LoggedRows(rows.prompts, rows.requests, labels, expected, list(pairs))


def _each(log: RunLog, record: RunRecord) -> Iterator[StoredRow]:
    """The requests of a run: of a row that was asked anew under another sample number, the last."""
    before: StoredRow | None = None
    for row in log.each_request(record.id):
        if before is not None and before.row != row.row:
            yield before
        before = row
    if before is not None:
        yield before


def outcomes(log: RunLog, run: str, n: int) -> Sequence[Outcome | None]:
    """How each row of a run ended, None where it did not."""
    rows: list[Outcome | None] | OutcomeRows = OutcomeRows(n, Spool(settings.home())) if n >= MANY else [None] * n
    for row, outcome in _ends(log, run, n):
        rows[row] = outcome
    return rows


def chosen(rows: Sequence[Outcome | None], is_good: Callable[[Outcome], bool]) -> Mapping[int, Outcome]:
    """Row → outcome of those that are good."""
    kept: dict[int, Outcome] | Answers = Answers(len(rows), Spool(settings.home())) if len(rows) >= MANY else {}
    for row, outcome in enumerate(rows):
        if outcome is not None and is_good(outcome):
            kept[row] = outcome
    return kept


def _ends(log: RunLog, run: str, n: int) -> Iterator[tuple[int, Outcome]]:
    for first in range(0, n, WINDOW):
        yield from ((row, outcome) for row, (_, outcome) in log.answers(run, range(first, min(n, first + WINDOW))).items())


class _Few:
    """Rows as lists."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.requests: list[Request | None] = []

    def fill(self, row: int) -> None:
        """Rows that ask nothing, up to before this one."""
        while len(self.prompts) < row:
            self.prompts.append(Prompt(()))
            self.requests.append(None)

    def add(self, row: StoredRow, request: Callable[[StoredRow], Request | None]) -> None:
        """The next row."""
        asks = request(row) if row.messages else None
        self.prompts.append(Prompt(row.messages if asks is None else asks.messages))
        self.requests.append(asks)


class _Many:
    """Rows in a spool, their requests by kind."""

    def __init__(self) -> None:
        self.prompts = PromptSpool(settings.home())
        self.requests = StoredRequests(self.prompts)
        self._kinds: dict[tuple[object, ...], int | None] = {}

    def fill(self, row: int) -> None:
        """As of few."""
        while len(self.prompts) < row:
            self.prompts.append(Prompt(()))
            self.requests.append(None)

    def add(self, row: StoredRow, request: Callable[[StoredRow], Request | None]) -> None:
        """The next row."""
        attached = any(m.attachments for m in row.messages)
        asks = request(row) if attached else None  # what goes along is looked for anew
        self.prompts.append(Prompt(row.messages if asks is None else asks.messages))
        if not row.messages:
            self.requests.append(None)
            return
        key = row.route, row.sample, self.prompts.shapes[-1], repr(row.sampling)
        if key not in self._kinds:
            one = asks or request(row)
            self._kinds[key] = None if one is None else self.requests.add_kind(one)
        self.requests.append(self._kinds[key])
