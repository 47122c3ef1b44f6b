"""Read-only connections to the run log of any age: what an older one lacks is there, and empty."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from holynb.runlog import ledger, pieces, tables, vectors

__all__ = ["connection"]


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """One to the log at `path`; to an empty database where there is no log yet, or another process is just creating it.

    Raises sqlite3.Error.
    """
    with ExitStack() as stack:
        names: set[str] = set()
        if path.is_file():
            db = stack.enter_context(closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)))
            names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        if "answers_key" not in names:
            db = stack.enter_context(closing(sqlite3.connect(":memory:")))
            db.executescript(tables.SCHEMA)
        else:
            tables.view_missing(db)
            if "payments" not in names:
                db.execute(ledger.LEGACY_VIEW)
            if "batches" not in names:
                db.execute(pieces.EMPTY_VIEW)
            if "vectors" not in names:
                db.execute(vectors.EMPTY_VIEW)
        yield db
