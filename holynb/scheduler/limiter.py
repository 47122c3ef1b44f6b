"""When the next request may go to one endpoint with one key: a congestion window, the server's own quota, the user's limits, a shared pause.

The window has RFC 5681's shape with a 429 in the place of a lost packet. It is the brake for servers that say nothing; where headers tell the
quota, the bucket they feed is the main control and a 429 is the exception. A single 429 among answers pauses everybody, as the server asked, and
changes nothing else: some gateways refuse now and then whatever the rate. asyncio only; knows no requests, no engines and no retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from holynb.scheduler.quota import INFINITE, Headers, Minute, Pace
from holynb.types import Limits

__all__ = ["LONGEST_WAIT_S", "Limiter", "Permit", "shared"]

#: A quota that needs longer is put to the test with one request, whose 429 tells the scheduler to move on or to stop.
LONGEST_WAIT_S = 120.0
#: How far doubling goes where no headers tell the quota: what is in flight when a quota ends is refused together.
UNTOLD = 32
#: What a 429 of a server of one's own leaves of the window.
OWN_CUT = 0.7
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 30.0
#: A refusal is held against the first 8 that were under way with it: a quota that has ended refuses most of them, so 4, and half of those heard.
FEW, ENOUGH = 4, 8
#: Up to this share of refusals, over about so many requests, single ones are taken for the server's moods and slow nobody down.
MOODS, MEMORY = 0.15, 128


@dataclass(slots=True)
class Permit:
    """A request's right to be under way. `sent` and `tokens_sent` are running totals, so that replies can be put in order."""

    at: float
    tokens: int
    sent: int
    tokens_sent: int
    held: bool = True


@dataclass(slots=True)
class _Trial:
    """A refusal that may have been a single one: when it was heard, its pause, and what is heard of those that were under way then."""

    at: float
    pause: float
    witnesses: int
    heard: int = 0
    refused: int = 0


