"""The one thread that writes the run log: takes statements from any thread, commits them in groups, calls back when they are on disk.

A group is what arrived while the last one was being committed: a single row does not wait, and a thousand share a commit.
Knows SQLite; knows nothing of runs.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

__all__ = ["LogWriter", "connect"]

#: A statement, its rows, and the callback for its failure (None on success).
Statement = tuple[str, Sequence[Sequence[Any]], Callable[[Exception | None], None] | None]

MAX_STATEMENTS_PER_COMMIT = 512
BUSY_S = 30.0


def connect(path: Path) -> sqlite3.Connection:
    """A connection that waits up to 30 s for another kernel. WAL where the filesystem can; else the rollback journal."""
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _write_ahead(db)
    except sqlite3.DatabaseError as exc:
        if not isinstance(exc, sqlite3.OperationalError) or any(word in str(exc) for word in ("locked", "full", "readonly")):
            db.close()
            raise
        db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA synchronous=NORMAL")
    return db


def _write_ahead(db: sqlite3.Connection) -> None:
    """Change to WAL. While another process creates the same file, SQLite fails at once instead of waiting (against deadlock): retry."""
    deadline, changed = time.monotonic() + BUSY_S, False
    while not changed:
        try:
            db.execute("PRAGMA journal_mode=WAL").fetchone()
            changed = True
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class LogWriter:
    """Owner of the writing connection. Its thread starts at the first `put`; `close` writes what is left and ends it."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._queue: queue.SimpleQueue[Statement | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, sql: str, rows: Sequence[Sequence[Any]], on_commit: Callable[[Exception | None], None] | None = None) -> None:
        """Queue a statement for every row of `rows`. `on_commit` is called on the writer's thread once it is committed or has failed."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="holynb-log", daemon=True)
                self._thread.start()
            self._queue.put((sql, rows, on_commit))

    def close(self, timeout: float = BUSY_S) -> None:
        """Write what is queued and end the thread. Idempotent; a later `put` starts a new one."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        ending = False
        while not ending:
            group = self._group()
            ending = group[-1] is None
            statements = [i for i in group if i is not None]
            if not statements:
                continue
            try:
                db = db or self._open()
                _commit(db, statements)
                failure = None
            except (sqlite3.Error, OSError) as exc:
                failure = exc
                if db is not None:
                    _roll_back(db)
            for *_, on_commit in statements:
                if on_commit is not None:
                    on_commit(failure)
        if db is not None:
            db.close()

    def _group(self) -> list[Statement | None]:
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < MAX_STATEMENTS_PER_COMMIT:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return group

    def _open(self) -> sqlite3.Connection:
        db = connect(self.path)
        try:
            db.create_function("plus", 2, _plus, deterministic=True)
            db.executescript(self._schema)
            self.path.chmod(0o600)
        except (sqlite3.Error, OSError):
            db.close()
            raise
        return db


def _plus(one: str | None, other: str | None) -> str | None:
    """The exact sum of two decimals stored as text; the other where one is NULL (SQL's `plus`)."""
    return other if one is None else one if other is None else str(Decimal(one) + Decimal(other))


def _commit(db: sqlite3.Connection, statements: Sequence[Statement]) -> None:
    db.execute("BEGIN IMMEDIATE")
    for sql, rows, _ in statements:
        db.executemany(sql, rows)
    db.execute("COMMIT")


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")
