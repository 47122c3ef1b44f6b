"""The open file of the run log: its connection, and whether it is still the file at its path. Knows SQLite; knows nothing of runs.

Nobody else opens and closes the file itself: a close drops all of a process' POSIX locks on it, SQLite's too, and then another process
removes the write-ahead log from under this one.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from holynb.runlog import tables
from holynb.runlog.statements import Statement, batches, wide
from kernels_support.jupyter.lock import Lock

__all__ = ["BUSY_S", "LogFile", "connect", "is_file_trouble", "is_locked"]

T = TypeVar("T")

BUSY_S = 30.0
#: Fewer are written as they are: there is little to put together.
FEW_STATEMENTS = 4
#: Pages of the write-ahead log after which SQLite copies it into the file by itself, in the middle of a run; and pages by which the file
#: has grown that are worth it when a run is over.
WAL_PAGES, CHECKPOINT_PAGES = 32_768, 1_000
#: Longest wait for another process that creates the same file.
CREATE_S = 5.0


def connect(path: Path, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection that waits up to 30 s for another kernel. WAL where the filesystem can; else the rollback journal."""
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        _write_ahead(db, busy_s)
    except sqlite3.DatabaseError as exc:
        if not isinstance(exc, sqlite3.OperationalError) or any(word in str(exc) for word in ("locked", "full", "readonly")):
            db.close()
            raise
        db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA synchronous=NORMAL")
    return db


def _write_ahead(db: sqlite3.Connection, busy_s: float) -> None:
    """Change to WAL. While another process creates the same file, SQLite fails at once instead of waiting (against deadlock): retry."""
    deadline, changed = time.monotonic() + busy_s, False
    while not changed:
        try:
            db.execute("PRAGMA journal_mode=WAL").fetchone()
            changed = True
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def is_locked(exc: Exception) -> bool:
    """Whether another process holds the file, so that it will be free."""
    return isinstance(exc, sqlite3.OperationalError) and any(word in str(exc) for word in ("locked", "busy"))


def is_file_trouble(exc: Exception) -> bool:
    """Whether the file is at fault (locked, full, read-only, broken), and not the statement."""
    return isinstance(exc, OSError | sqlite3.OperationalError) or type(exc) is sqlite3.DatabaseError


class LogFile:
    """Owned by the writer's thread. `replaced`: whether another file, or none, lay at the path since it was reset."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._names = tuple(f"{path}{end}" for end in ("", "-wal", "-shm"))
        self.replaced = False
        self._schema = schema
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[tuple[int, int] | None, ...] = ()
        self._size = 0
        self._sides = True
        self._pages = 0
        self._busy_s = BUSY_S

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def open(self, busy_s: float) -> None:
        """Open it, and create what is missing: folder, file, tables. Raises sqlite3.Error, OSError."""
        self._create()
        db = connect(self.path, busy_s)
        try:
            db.create_function("plus", 2, _plus, deterministic=True)
            db.executescript(self._schema)
            tables.add_missing(db)
            self.path.chmod(0o600)
            db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            self._sides = db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            before = self._identity
            self._identity, self._size = self._look()
            self._busy_s = busy_s
        except (sqlite3.Error, OSError):
            db.close()
            raise
        # The one that `is_current` still saw may have gone since: a folder is deleted file by file.
        self.replaced |= bool(before) and before[0] != self._identity[0]
        self._db = db

    def close(self) -> None:
        """Close it. SQLite leaves the write-ahead log alone where the file at the path is another one by now."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def close_in_trouble(self, failure: Exception) -> None:
        """Close it after a failure; where it was a log when it was opened and is none any more, what is left is moved aside."""
        if self._db is not None and type(failure) is sqlite3.DatabaseError:
            with suppress(OSError):
                self.replaced = not self._is_whole(self.path.stat().st_size)
        self.close()

    def wait_for_others(self, seconds: float) -> None:
        """How long a statement waits for another process."""
        if self._db is not None and seconds != self._busy_s:
            self._db.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
            self._busy_s = seconds

    def is_current(self) -> bool:
        """Whether what is written now is found at the path. A file that was cut off is moved aside, and then is not."""
        try:
            identity, size = self._look()
        except FileNotFoundError:
            self.replaced = True
            return False
        except OSError:  # a network disk that does not answer: the write itself says so
            return True
        if identity != self._identity:
            self.replaced = identity[0] != self._identity[0]
            return False
        if size < self._size and not self._is_whole(size):
            self.replaced = True
            return False
        self._size = size
        return True

    def commit(self, statements: Sequence[Statement]) -> None:
        """Write them in one transaction."""

        def write(db: sqlite3.Connection) -> None:
            few = len(statements) < FEW_STATEMENTS
            steps = (step for s in statements for step in wide(s.sql, s.rows)) if few else batches(statements)
            for sql, rows in steps:
                db.executemany(sql, rows)

        self.transaction(write)

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in one transaction: all of it or nothing."""
        db = self._db
        if db is None:
            raise sqlite3.OperationalError("the file is not open")
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        return result

    def checkpoint(self) -> None:
        """Copy what is in the write-ahead log into the file, where that is much: nobody waits for it now."""
        if self._db is None:
            return
        with suppress(sqlite3.Error):  # it stays where it is, and is copied later
            (pages,) = self._db.execute("PRAGMA page_count").fetchone()
            if pages - self._pages >= CHECKPOINT_PAGES:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._pages = pages

    def _look(self) -> tuple[tuple[tuple[int, int] | None, ...], int]:
        """Which files lie at the path and beside it, and the size of the first."""
        main = os.stat(self._names[0])  # noqa: PTH116 - three for every group of rows: Path's own costs as much again
        sides = (_stat_side(name) for name in self._names[1:]) if self._sides else ()
        return ((main.st_dev, main.st_ino), *sides), main.st_size

    def _is_whole(self, size: int) -> bool:
        """Whether a file that has become smaller is still a log (VACUUM elsewhere). What is left of one that is not is moved aside."""
        if size:
            # On a connection of its own: this one reads what it has in memory.
            with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, timeout=BUSY_S)) as db:
                if db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                    return True
        with suppress(OSError):  # Windows moves no open file; what is written then fails and is said
            if size:
                self.path.replace(f"{self.path}.broken")
            else:
                self.path.unlink()
        return False

    def _create(self) -> None:
        """An empty file, its owner's alone, without the write-ahead log that a deleted one left."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            return
        self.replaced |= bool(self._identity)  # there was one; a new file may even get its number
        lock = Lock(self.path.with_name(f"{self.path.name}-new"))
        with suppress(OSError):  # the filesystem has no locks
            lock.take(CREATE_S)  # or another process would lose the write-ahead log that it has just begun
        try:
            if not self.path.exists():
                for end in ("-wal", "-shm"):
                    Path(f"{self.path}{end}").unlink(missing_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        finally:
            lock.free(remove=True)


def _stat_side(name: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(name)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _plus(one: str | None, other: str | None) -> str | None:
    """The exact sum of two decimals stored as text; the other where one is NULL (SQL's `plus`)."""
    return other if one is None else one if other is None else str(Decimal(one) + Decimal(other))
