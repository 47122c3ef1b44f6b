"""A provider's prompt cache, at one endpoint within a run: one row writes the beginning that all share, the rest wait for it and read it.

An entry can be read once the answer to the request that writes it has begun, and lives for minutes after the last request that used it
was sent. Writing may cost more than sending: so one row alone ever writes, only where the rows that wait pay for it, and again only once
what was read has paid for the last time. The worst a run can lose at an endpoint is the premium of one write. asyncio only; knows no wire
and no price.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from holynb.cache_mark import CacheMark
from holynb.faults import UNBILLED_KINDS, Fault
from holynb.scheduler.waiting import within
from holynb.types import Completion, Message, Request
from holynb.usage import NO_USAGE

__all__ = ["CacheHead", "CacheTerms", "PromptCache"]

#: The longest that rows wait in all for an entry to be written, seconds. After that they are sent without it until it is there.
LONGEST_WAIT_S = 30.0
#: The same where nothing has to be paid for it: by then the beginning is read, though the answer does not tell before it is whole.
FREE_WAIT_S = 5.0
#: An entry counts as gone so long before it is, seconds: a request takes a while to arrive.
MARGIN_S = 30.0
HOUR_S = 3600.0
#: The share of reads that is counted on. Servers drop entries before their time when they are short of memory.
LIKELY = 0.9
#: Nothing is kept of these requests, where their server would write all of them.
NOTHING = CacheMark(-1)


@dataclass(frozen=True, slots=True)
class CacheHead:
    """What the requests of a run have in common at their beginning: whole `turns`, and the `text` with which the next one begins.

    `think`: how much they think, which is part of what a cache is found by. `key`: the same in every run that has this beginning.
    """

    turns: tuple[Message, ...]
    role: str = ""
    text: str = ""
    think: str | int | None = None
    key: str = ""

    def mark(self, request: Request) -> CacheMark | None:
        """The mark of a request that has this beginning; None of any other."""
        whole = len(self.turns)
        if request.messages[:whole] != self.turns or request.sampling.think != self.think:
            return None
        if not self.text:
            return CacheMark(whole - 1, len(self.turns[-1].content), self.key) if whole else None
        if len(request.messages) <= whole:
            return None
        following = request.messages[whole]
        if following.role != self.role or following.attachments or not following.content.startswith(self.text):
            return None
        return CacheMark(whole, len(self.text), self.key)


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """An endpoint's cache and this run's beginning. `head`: None where nothing is worth keeping, and the server must be told so.

    tokens:        of the beginning. read, write, write_1h: as shares of the price of input. lifetime: seconds.
    hour:          it can be asked for an hour. gap: seconds between two requests at the run's own limits.
    marked:        nothing is kept that is not marked. spared: all is, unless a request says that nothing is.
    streams_first: the first answer is streamed, so that its beginning is known early.
    """

    head: CacheHead | None
    tokens: int = 0
    read: float = 1.0
    write: float = 1.0
    write_1h: float = 1.0
    lifetime: float = 300.0
    hour: bool = False
    marked: bool = True
    spared: bool = False
    gap: float = 0.0
    streams_first: bool = False

    def premium(self, *, hour: bool) -> float:
        """What writing the beginning costs above sending it, in tokens of input."""
        return max(0.0, (self.write_1h if hour else self.write) - 1) * self.tokens

    def pays(self, readers: float, *, hour: bool) -> bool:
        """Whether so many rows to come are likely to save more than it costs to write for them."""
        won = readers * LIKELY * (1 - self.read) * self.tokens
        return won > self.premium(hour=hour) * (1 + readers * (1 - LIKELY))


@dataclass(slots=True)
class _Sent:
    """A marked request in flight: when it was sent, and how long it asks for. `put_aside`: what it may cost where it writes, else None."""

    at: float
    hour: bool
    put_aside: float | None = None


@dataclass(slots=True)
class PromptCache:
    """Owned by the io loop. `saved`: tokens of input saved so far, less what writing cost, or may yet cost."""

    terms: CacheTerms
    saved: float = 0.0
    _sent: dict[int, _Sent] = field(default_factory=dict)
    _until: float | None = None
    _hour: bool = False
    _writing: int | None = None
    _cold_since: float | None = None
    _given_up: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self, request: Request, waiting: float) -> CacheMark | None:
        """What a request that is sent now says of the cache. `waiting`: how many rows are still to be sent here."""
        terms, now = self.terms, _now()
        unmarked = NOTHING if terms.spared else None
        mark = None if terms.head is None else terms.head.mark(request)
        if mark is None:
            return unmarked
        if self._until is not None and now < self._until:
            self._sent[request.row] = _Sent(now, self._hour)
            return replace(mark, hour=self._hour)
        if self._given_up or self._writing is not None or self.saved < 0 or (hour := self._for_an_hour(waiting, now)) is None:
            return unmarked if terms.marked else mark
        self._hour, self._writing = hour, request.row
        self._sent[request.row] = _Sent(now, hour, terms.premium(hour=hour))
        self.saved -= terms.premium(hour=hour)
        self._cold_since = now if self._cold_since is None else self._cold_since
        self._changed.clear()
        return replace(mark, hour=hour)

    def writes(self, row: int) -> bool:
        """Whether the others wait for this row's answer to begin."""
        return self._writing == row

    async def hold(self) -> None:
        """Wait while the beginning is written, but no longer than LONGEST_WAIT_S or FREE_WAIT_S in all."""
        if self._writing is not None and self._cold_since is not None:
            left = self._cold_since + (LONGEST_WAIT_S if self.terms.marked else FREE_WAIT_S) - _now()
            if left > 0:
                await within(self._changed.wait(), left)

    def begun(self, row: int) -> None:
        """The answer of the row that writes begins, so that what it wrote can be read."""
        if self._writing == row:
            self._is_there(self._sent[row].at)
            self._writing = None
            self._changed.set()

    def ended(self, row: int, result: Completion | Fault | None) -> None:
        """A request ended: with an answer, with a fault that may have been billed, or (None) unsent."""
        if (sent := self._sent.pop(row, None)) is None:
            return
        usage = NO_USAGE if result is None or result.usage is None else result.usage
        read, written = usage.tokens_cached or 0, usage.tokens_cache_write or 0
        rate = self.terms.write_1h if sent.hour else self.terms.write
        answered, writes = isinstance(result, Completion), sent.put_aside is not None
        unbilled = result is None or (isinstance(result, Fault) and (result.kind in UNBILLED_KINDS or result.status is not None))
        if answered or unbilled or usage.tokens_in is not None:
            self.saved += (sent.put_aside or 0.0) + read * (1 - self.terms.read) - written * (rate - 1)
        if read or written or (answered and not self.terms.marked):
            self._is_there(sent.at)
        elif answered and writes:
            self._give_up()  # too short for this server, or not taken: nothing was paid for it, and nothing is to be waited for
        if not writes and written and not read and self.saved < 0:
            self._give_up()  # it is not there when it should be, and each row would pay to write it again
        if self._writing == row:
            self._writing = None
            self._changed.set()

    def _is_there(self, since: float) -> None:
        lifetime = HOUR_S if self._hour else self.terms.lifetime
        self._until = max(self._until or 0.0, since + lifetime - MARGIN_S)
        self._cold_since = None

    def _give_up(self) -> None:
        self._given_up, self._until = True, None

    def _for_an_hour(self, waiting: float, now: float) -> bool | None:
        """Whether to write for an hour, or False: for the usual time; None where nothing pays.

        An hour is asked for where two requests are further apart than the usual time, or have been: each one that reads makes it live on.
        """
        terms, apart = self.terms, self.terms.gap > self.terms.lifetime - MARGIN_S
        expired = self._until is not None and now >= self._until
        if terms.hour and (apart or expired) and terms.gap < HOUR_S - MARGIN_S and terms.pays(waiting, hour=True):
            return True
        return False if not apart and terms.pays(waiting, hour=False) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
