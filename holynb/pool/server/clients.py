"""Who asks over the port by a named token, and what each has used of its tokens of a day. Knows their file and SQLite; no HTTP, no jobs.

A request holds what it may use at most (its prompt and its longest answers) until its end, when what it did use is counted: so no limit of
a day is passed, however many requests come at once. Counts are of all pools of this machine, by its calendar day, and are written a second
after they change (`HOLYNB_HOME/pool-usage.sqlite`, 0600): a pool that is killed forgets no more than that.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from holynb import port_tokens
from holynb.pool.server.apierror import ApiError
from holynb.port_tokens import PortToken

__all__ = ["Clients", "Hold"]

_WRITE_AFTER_S = 1.0

#: When a request may come again that only others under way hold up.
_HELD_S = 2

_TABLE = (
    "CREATE TABLE IF NOT EXISTS used(day TEXT NOT NULL, name TEXT NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY(day, name)) WITHOUT ROWID"
)
_ADD = "INSERT INTO used VALUES(?, ?, ?) ON CONFLICT(day, name) DO UPDATE SET tokens = tokens + excluded.tokens"


@dataclass(slots=True)
class Hold:
    """What a request in flight may use at most. `settle` it once, with what it did use."""

    clients: Clients
    name: str | None
    tokens: int

    def settle(self, used: int) -> None:
        self.clients.settle(self, used)


class Clients:
    """Used on the server's loop alone. `home`: None knows nobody."""

    def __init__(self, home: Path | None = None) -> None:
        self._home = home
        self._stamp: tuple[int, int] | None = None
        self._by_digest: dict[str, PortToken] = {}
        self._day = ""
        self._stored: dict[str, int] = {}
        self._unwritten: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._writing: asyncio.TimerHandle | None = None

    def name_of(self, key: bytes) -> str | None:
        """Whose token this is; None: nobody's."""
        self._read()
        token = self._by_digest.get(port_tokens.digest(key)) if key else None
        return token.name if token else None

    def hold(self, name: str | None, tokens: int) -> Hold:
        """Let a request use up to `tokens`; None is the pool's owner, who has no limit. Raises ApiError 429 above the day's limit."""
        if name is None:
            return Hold(self, None, 0)
        self._today()
        limit = self._limit(name)
        used, held = self._used(name), self._held.get(name, 0)
        if limit is not None and used + tokens > limit:
            words, wait = _refusal(name, limit, used, tokens), _to_midnight()
            raise ApiError(429, words, code="insufficient_quota", headers={"retry-after": str(wait)})
        if limit is not None and used + held + tokens > limit:
            words = f"The token {name} has {limit:,} tokens a day, and {held:,} are held by its requests under way. This one is taken when they end."
            raise ApiError(429, words, code="rate_limit_exceeded", headers={"retry-after": str(_HELD_S)})
        self._held[name] = held + tokens
        return Hold(self, name, tokens)

    def settle(self, hold: Hold, used: int) -> None:
        if hold.name is None:
            return
        self._today()
        self._held[hold.name] -= hold.tokens
        self._unwritten[hold.name] = self._unwritten.get(hold.name, 0) + used
        hold.name = None
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(_WRITE_AFTER_S, self.write)

    def figures(self) -> list[dict[str, Any]]:
        """Of each named token: name, used (tokens of today), per_day (None: without a limit)."""
        self._read()
        if self._by_digest:
            self._today()
        return [{"name": t.name, "used": self._used(t.name), "per_day": t.tokens_per_day} for t in self._by_digest.values()]

    def write(self) -> None:
        """Add what is not written yet to the file, and learn what other pools have added."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._home is None or not self._day:
            return
        unwritten, self._unwritten = self._unwritten, {}
        file = self._home / "pool-usage.sqlite"
        try:
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(file, timeout=0.5, isolation_level=None)) as db:
                db.execute(_TABLE)
                db.executemany(_ADD, [(self._day, name, tokens) for name, tokens in unwritten.items() if tokens])
                self._stored = dict(db.execute("SELECT name, tokens FROM used WHERE day = ?", (self._day,)))
        except (OSError, sqlite3.Error):  # counted here all the same, and written with the next ones
            for name, tokens in unwritten.items():
                self._unwritten[name] = self._unwritten.get(name, 0) + tokens

    def _used(self, name: str) -> int:
        return self._stored.get(name, 0) + self._unwritten.get(name, 0)

    def _limit(self, name: str) -> int | None:
        return next((t.tokens_per_day for t in self._by_digest.values() if t.name == name), None)

    def _today(self) -> None:
        """Begin at what the file has of today, and at midnight anew; requests in flight then count for the new day."""
        today = date.today().isoformat()  # noqa: DTZ011 - the day of whoever runs the pool
        if today != self._day:
            self.write()
            self._day, self._stored, self._unwritten = today, {}, {}
            self.write()

    def _read(self) -> None:
        """Read the tokens' file where it has changed. One that cannot be read lets nobody in."""
        if self._home is None:
            return
        try:
            status = port_tokens.path(self._home).stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            tokens = port_tokens.read(self._home)
        except (OSError, ValueError):
            stamp, tokens = None, []
        self._stamp, self._by_digest = stamp, {token.sha256: token for token in tokens}


def _to_midnight() -> int:
    """Seconds until this machine's next day, rounded up."""
    now = datetime.now()  # noqa: DTZ005 - as above
    return int((datetime.combine(now.date() + timedelta(days=1), time()) - now).total_seconds()) + 1


def _refusal(name: str, limit: int, used: int, tokens: int) -> str:
    hours, minutes = divmod(_to_midnight() // 60, 60)
    return (
        f"The token {name} has {limit:,} tokens a day; {used:,} are used, and this request may take {tokens:,} (its prompt and its longest answer). "
        f"Ask for a shorter answer (max_tokens), or wait {hours} h {minutes} min, until midnight."
    )