class Limiter:
    """One endpoint and key. Owned by the io loop; any number of coroutines may wait, and they go in the order they came.

    own: a server of one's own, behind which no quota stands: a 429 is a moment's overload there, so no rate is learned from it.
    rpm, tpm: the user's bounds, exact over any 60 seconds. cap: most at once. start: where the window begins (`cap` for a server of one's own).
    clock: seconds; must run as the event loop's does.
    """

    def __init__(
        self,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        cap: int = 64,
        start: int = 8,
        own: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self._own = own
        self.flying = 0
        self.latency: float | None = None
        self._size = float(min(start, cap))
        self._rpm, self._tpm = Minute(rpm) if rpm else None, Minute(tpm) if tpm else None
        self._requests, self._tokens, self._pace = Headers(), Headers(), Pace()
        self._clock = clock
        self._sent = self._tokens_sent = 0
        self._slow_start = True
        self._grown_at = self._event_at = self._until = -INFINITE
        self._credit = 1.0
        self._refusals = 0
        self._share = 0.0
        self._trial: _Trial | None = None
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def window(self) -> int:
        """How many may be under way now."""
        return int(self._size + 1e-6)  # the sum of many small steps

    # -- going out -------------------------------------------------------------------------------------------------------
    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for a place and take it. `tokens`: what the request may cost, prompt and answer. Give it back with `release`."""
        async with self._turn:
            while (wait := self.delay(tokens)) > 0:
                self._changed.clear()
                try:
                    # Never less than a timer can tell apart, or rounding makes this a loop without a pause.
                    async with asyncio.timeout(None if wait == INFINITE else max(wait, 0.001)):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return self._take(tokens)

    def delay(self, tokens: int = 0) -> float:
        """Seconds until a request may go as things stand; infinite where only the end of another one makes room."""
        if self.flying >= self.window:
            return INFINITE
        now = self._clock()
        told = max(self._requests.delay(1, self._sent, now), self._tokens.delay(tokens, self._tokens_sent, now))
        if told > LONGEST_WAIT_S:
            told = INFINITE if self.flying else 0.0
        own = max(self._rpm.delay(1, now) if self._rpm else 0.0, self._tpm.delay(tokens, now) if self._tpm else 0.0)
        return max(self._until - now, told, own, self._pace.delay(now), 0.0)

    def _take(self, tokens: int) -> Permit:
        now = self._clock()
        self.flying += 1
        self._sent += 1
        self._tokens_sent += tokens
        self._pace.took(now)
        if self._rpm:
            self._rpm.take(1, now)
        if self._tpm:
            self._tpm.take(tokens, now)
        return Permit(now, tokens, self._sent, self._tokens_sent)

    # -- coming back -----------------------------------------------------------------------------------------------------
    def release(self, place: Permit) -> None:
        """Give a place back, whatever came of it. A second time does nothing."""
        if place.held:
            place.held = False
            self.flying -= 1
            self._changed.set()

    def ok(self, place: Permit, limits: Limits | None = None, used: int | None = None) -> None:
        """An answer came. `used`: the tokens it really took, where the server said."""
        now = self._clock()
        self._refusals = 0
        self._witness(place, now, refused=False)
        took = now - place.at
        self.latency = took if self.latency is None else 0.9 * self.latency + 0.1 * took
        self._hear(place, limits, now)
        if used is not None and self._tpm and used < place.tokens:
            self._tpm.take(used - place.tokens, now)
        self._grow(now)
        self._changed.set()

    def failed(self, place: Permit, limits: Limits | None = None) -> None:
        """It failed for another reason than a quota: no reason to grow, and none to shrink."""
        self._hear(place, limits, self._clock())
        self._changed.set()

    def limited(self, place: Permit, wait: float | None = None, limits: Limits | None = None) -> float:
        """A 429. Everybody pauses; where it was no single one, the window is halved, once for all that were under way together.

        Returns the seconds of the pause.
        """
        now = self._clock()
        self._hear(place, limits, now)
        self._witness(place, now, refused=True)
        first = place.at > self._event_at
        if first:
            self._refusals += 1
        if wait is None:
            wait = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (self._refusals - 1))
        # A little more than asked, and not the same for every kernel that shares the key.
        pause = wait * random.uniform(1.0, 1.1)  # noqa: S311 - jitter, not a secret
        if first:
            self._event_at = now
            self._try(now, pause)
        self._until = max(self._until, now + pause)
        self._changed.set()
        return max(0.0, self._until - now)

    def _try(self, now: float, pause: float) -> None:
        """What a first refusal means. Near a quota that is known it is about that; else those under way tell, or how rare it is."""
        self._trial = None
        scarce = self._requests.scarce(self._sent, now) or self._tokens.scarce(self._tokens_sent, now)
        if scarce or self._pace.rate is not None or self._share > MOODS:
            self._cut(now, pause)
        elif self.flying > FEW:
            self._trial = _Trial(now, pause, self.flying - 1)

    def _witness(self, place: Permit, now: float, *, refused: bool) -> None:
        self._share += (refused - self._share) / MEMORY
        trial = self._trial
        if trial is None or place.at > trial.at:
            return
        trial.heard += 1
        trial.refused += refused
        if trial.refused >= FEW and 2 * trial.refused >= trial.heard:
            self._trial = None
            self._cut(now, max(trial.pause, self._until - now))
        elif trial.heard >= min(ENOUGH, trial.witnesses):
            self._trial = None

    def _cut(self, now: float, pause: float) -> None:
        self._slow_start = False
        self._size = max(1.0, self._size * (OWN_CUT if self._own else 0.5))
        if not self._own:
            self._pace.refused(now, pause)

    def _hear(self, place: Permit, limits: Limits | None, now: float) -> None:
        if limits is not None:
            self._requests.hear((limits.requests, limits.requests_left, limits.requests_reset), place.sent, now)
            self._tokens.hear((limits.tokens, limits.tokens_left, limits.tokens_reset), place.tokens_sent, now)

    def _grow(self, now: float) -> None:
        """Twice the window in a round trip until the first 429; afterwards, and where nothing tells the quota, one place in a round trip.

        No more than one a second, though: with short answers a round trip is no time to learn anything in.
        """
        if self._size >= self.cap or self.flying * 2 < self._size:
            return
        told = self._requests.left is not None or self._tokens.left is not None
        if self._slow_start and (told or self._own or self._size < UNTOLD):
            self._size = min(float(self.cap), self._size + 1.0)
        elif self._own:
            self._size = min(float(self.cap), self._size + 1 / self._size)
        else:
            # Answers often come in heaps, so time that has passed is saved up, for one place at most.
            self._credit = min(1.0, self._credit + max(0.0, now - self._grown_at))
            step = min(1 / self._size, self._credit)
            self._credit -= step
            self._size = min(float(self.cap), self._size + step)
        self._grown_at = now


_limiters: WeakValueDictionary[Hashable, Limiter] = WeakValueDictionary()


def shared(key: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """The limiter of this endpoint and key on this loop, made if there is none: runs at the same time share one quota."""
    key = (id(asyncio.get_running_loop()), key)
    found = _limiters.get(key)
    if found is None:
        found = _limiters[key] = make()
    return found
