"""What the runs that go on have written, so that a file that replaces the log's gets it again: nothing is paid twice. SQL only."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from holynb.runlog.ledger import PARTS_SUFFIX, VERDICTS_SUFFIX
from holynb.runlog.statements import Batch, Statement, merged

__all__ = ["Written"]


@dataclass(slots=True)
class _Script:
    """`written`: what a run wrote, in order; `after`: what is for a new file alone; `answers`: rows that the log must have under its names.

    `since`: when the run went on; what the log has of it from before stays.
    """

    written: list[Batch] = field(default_factory=list)
    after: list[Batch] = field(default_factory=list)
    answers: dict[object, set[object]] = field(default_factory=dict)
    since: float = field(default_factory=time.time)


class Written:
    """Owned by the writer's thread. The rows of a run share their texts with its journal, so they cost little beside it."""

    def __init__(self) -> None:
        self._runs: dict[str, _Script] = {}

    def add(self, statements: Iterable[Statement]) -> None:
        """These are on disk, or, with `replay`, are for a new file alone."""
        for (run, replay), of_run in _by_run(statements).items():
            script = self._runs.setdefault(run, _Script())
            (script.after if replay else script.written).extend(merged(of_run))
            for name, row, *_ in (row for s in of_run if s.counts and not replay for row in s.rows):
                script.answers.setdefault(name, set()).add(row)

    def end(self, statements: Iterable[Statement]) -> None:
        """Forget the runs that ended with one of these."""
        for statement in statements:
            if statement.last and statement.run is not None:
                self._runs.pop(statement.run, None)

    def restore(self, db: sqlite3.Connection) -> bool:
        """Write again what is not there, inside the caller's transaction. Returns whether the file was without it, or without any run."""
        missing = [(run, script) for run, script in self._runs.items() if script.written and not _has(db, run, script)]
        for run, script in missing:
            # A copy of the file may hold a part of it: added to, its tokens and dollars would count twice.
            for table in ("answers", "attempts", "payments"):
                db.execute(f"DELETE FROM {table} WHERE run IN (?, ?, ?) AND at >= ?", (*_names(run), script.since))  # noqa: S608 - names of ours
            for sql, rows in (*script.written, *script.after):
                db.executemany(sql, rows)
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
    return count >= sum(map(len, script.answers.values())) and db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is not None
