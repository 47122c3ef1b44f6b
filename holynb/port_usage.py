"""What each named token has used of a pool's tokens, by day: a file of all pools of this machine. Knows SQLite; no pools and no HTTP.

`HOLYNB_HOME/pool-usage.sqlite` (0600). Days are this machine's calendar days. Every function waits for its disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

__all__ = ["add", "by_day", "path"]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS used(day TEXT NOT NULL, name TEXT NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY(day, name)) WITHOUT ROWID"
)
_ADD = "INSERT INTO used VALUES(?, ?, ?) ON CONFLICT(day, name) DO UPDATE SET tokens = tokens + excluded.tokens"
#: For the lock of whoever else writes, seconds.
_WAIT_S = 0.5


def path(home: Path) -> Path:
    return home / "pool-usage.sqlite"


def add(home: Path, counts: Mapping[tuple[str, str], int], day: str, wait_s: float = _WAIT_S) -> dict[str, int]:
    """Add the tokens of each (day, name), all or none. Returns what each name has of `day` then. Raises OSError, sqlite3.Error."""
    os.close(os.open(path(home), os.O_CREAT | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(path(home), timeout=wait_s, isolation_level=None)) as db:
        db.execute(_TABLE)
        if rows := [(*key, tokens) for key, tokens in counts.items() if tokens]:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_ADD, rows)
            db.execute("COMMIT")
        return dict(db.execute("SELECT name, tokens FROM used WHERE day = ?", (day,)))


def by_day(home: Path, since: str) -> dict[str, dict[str, int]]:
    """Name → day → tokens, from the day `since` (ISO) on. Empty where nothing was ever counted. Raises sqlite3.Error."""
    used: dict[str, dict[str, int]] = {}
    if path(home).exists():
        with closing(sqlite3.connect(f"file:{path(home)}?mode=ro", uri=True, timeout=_WAIT_S)) as db:
            for name, day, tokens in db.execute("SELECT name, day, tokens FROM used WHERE day >= ? ORDER BY day", (since,)):
                used.setdefault(name, {})[day] = tokens
    return used
