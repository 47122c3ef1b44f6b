"""What the writer is given: SQL statements with their rows, and whoever waits for them. Pure; knows no connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from typing import Any, TypeVar

__all__ = ["Batch", "MadeRows", "Statement", "batches", "merged", "wide"]

T = TypeVar("T")

#: SQL, and the rows that it is executed for.
Batch = tuple[str, Collection[Sequence[Any]]]
#: The same, to be executed once.
Step = tuple[str, Iterable[Sequence[Any]]]

#: An INSERT of one row, in its parts: up to its values, its table, the values, and what follows.
_INSERT = re.compile(r"(INSERT(?: OR REPLACE)? INTO (\w+)(?:\([\w, ]+\))? VALUES)(\(\?(?:,\?)*\))(.*)", re.DOTALL)
#: Rows of one INSERT. SQLite lets other threads run at each statement's step, and this one waits until it may go on: one step for many
#: rows. The oldest limit is 999 parameters.
ROWS_PER_INSERT, MAX_PARAMETERS = 32, 999

#: Bytes of a row that shares its text with the run it belongs to.
SHARED_ROW_BYTES = 300


class MadeRows(Collection[tuple[Any, ...]]):
    """Rows of a table, made as they are written: a copy of every prompt would stay in memory else."""

    def __init__(self, items: Collection[T], row: Callable[[T], tuple[Any, ...]]) -> None:
        self._items, self._row = items, row

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(self._row, self._items)

    def __contains__(self, row: object) -> bool:
        return row in list(self)


@dataclass(slots=True, eq=False)
class Statement:
    """A statement for every row of `rows`, which can be read more than once.

    run:     whose it is: written again where the file is replaced while that run goes on. None: of no run.
    on_done: called on the writer's thread, once: with None when it is on disk, or kept in memory while the log cannot be written; else
             with what failed.
    durable: `on_done` waits for the disk, and for a locked log until `deadline` (of the monotonic clock).
    eager:   a run begins with it: tried at once, and a trouble that goes on is told again.
    last:    the run has ended with it.
    replay:  it is not written now, only where the file is replaced, after all else of its run.
    counts:  its rows are answers, and each is a row of the table of answers.
    leads:   what belongs to it follows at once: a payment, whose answer would be paid again if a kill came between two commits.
    """

    sql: str
    rows: Collection[Sequence[Any]]
    on_done: Callable[[Exception | None], None] | None = None
    run: str | None = None
    durable: bool = False
    deadline: float = 0.0
    eager: bool = False
    last: bool = False
    replay: bool = False
    counts: bool = False
    leads: bool = False
    _done: bool = field(default=False, init=False)

    def done(self, failure: Exception | None) -> None:
        """Tell whoever waits. Idempotent."""
        if not self._done:
            self._done = True
            if self.on_done is not None:
                self.on_done(failure)

    @property
    def size(self) -> int:
        """About how many bytes of memory it holds."""
        if not isinstance(self.rows, list):
            return SHARED_ROW_BYTES * len(self.rows)
        return sum(len(value) if isinstance(value, str | bytes) else 16 for row in self.rows for value in row)


def batches(statements: Iterable[Statement]) -> Iterator[Step]:
    """The same in fewer steps: rows of one INSERT together, many in one statement."""
    for sql, rows in merged(statements):
        yield from wide(sql, rows)


def merged(statements: Iterable[Statement]) -> Iterator[Batch]:
    """The same as SQL with its rows, those of one INSERT together. What changes in any one table stays in order."""
    inserts: dict[str, list[Sequence[Any]]] = {}
    tables: set[str] = set()
    for statement in statements:
        insert, rows = _insert(statement.sql), statement.rows
        if insert is None or not isinstance(rows, list):
            yield from inserts.items()
            inserts, tables = {}, set()
            yield statement.sql, rows
        else:
            if statement.sql not in inserts and insert[0] in tables:
                yield from inserts.items()
                inserts, tables = {}, set()
            inserts.setdefault(statement.sql, []).extend(rows)
            tables.add(insert[0])
    yield from inserts.items()


def wide(sql: str, rows: Collection[Sequence[Any]]) -> Iterator[Step]:
    """The same in steps of many rows each, to be taken in order."""
    insert = _insert(sql)
    if insert is None or not insert[1] or len(rows) < ROWS_PER_INSERT:
        if rows:
            yield sql, rows
        return
    rest: list[Sequence[Any]] = []
    yield insert[1], _together(rows, rest)
    yield sql, rest


def _together(rows: Iterable[Sequence[Any]], rest: list[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """Parameters of ROWS_PER_INSERT rows each. What is left goes into `rest`."""
    coming = iter(rows)
    while len(some := list(islice(coming, ROWS_PER_INSERT))) == ROWS_PER_INSERT:
        yield tuple(chain.from_iterable(some))
    rest += some


@lru_cache(maxsize=64)
def _insert(sql: str) -> tuple[str, str] | None:
    """The table of an INSERT of one row, and the same for ROWS_PER_INSERT rows ("" where those are too many); None for other SQL."""
    match = _INSERT.fullmatch(sql)
    if match is None or "?" in match[4]:
        return None
    many = match[3].count("?") * ROWS_PER_INSERT <= MAX_PARAMETERS
    return match[2], f"{match[1]}{','.join([match[3]] * ROWS_PER_INSERT)}{match[4]}" if many else ""
