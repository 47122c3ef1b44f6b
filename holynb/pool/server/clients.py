"""Who asks over the port by a named token, and what each has used of its tokens of a day. Knows their file and SQLite; no HTTP, no jobs.

A request holds what it may use at most (its prompt and its longest answers) until its end, when what it did use is counted: so no limit of
a day is passed, however many requests come at once. Counts are of all pools of this machine, by its calendar day, and are written a second
after they change (`HOLYNB_HOME/pool-usage.sqlite`, 0600): a pool that is killed forgets no more than that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from holynb import port_tokens, port_usage
from holynb.pool.server.apierror import ApiError
from holynb.port_tokens import PortToken

__all__ = ["Clients", "Hold"]

_WRITE_AFTER_S = 1.0
#: How long a writing waits for another pool's, seconds; and the last one.
_LOCKED_S, _LOCKED_AT_END_S = 0.5, 5.0

#: When a request may come again that only others under way hold up.
_HELD_S = 2


@dataclass(slots=True)
class Hold:
    """What a request in flight may use at most. `settle` it once, with what it did use."""

    clients: Clients
    name: str | None
    tokens: int

    def settle(self, used: int) -> None:
        self.clients.settle(self, used)


class Clients:
    """Used on the server's loop alone, which never waits for a file: they are read and written in two threads, each in order. `home`: None
    knows nobody. `close` at the end.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._home = home
        self._stamp: tuple[int, int] | None = None
        self._by_digest: dict[str, PortToken] = {}
        self._day = ""
        self._stored: dict[str, int] = {}
        """Tokens of `_day` by name, as the file last had them."""
        self._unwritten: dict[tuple[str, str], int] = {}
        """Tokens by day and name."""
        self._in_flight: dict[tuple[str, str], int] = {}
        """As above, on their way into the file."""
        self._held: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._one_exchange = asyncio.Lock()
        self._tokens_thread = ThreadPoolExecutor(1, "holynb-tokens")
        self._usage_thread = ThreadPoolExecutor(1, "holynb-usage")

    async def name_of(self, key: bytes) -> str | None:
        """Whose token this is; None: nobody's. Raises ApiError 401 where it has expired."""
        await self._read()
        token = self._by_digest.get(port_tokens.digest(key)) if key else None
        if token is not None and token.is_expired:
            on = token.expires[:16].replace("T", " ")
            words = (
                f"The token {token.name} expired on {on}. Ask whoever runs the pool (holynb pool token set {token.name} --expires DURATION)"
            )
            raise ApiError(401, words, code="invalid_api_key")
        return token.name if token else None

    async def hold(self, name: str | None, tokens: int, prompt: int | None = None, answers: int = 1) -> Hold:
        """Let a request use up to `tokens`; None is the pool's owner, who has no limit. Raises ApiError 429 above the day's limit.

        `prompt`: those of them that it takes in any case (None: all), beside so many `answers`.
        """
        if name is None:
            return Hold(self, None, 0)
        await self._begin_day()
        limit = self._limit(name)
        used, held = self._used(name), self._held.get(name, 0)
        if limit is not None and used + tokens > limit:
            least = tokens if prompt is None else prompt
            words, wait = _refusal(name, limit, used, tokens, least=least, answers=answers), _to_midnight()
            raise ApiError(429, words, code="insufficient_quota", headers={"retry-after": str(wait)})
        if limit is not None and used + held + tokens > limit:
            words = f"The token {name} has {limit:,} tokens a day, and {held:,} are held by its requests under way. This one is taken when they end."
            raise ApiError(429, words, code="rate_limit_exceeded", headers={"retry-after": str(_HELD_S)})
        self._held[name] = held + tokens
        return Hold(self, name, tokens)

    def settle(self, hold: Hold, used: int) -> None:
        """Count what a request did use, once; it counts for the day of its end."""
        if hold.name is None:
            return
        key = (_today(), hold.name)
        self._held[hold.name] -= hold.tokens
        self._unwritten[key] = self._unwritten.get(key, 0) + used
        hold.name = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER_S, self._write_soon)

    async def refresh(self) -> None:
        """Learn of tokens that were added or removed, and of a new day, for `figures`."""
        await self._read()
        if self._by_digest:
            await self._begin_day()

    async def usage(self, name: str | None) -> dict[str, Any]:
        """What a token has used and may, for whoever has it; None is the pool's owner, whose requests are not counted."""
        await self.refresh()
        token = next((t for t in self._by_digest.values() if t.name == name), None)
        used, limit = (None, None) if token is None else (self._used(token.name), token.tokens_per_day)
        return {
            "object": "usage",
            "name": name,
            "tokens_today": used,
            "tokens_per_day": limit,
            "tokens_left": None if limit is None or used is None else max(0, limit - used),
            "tokens_in_flight": None if token is None else self._held.get(token.name, 0),
            "resets_in_s": _to_midnight(),
            "expires": token.expires or None if token else None,
        }

    def figures(self) -> list[dict[str, Any]]:
        """Of each named token: name, used (tokens of today), per_day (None: without a limit)."""
        return [{"name": t.name, "used": self._used(t.name), "per_day": t.tokens_per_day} for t in self._by_digest.values()]

    async def write(self, wait_s: float = _LOCKED_S) -> None:
        """Add what is not written yet to the file, and learn what other pools have added."""
        async with self._one_exchange:
            await self._exchange(self._day or _today(), wait_s)

    async def close(self) -> None:
        """Write the rest; the threads end. Waits longer for whoever else writes: there is no later."""
        if self._timer is not None:
            self._timer.cancel()
        if self._day or self._unwritten:
            await self.write(_LOCKED_AT_END_S)
        for thread in (self._tokens_thread, self._usage_thread):
            thread.shutdown(wait=False)

    def _write_soon(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self.write())

    def _used(self, name: str) -> int:
        key = (self._day, name)
        return self._stored.get(name, 0) + self._in_flight.get(key, 0) + self._unwritten.get(key, 0)

    def _limit(self, name: str) -> int | None:
        return next((t.tokens_per_day for t in self._by_digest.values() if t.name == name), None)

    async def _begin_day(self) -> None:
        """Begin at what the file has of today, and at midnight anew; requests in flight then count for the new day."""
        if _today() != self._day:
            async with self._one_exchange:
                if (today := _today()) != self._day:
                    await self._exchange(today, _LOCKED_S)

    async def _exchange(self, day: str, wait_s: float) -> None:
        """Add to the file, and read `day`, which is the one that counts from now on. One at a time."""
        stored: dict[str, int] | None = {}
        if self._home is not None:
            self._in_flight, self._unwritten = self._unwritten, {}
            loop = asyncio.get_running_loop()
            stored = await loop.run_in_executor(self._usage_thread, _added, self._home, self._in_flight, day, wait_s)
            if stored is None:  # counted here all the same, and written with the next ones
                for key, tokens in self._unwritten.items():
                    self._in_flight[key] = self._in_flight.get(key, 0) + tokens
                self._unwritten = self._in_flight
            self._in_flight = {}
        if stored is not None or day != self._day:
            self._day, self._stored = day, stored or {}

    async def _read(self) -> None:
        """Read the tokens' file where it has changed. One that cannot be read lets nobody in."""
        if self._home is None:
            return
        read = await asyncio.get_running_loop().run_in_executor(self._tokens_thread, _tokens, self._home, self._stamp)
        if read is not None:
            self._stamp, tokens = read
            self._by_digest = {token.sha256: token for token in tokens}


