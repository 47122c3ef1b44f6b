"""What the runs that go on have written, so that a file that replaces the log's gets it again: nothing is paid twice. SQL only."""

from __future__ import annotations

import marshal
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from holynb.runlog.ledger import PARTS_SUFFIX, VERDICTS_SUFFIX
from holynb.runlog.statements import Batch, Statement, merged
from holynb.spool import Spool

__all__ = ["Written"]

ROWS_PER_PAGE = 1024


@dataclass(slots=True)
class _Script:
    """`written`: what a run wrote, in order; `after`: what is for a new file alone; `answers`: rows that the log must have under its names.

    `since`: when the run went on; what the log has of it from before stays.
    """

    written: list[Batch | int] = field(default_factory=list)
    after: list[Batch | int] = field(default_factory=list)
    answers: dict[object, _RowSet] = field(default_factory=dict)
    since: float = field(default_factory=time.time)


class _RowSet:
    """How many rows there are, each counted once: a bit a row."""

    def __init__(self) -> None:
        self.count = 0
        self._pages: dict[int, int] = {}

    def add(self, row: int) -> None:
        page, bit = divmod(row, ROWS_PER_PAGE)
        before = self._pages.get(page, 0)
        if not before >> bit & 1:
            self._pages[page] = before | 1 << bit
            self.count += 1


class Written:
    """Owned by the writer's thread. What many rows were written with lies in a spool in `folder`, and only its places in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._runs: dict[str, _Script] = {}
        self._spools: dict[str, Spool] = {}

    def add(self, statements: Iterable[Statement]) -> None:
        """These are on disk, or, with `replay`, are for a new file alone."""
        for (run, replay), of_run in _by_run(statements).items():
            script = self._runs.setdefault(run, _Script())
            (script.after if replay else script.written).extend(self._kept(run, batch) for batch in merged(of_run))
            for name, row, *_ in (row for s in of_run if s.counts and not replay for row in s.rows):
                script.answers.setdefault(name, _RowSet()).add(row)

    def _kept(self, run: str, batch: Batch) -> Batch | int:
        """A batch, or its place in the spool; one whose rows are made as they are written is kept as it is."""
        if not isinstance(batch[1], list):
            return batch
        if (spool := self._spools.get(run)) is None:
            spool = self._spools[run] = Spool(self._folder)
        try:
            return spool.put(marshal.dumps((batch[0], batch[1])))
        except ValueError:  # a value that is neither a text nor a number
            return batch

    def end(self, statements: Iterable[Statement]) -> None:
        """Forget the runs that ended with one of these."""
        for statement in statements:
            if statement.last and statement.run is not None:
                self._runs.pop(statement.run, None)
                self._spools.pop(statement.run, None)

    def restore(self, db: sqlite3.Connection) -> bool:
        """Write again what is not there, inside the caller's transaction. Returns whether the file was without it, or without any run."""
        missing = [(run, script) for run, script in self._runs.items() if script.written and not _has(db, run, script)]
        for run, script in missing:
            # A copy of the file may hold a part of it: added to, its tokens and dollars would count twice.
            for table in ("answers", "attempts", "payments"):
                db.execute(f"DELETE FROM {table} WHERE run IN (?, ?, ?) AND at >= ?", (*_names(run), script.since))  # noqa: S608 - names of ours
            for kept in (*script.written, *script.after):
                db.executemany(*(marshal.loads(self._spools[run].get(kept)) if isinstance(kept, int) else kept))  # noqa: S302 - ours
        return bool(missing) or db.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None


def _by_run(statements: Iterable[Statement]) -> dict[tuple[str, bool], list[Statement]]:
    groups: dict[tuple[str, bool], list[Statement]] = {}
    for statement in statements:
        if statement.run is not None:
            groups.setdefault((statement.run, statement.replay), []).append(statement)
    return groups


def _names(run: str) -> tuple[str, str, str]:
    return run, f"{run}{PARTS_SUFFIX}", f"{run}{VERDICTS_SUFFIX}"


def _has(db: sqlite3.Connection, run: str, script: _Script) -> bool:
    count = db.execute("SELECT count(*) FROM answers WHERE run IN (?, ?, ?) AND at >= ?", (*_names(run), script.since)).fetchone()[0]
    written = sum(rows.count for rows in script.answers.values())
    return count >= written and db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is not None
