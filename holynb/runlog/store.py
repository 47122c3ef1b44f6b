"""The run log: every request, attempt and answer of every run, in one SQLite file. Cache, resume and history are queries of it.

Holds no header and no key. Of errors only those are offered again that the same request would pay for again (`cached`).
Written through `writer`, read on connections of the caller's.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from holynb.errors import BadSetting
from holynb.events import Ended, Event, Failed
from holynb.journal import Payment
from holynb.runlog import gate, ledger, pieces, reader, records, tables, vectors
from holynb.runlog.logfile import connect
from holynb.runlog.pieces import StoredPiece
from holynb.runlog.promises import Failed as OnFailure
from holynb.runlog.promises import Promises, call
from holynb.runlog.records import RunRecord, StoredRow
from holynb.runlog.statements import MadeRows, Statement
from holynb.runlog.writer import LogWriter
from holynb.types import Outcome, Usage
from holynb.words import composed

__all__ = ["BrokenLog", "RunLog"]

#: Bound parameters of one query; SQLite's oldest limit is 999.
KEYS_PER_QUERY = 500
#: Above every row; rows whose requests are read at once; and of how many they are few.
ALL, REQUESTS_AT_ONCE, FEW = 2**62, 10_000, 16
#: Longest wait at a run's end for a log that another process holds.
END_WAIT_S = 30.0


class BrokenLog(BadSetting, sqlite3.DatabaseError):
    """The log cannot be read. Shown as one line; callers that can do without a log catch it as an SQLite error."""


class RunLog:
    """The log at `path`. One per process and file; processes may share the file. Methods that return futures run on the io loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = LogWriter(path, tables.SCHEMA, self._tell)
        self._promises: Promises | None = None
        self._listeners: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[str, Exception | None], None]]] = {}

    # -- writing ---------------------------------------------------------------------------------------------------
    def watch(self, listener: Callable[[str, Exception | None], None]) -> None:
        """Call `listener` on this loop with what comes over the log (`writer.Tell`)."""
        self._listeners[listener] = asyncio.get_running_loop(), listener

    def unwatch(self, listener: Callable[[str, Exception | None], None]) -> None:
        """End a `watch`. Idempotent."""
        self._listeners.pop(listener, None)

    def start(self, record: RunRecord, rows: Collection[StoredRow], aside: Iterable[int] = ()) -> asyncio.Future[None]:
        """Write a run and its requests; the future is done when they are on disk, or kept while the log cannot be written.

        `aside`: rows of the earlier run whose answers are to other requests: those stay in the cache under another run's id.
        """
        moved = [(f"/{time.time_ns()}", record.id, row) for row in aside]
        self._put(record.id, "UPDATE answers SET run = run || ? WHERE run = ? AND row = ?", moved)
        self._put(record.id, "DELETE FROM requests WHERE run = ? AND row >= ?", [(record.id, record.n)])
        self._put(record.id, tables.RUN_UPSERT, [records.run_row(record)])
        return self._write(record.id, tables.REQUEST_UPSERT, _requests(record.id, rows), eager=True)

    def known(self, run: str, rows: Collection[tuple[Ended, str | None]], *, shared: bool) -> None:
        """What the log has for a run that goes on: written only where the file is replaced before its end, to be paid once all the same."""
        answers = MadeRows(rows, lambda known: records.answer_row(run, *known, shared=shared))
        self._writer.add(Statement(tables.ANSWER_UPSERT, answers, run=run, replay=True))
        if shared:
            offered = "UPDATE answers SET shared = 1 WHERE run = ? AND status = 'ok'"
            self._writer.add(Statement(offered, [(run,)], run=run, replay=True))

    def add_requests(self, run: str, rows: Collection[StoredRow]) -> asyncio.Future[None]:
        """Write further requests of a run that goes on, or of one that is about to start."""
        return self._write(run, tables.REQUEST_UPSERT, _requests(run, rows))

    def record(
        self, run: str, event: Event, key: str | None, *, shared: bool, failed: OnFailure | None = None
    ) -> asyncio.Future[None] | None:
        """Write an event: Ended, which returns a future to wait for, or Failed. Others are not stored.

        failed: told why it could not be written, and the future does not fail then.
        """
        if isinstance(event, Ended):
            return self._write(run, tables.ANSWER_UPSERT, [records.answer_row(run, event, key, shared=shared)], failed, counts=True)
        if isinstance(event, Failed):
            self._put(run, tables.ATTEMPT_INSERT, [records.attempt_row(run, event)])
        return None

    def record_ends(
        self,
        run: str,
        ends: Iterable[tuple[Ended, str | None, bool]],
        failed: OnFailure | None = None,
        again: Callable[[int], Outcome | None] | None = None,
    ) -> asyncio.Future[None]:
        """Write the ends of rows together, each with its key and whether it is shared; as `record` does one.

        again: gives the outcome of a row once more, so that its vector need not be kept for a log that is replaced.
        """
        ended = list(ends)
        kept, stand = vectors.together([event.outcome.vector for event, _, _ in ended])
        if kept is not None:
            row = vectors.TogetherRow(kept, [event.row for event, _, _ in ended], again)
            self._writer.add(Statement(vectors.INSERT, row, row.forget, ledger.owner(run)))
        rows = [records.answer_row(run, e, key, shared=shared, vector=v) for (e, key, shared), v in zip(ended, stand, strict=True)]
        return self._write(run, tables.ANSWER_UPSERT, rows, failed, counts=True)

    def record_payment(self, run: str, payment: Payment) -> None:
        """Write a payment; it is on disk before anything recorded after it."""
        self._put(run, ledger.INSERT, [records.printable(ledger.to_row(run, payment))], leads=True)

    def record_shares(self, run: str, payment: Payment, rows: Sequence[int], parts: Sequence[tuple[Usage, Decimal | None]]) -> None:
        """The same of rows that were asked together, each with its part."""
        self._put(run, ledger.INSERT, ledger.to_rows(records.printable(ledger.to_row(run, payment)), rows, parts), leads=True)

    def hold(self, run: str, dollars: Decimal, unseen: Decimal) -> asyncio.Future[None]:
        """Write the most that may be gone of a run's budget by now, and what of it was under way when the run was killed before."""
        return self._write(run, tables.RUN_HOLD, [(str(dollars), str(unseen), run)])

    def submit(self, piece: StoredPiece) -> asyncio.Future[None]:
        """Write that a batch is about to be submitted. Fails where it cannot be written: the batch would not be found again."""
        deadline = time.monotonic() + END_WAIT_S
        return self._write(piece.run, pieces.INSERT, [pieces.row(piece)], durable=True, deadline=deadline)

    def move(self, piece: StoredPiece) -> asyncio.Future[None]:
        """Write how a batch has moved on, after everything that was recorded before."""
        p = piece
        return self._write(p.run, pieces.MOVE, [(p.state, p.id, p.submitted, p.fetch_before, p.run, p.piece)])

    def ask_to_end(self, piece: StoredPiece) -> asyncio.Future[None]:
        """Write that a batch is to end, for the process that continues its run. Only while something is to come of it."""
        return self._write(piece.run, pieces.ASK_TO_END, [(piece.run, piece.piece)])

    def finish(self, run: str, status: str) -> asyncio.Future[None]:
        """Write how a run ended: done, stopped, failed. Waits END_WAIT_S for a log that is locked; fails where it cannot be written."""
        ended, deadline = [(status, time.time(), run)], time.monotonic() + END_WAIT_S
        return self._write(run, tables.RUN_END, ended, durable=True, last=True, deadline=deadline)

    def close(self) -> None:
        """Write what is queued; end the writer's thread."""
        self._writer.close()

    def _put(self, run: str, sql: str, rows: list[tuple[Any, ...]], *, leads: bool = False) -> None:
        self._writer.add(Statement(sql, rows, run=ledger.owner(run), leads=leads))

    def _write(
        self, run: str, sql: str, rows: Collection[Sequence[Any]], failed: OnFailure | None = None, **facts: Any
    ) -> asyncio.Future[None]:
        """Queue a statement; the future is done when it is on disk or kept, and fails where neither can be."""
        loop, promises = asyncio.get_running_loop(), self._promises
        if promises is None or promises.loop is not loop:
            promises = self._promises = Promises(loop)
        future: asyncio.Future[None] = loop.create_future()
        resolve = functools.partial(promises.resolve, future, failed)
        self._writer.add(Statement(sql, rows, resolve, ledger.owner(run), **facts))
        return future

    def _tell(self, what: str, why: Exception | None) -> None:
        for loop, listener in list(self._listeners.values()):
            call(loop, listener, what, why)

    # -- reading ---------------------------------------------------------------------------------------------------
    def cached(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """The newest shared ok answer of each key that has one, as stored (with its own cost and latency).

        Without one, the error of a request that ended by length before a word of its answer came: asked again it would be paid again.
        """
        with self.reading() as db:
            # An older log has neither such rows nor their index.
            indexed = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers_spent'").fetchone()
            spent = _by_key(db, keys, tables.SPENT) if indexed else {}
            return spent | _by_key(db, keys, "status = 'ok'")

    def answers(self, run: str, rows: range | None = None) -> dict[int, tuple[str | None, Outcome]]:
        """Row → (key, outcome) of everything a run has answered or failed at; of these rows alone where they are given."""
        first, end = (0, ALL) if rows is None else (rows.start, rows.stop)
        with self.reading() as db:
            sql = f"SELECT row, key, {tables.ANSWER_COLUMNS} FROM answers WHERE run=? AND row >= ? AND row < ?"  # noqa: S608
            held = vectors.Vectors(db)
            return {row: (key, records.outcome(columns, held)) for row, key, *columns in db.execute(sql, (run, first, end))}

    def requests(self, run: str) -> list[StoredRow]:
        """The requests of a run, in order of row and sample."""
        return list(self.each_request(run))

    def each_request(self, run: str) -> Iterator[StoredRow]:
        """The same one by one, so that many need not be there at once."""
        first = 0
        while True:
            with self.reading() as db:
                sql = (
                    "SELECT row, sample, key, label, body FROM requests WHERE run=?1 AND row >= ?2 AND row < ?3 "
                    "AND row < coalesce((SELECT n FROM runs WHERE id=?1), 1e18) ORDER BY row, sample"
                )
                rows = db.execute(sql, (run, first, first + REQUESTS_AT_ONCE)).fetchall()
                last = db.execute("SELECT max(row) FROM requests WHERE run=?", (run,)).fetchone()[0]
            yield from (records.stored_row(*r) for r in rows)
            first += REQUESTS_AT_ONCE
            if last is None or first > last:
                return

    def batches(self, run: str | None = None, *, only_open: bool = True) -> list[StoredPiece]:
        """The batches of a run, or of all, in order; those from which something is still to come."""
        which = [f"state IN {pieces.OPEN}"] * only_open + ["run = ?"] * (run is not None)
        where = f" WHERE {' AND '.join(which)}" if which else ""
        sql = f"SELECT {pieces.COLUMNS} FROM batches{where} ORDER BY run, piece"  # noqa: S608 - names of ours
        with self.reading() as db:
            return [pieces.piece(columns) for columns in db.execute(sql, () if run is None else (run,))]

    def last_piece(self, run: str) -> int:
        """The number of a run's last batch; 0 where it has none."""
        with self.reading() as db:
            return int(db.execute("SELECT coalesce(max(piece), 0) FROM batches WHERE run = ?", (run,)).fetchone()[0])

    def since(self, run: str) -> tuple[dict[int, float], dict[int, float]]:
        """When each row of a run ended in an error, and when each was last paid for: seconds since 1970."""
        with self.reading() as db:
            failed = db.execute("SELECT row, at FROM answers WHERE run = ? AND status = 'error'", (run,)).fetchall()
            return dict(failed), dict(db.execute("SELECT row, max(at) FROM payments WHERE run = ? GROUP BY row", (run,)).fetchall())

    def runs(self, limit: int = 50) -> list[RunRecord]:
        """The newest runs first."""
        return self._records("ORDER BY started DESC LIMIT ?", (limit,))

    def find(self, name: str) -> RunRecord | None:
        """The run with this id, or the newest with this name, or one whose id starts with it (4 characters at least)."""
        for where in ("WHERE id=?1", "WHERE name=?1 ORDER BY started DESC LIMIT 1", "WHERE length(?1) >= 4 AND id LIKE ?1 || '%' LIMIT 1"):
            if matches := self._records(where, (composed(name),)):
                return matches[0]
        return None

    def clear(self) -> int:
        """Empty the cache: nothing stored is used for new runs. Returns how many answers there were."""
        if not self.path.exists():
            return 0
        with gate.inside(), self._broken_log(), closing(connect(self.path)) as db:
            db.execute(f"UPDATE answers SET shared = 0 WHERE {tables.SPENT} AND shared = 1")  # noqa: S608
            return db.execute("UPDATE answers SET shared=0 WHERE shared=1 AND status='ok'").rowcount

    def _records(self, clauses: str, args: Sequence[Any]) -> list[RunRecord]:
        with self.reading() as db:
            return [records.run_record(row) for row in db.execute(f"{tables.RUNS} {clauses}", args)]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection; to an empty database where there is no log yet, or another process is just creating it.

        Raises BrokenLog.
        """
        with gate.inside(), self._broken_log(), reader.connection(self.path) as db:
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


def _by_key(db: sqlite3.Connection, keys: Sequence[str], which: str) -> dict[str, Outcome]:
    """The newest shared answer of each key among those that `which`, a condition of ours, holds for."""
    outcomes, held = dict[str, Outcome](), vectors.Vectors(db)
    for i in range(0, len(keys), KEYS_PER_QUERY):
        batch = keys[i : i + KEYS_PER_QUERY]
        where = f"key IN ({','.join('?' * len(batch))}) AND {which} AND shared = 1"
        sql = f"SELECT key, {tables.ANSWER_COLUMNS} FROM answers WHERE {where} ORDER BY at"  # noqa: S608
        outcomes.update((key, records.outcome(columns, held)) for key, *columns in db.execute(sql, batch))
    return outcomes


def _requests(run: str, rows: Collection[StoredRow]) -> Collection[tuple[Any, ...]]:
    rows_made = MadeRows(rows, functools.partial(records.request_row, run))
    return rows_made if len(rows) > FEW else list(rows_made)  # a list is written in one statement with others, such as those of a judge
