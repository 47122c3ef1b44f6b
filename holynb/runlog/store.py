"""The run log: every request, attempt and answer of every run, in one SQLite file. Cache, resume and history are queries of it.

Holds no header and no key. Errors are never offered as answers. Written through `writer`, read on connections of the caller's.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from holynb.errors import BadSetting
from holynb.journal import Payment
from holynb.runlog import ledger, records, tables
from holynb.runlog.records import RunRecord, StoredRow
from holynb.runlog.writer import LogWriter, connect
from holynb.types import Ended, Event, Failed, Outcome

__all__ = ["BrokenLog", "RunLog"]

#: Bound parameters of one query; SQLite's oldest limit is 999.
KEYS_PER_QUERY = 500


class BrokenLog(BadSetting, sqlite3.DatabaseError):
    """The log cannot be read. Shown as one line; callers that can do without a log catch it as an SQLite error."""


class RunLog:
    """The log at `path`. One per process and file; processes may share the file. Methods that return futures run on the io loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = LogWriter(path, tables.SCHEMA)

    # -- writing ---------------------------------------------------------------------------------------------------
    def start(self, record: RunRecord, rows: Iterable[StoredRow], aside: Iterable[int] = ()) -> asyncio.Future[None]:
        """Write a run and its requests; the future is done when they are on disk. Call on the io loop.

        `aside`: rows of the earlier run whose answers are to other requests: those stay in the cache under another run's id.
        """
        self.create_file()
        self._writer.put(
            "UPDATE answers SET run = run || ? WHERE run = ? AND row = ?", [(f"/{time.time_ns()}", record.id, row) for row in aside]
        )
        self._writer.put("DELETE FROM requests WHERE run = ? AND row >= ?", [(record.id, record.n)])
        self._writer.put(tables.RUN_UPSERT, [records.run_row(record)])
        return self._write(tables.REQUEST_UPSERT, [records.request_row(record.id, r) for r in rows])

    def add_requests(self, run: str, rows: Iterable[StoredRow]) -> asyncio.Future[None]:
        """Write further requests of a run that goes on."""
        return self._write(tables.REQUEST_UPSERT, [records.request_row(run, r) for r in rows])

    def record(self, run: str, event: Event, key: str | None, *, shared: bool) -> asyncio.Future[None] | None:
        """Write an event: Ended, which returns a future to wait for, or Failed. Others are not stored."""
        if isinstance(event, Ended):
            return self._write(tables.ANSWER_UPSERT, [records.answer_row(run, event, key, shared=shared)])
        if isinstance(event, Failed):
            self._writer.put(tables.ATTEMPT_INSERT, [records.attempt_row(run, event)])
        return None

    def record_payment(self, run: str, payment: Payment) -> None:
        """Write a payment; it is on disk before anything recorded after it."""
        self._writer.put(ledger.INSERT, [tuple(map(records.printable, ledger.to_row(run, payment)))])

    def finish(self, run: str, status: str) -> asyncio.Future[None]:
        """Write how a run ended: done, stopped, failed."""
        return self._write("UPDATE runs SET status=?, ended=? WHERE id=?", [(status, time.time(), run)])

    def close(self) -> None:
        """Write what is queued; end the writer's thread."""
        self._writer.close()

    def create_file(self) -> None:
        """Create the file, readable by its owner alone. Idempotent."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> asyncio.Future[None]:
        """Queue a statement; the future is done when it is on disk, and fails where it cannot be written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def on_commit(failure: Exception | None) -> None:
            if not loop.is_closed():  # no one waits any more; the statement is written all the same
                with suppress(RuntimeError):  # closed in between
                    loop.call_soon_threadsafe(_resolve, future, failure)

        self._writer.put(sql, rows, on_commit)
        return future

    # -- reading ---------------------------------------------------------------------------------------------------
    def cached(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """The newest shared ok answer of each key that has one, as stored (with its own cost and latency)."""
        with self.reading() as db:
            outcomes: dict[str, Outcome] = {}
            for i in range(0, len(keys), KEYS_PER_QUERY):
                batch = keys[i : i + KEYS_PER_QUERY]
                where = f"key IN ({','.join('?' * len(batch))}) AND status='ok' AND shared=1"
                sql = f"SELECT key, {tables.ANSWER_COLUMNS} FROM answers WHERE {where} ORDER BY at"  # noqa: S608
                outcomes.update((key, records.outcome(columns)) for key, *columns in db.execute(sql, batch))
            return outcomes

    def answers(self, run: str) -> dict[int, tuple[str | None, Outcome]]:
        """Row → (key, outcome) of everything a run has answered or failed at."""
        with self.reading() as db:
            rows = db.execute(f"SELECT row, key, {tables.ANSWER_COLUMNS} FROM answers WHERE run=?", (run,))  # noqa: S608
            return {row: (key, records.outcome(columns)) for row, key, *columns in rows}

    def requests(self, run: str) -> list[StoredRow]:
        """The requests of a run, in order of row and sample."""
        with self.reading() as db:
            sql = (
                "SELECT row, sample, key, label, body FROM requests WHERE run=?1 AND row < coalesce((SELECT n FROM runs WHERE id=?1), 1e18)"
            )
            rows = db.execute(f"{sql} ORDER BY row, sample", (run,)).fetchall()
        return [records.stored_row(*r) for r in rows]

    def runs(self, limit: int = 50) -> list[RunRecord]:
        """The newest runs first."""
        return self._records("ORDER BY started DESC LIMIT ?", (limit,))

    def find(self, name: str) -> RunRecord | None:
        """The run with this id, or the newest with this name, or one whose id starts with it (4 characters at least)."""
        for where in ("WHERE id=?1", "WHERE name=?1 ORDER BY started DESC LIMIT 1", "WHERE length(?1) >= 4 AND id LIKE ?1 || '%' LIMIT 1"):
            if matches := self._records(where, (name,)):
                return matches[0]
        return None

    def clear(self) -> int:
        """Empty the cache: no stored answer is used for new runs. Returns how many there were."""
        if not self.path.exists():
            return 0
        with self._broken_log(), closing(connect(self.path)) as db:
            return db.execute("UPDATE answers SET shared=0 WHERE shared=1 AND status='ok'").rowcount

    def _records(self, clauses: str, args: Sequence[Any]) -> list[RunRecord]:
        sql = (  # noqa: S608 - `clauses` is one of ours
            "SELECT id, name, route, n, started, ended, status, spec, (SELECT count(*) FROM answers a WHERE a.run=r.id AND a.status='ok'), "
            "(SELECT count(*) FROM answers a WHERE a.run=r.id AND a.status='error'), "
            "(SELECT group_concat(cost) FROM answers a WHERE a.run=r.id) FROM runs r "
        ) + clauses
        with self.reading() as db:
            return [records.run_record(row) for row in db.execute(sql, args)]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection; to an empty database where there is no log yet, or another process is just creating it.

        Raises BrokenLog.
        """
        with self._broken_log(), ExitStack() as stack:
            names: set[str] = set()
            if self.path.is_file():
                db = stack.enter_context(closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30.0)))
                names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if "answers_key" not in names:
                db = stack.enter_context(closing(sqlite3.connect(":memory:")))
                db.executescript(tables.SCHEMA)
            elif "payments" not in names:
                db.execute(ledger.LEGACY_VIEW)
            yield db

    @contextmanager
    def _broken_log(self) -> Iterator[None]:
        """SQLite's errors as BrokenLog."""
        try:
            yield
        except sqlite3.Error as exc:
            raise BrokenLog(
                f"The run log {self.path} cannot be read ({exc}). holynb doctor says what to do; once it is moved away, a new one is begun."
            ) from exc


def _resolve(future: asyncio.Future[None], failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