def _tokens(home: Path, known: tuple[int, int] | None) -> tuple[tuple[int, int] | None, list[PortToken]] | None:
    """The tokens' file and what tells it from a later one; None where it is the one that is known."""
    try:
        status = port_tokens.path(home).stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        return None if stamp == known else (stamp, port_tokens.read(home))
    except (OSError, ValueError):
        return None, []


def _added(home: Path, counts: Mapping[tuple[str, str], int], day: str, wait_s: float) -> dict[str, int] | None:
    """What each has used of `day`, once these are added; None where the file cannot be used now."""
    try:
        return port_usage.add(home, counts, day, wait_s)
    except (OSError, sqlite3.Error):
        return None


def _today() -> str:
    return date.today().isoformat()  # noqa: DTZ011 - the day of whoever runs the pool


def _to_midnight() -> int:
    """Seconds until this machine's next day, rounded up."""
    now = datetime.now()  # noqa: DTZ005 - as above
    return int((datetime.combine(now.date() + timedelta(days=1), time()) - now).total_seconds()) + 1


def _refusal(name: str, limit: int, used: int, tokens: int, *, least: int, answers: int) -> str:
    """Why a request is refused for the day, and what helps. `least`: the tokens of its prompts."""
    hours, minutes = divmod(_to_midnight() // 60, 60)
    fits = (limit - used - least) // answers
    words = f"The token {name} has {limit:,} tokens a day; {used:,} are used, and this request may take {tokens:,} (its prompt and its longest answer)."
    if least >= limit:
        return f"{words} Its prompt alone is more than a day's. Shorten it, or ask whoever runs the pool for more."
    if fits > 0:
        return f"{words} An answer of {fits:,} tokens still fits today (--max-tokens {fits}); all come back at midnight, in {hours} h {minutes} min."
    return f"{words} They come back at midnight, in {hours} h {minutes} min; whoever runs the pool can raise the limit."
