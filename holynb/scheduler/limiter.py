"""Rate limiting of one endpoint and key: a congestion window, the server's own quota, the user's bounds, a shared pause.

The window is AIMD (Chiu and Jain, 1989) with slow start, in RFC 5681's shape, with the end of a quota in the place of a lost packet. Where
headers report the quota, the bucket they feed is the main control and a 429 is the exception.

Gateways also refuse now and then whatever the rate. Such a refusal concerns its row alone, which waits as long as the server asked; all
others go on. A quota has ended where most of the requests sent around a refused one are refused too: then all pause, and a rate is learned.
asyncio only; knows no requests, no engines and no retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from holynb.scheduler.learned_rate import LearnedRate, Passed
from holynb.scheduler.quota import INFINITE, ReportedQuotas, UserBounds
from holynb.scheduler.refusals import Refusals
from holynb.scheduler.waiting import within
from holynb.types import Limits

__all__ = ["MAX_WAIT_S", "Limiter", "Pause", "Permit"]

#: Longest wait for a server. A quota that reports a longer one is probed with one request, whose 429 makes the scheduler move on or stop;
#: a 429 that asks for a longer one is not waited out: the row moves on or ends, saying until when (as the OpenAI SDK does).
MAX_WAIT_S = 120.0
#: Slow start: how much an answer widens the window, which makes it four times as wide in a round trip.
SLOW_START_STEP = 3.0
#: The window is at least an eighth of what it was when a quota ended.
LARGEST_DECREASE = 8
#: Pauses of all where a quota ended and no Retry-After came; they double with each end. A single row's start at half of it.
BASE_BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
#: Where a quota may have ended nothing is sent for as long as a refusal takes to come back, at most so long: what follows is refused too.
MAX_HOLD_S = 0.05
#: A refusal at nearly as many in flight as when the quota had ended is about their number; the window then grows by one in half a minute.
CROWDED, MIN_AT_ONCE, PROBES_PER_S = 0.9, 2.0, 1 / 30
#: Slow start goes on where fewer of the last sixteen were refused: a server may take only so many at once.
CALM = 5
#: More than this share of the last hundred is too many, whatever passes in between.
HIGH_SHARE = 0.35
#: After so long without the end of a quota, a new run starts as if there had been none: quotas are a minute's.
FORGOTTEN_AFTER_S = 60.0


class Pause(NamedTuple):
    """What follows from a 429: how long to wait, seconds, and whether all wait or the refused request alone."""

    seconds: float
    shared: bool


@dataclass(slots=True)
class Permit:
    """A request's right to be in flight: the `sent`-th, with so many tokens in all; `in_flight` is how many were, with itself."""

    at: float
    tokens: int
    sent: int
    tokens_sent: int
    in_flight: int
    held: bool = True


class Limiter:
    """One endpoint and key. Owned by the io loop; any number of coroutines may wait, and are served first come, first served.

    self_hosted: no quota stands behind the server: a 429 is a momentary overload, so no rate is learned from it.
    rpm, tpm: the user's bounds, exact over any 60 seconds. cap: most in flight. start: initial window (`cap` for a self-hosted server).
    clock: seconds; must advance as the event loop's does.
    """

    def __init__(
        self,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        cap: int = 64,
        start: int = 8,
        self_hosted: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self._self_hosted = self_hosted
        self.in_flight = 0
        self.latency: float | None = None
        self._start = self._size = float(min(start, cap))
        self._bounds = UserBounds(rpm, tpm)
        self._reported, self._learned_rate, self._passed = ReportedQuotas(), LearnedRate(), Passed()
        self._clock = clock
        self.rng = random.Random()  # noqa: S311 - jitter of pauses, not a secret
        self._sent = self._tokens_sent = 0
        self._slow_start = True
        self._grown_at = self._ended_at = self._corrected_at = self._until = -INFINITE
        self._credit = 1.0
        self._ends = 0
        self._least = 1.0
        self._bounded = False  # by how many the server takes at once
        self._refusals = Refusals()
        self._most_at_once, self._emptied = INFINITE, True  # whether fewer were in flight since
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def window(self) -> int:
        """How many may be in flight now."""
        return int(self._size + 1e-6)  # the size is a sum of many small steps

    # -- permits ---------------------------------------------------------------------------------------------------------
    async def acquire(self, tokens: int = 0, patience: float = INFINITE) -> Permit | None:
        """Wait for a permit. `tokens`: estimate for prompt and answer. Return it with `release`.

        None, at once, where what the server reports takes longer than `patience` seconds (`quota_wait`), or after so long behind others.
        """
        if patience == INFINITE:
            await self._queue.acquire()
        elif self.quota_wait(tokens) > patience or not await within(self._queue.acquire(), max(patience, 1.0)):
            return None
        try:
            while (wait := self.delay(tokens)) > 0:
                if self.quota_wait(tokens) > patience:
                    return None
                self._changed.clear()
                # Never less than a timer can tell apart, or rounding makes this a loop without a pause.
                await within(self._changed.wait(), None if wait == INFINITE else max(wait, 0.001))
            return self._take(tokens)
        finally:
            self._queue.release()

    def quota_wait(self, tokens: int = 0) -> float:
        """Seconds until the quota that the server reports has room, as it says, at most MAX_WAIT_S."""
        return min(MAX_WAIT_S, self._reported.delay(tokens, self._sent_in_all, self._clock()))

    @property
    def _sent_in_all(self) -> tuple[int, int]:
        return self._sent, self._tokens_sent

    def delay(self, tokens: int = 0) -> float:
        """Seconds until a request may be sent as things stand; infinite where only the end of another one makes room."""
        if self.in_flight >= self.window:
            return INFINITE
        now = self._clock()
        quota_delay = self._reported.delay(tokens, self._sent_in_all, now)
        if quota_delay > MAX_WAIT_S:
            quota_delay = INFINITE if self.in_flight else 0.0
        return max(self._until - now, quota_delay, self._bounds.delay(tokens, now), self._learned_rate.delay(now), 0.0)

    def _take(self, tokens: int) -> Permit:
        now = self._clock()
        self.in_flight += 1
        self._sent += 1
        self._tokens_sent += tokens
        self._pace(now)
        self._bounds.take(tokens, now)
        return Permit(now, tokens, self._sent, self._tokens_sent, self.in_flight)

    def _pace(self, now: float) -> None:
        """Count a request at the learned rate; forget a rate that is higher than the window allows anyway."""
        rate = self._learned_rate
        rate.record_send(now)
        if rate.rate is not None and self.latency is not None and rate.rate > 2 * self.cap / max(self.latency, 0.001):
            rate.forget()
            self._slow_start = True

    def release(self, permit: Permit) -> None:
        """Return a permit, whatever the result. Idempotent."""
        if permit.held:
            permit.held = False
            self.in_flight -= 1
            self._emptied |= self.in_flight < CROWDED * self._most_at_once
            self._changed.set()

    # -- feedback --------------------------------------------------------------------------------------------------------
    def on_success(self, permit: Permit, limits: Limits | None = None, used: int | None = None) -> None:
        """An answer arrived. `used`: the tokens it took, where the server reported them."""
        now = self._clock()
        self._ends = 0
        self._passed.record(now)
        latency = now - permit.at
        self.latency = latency if self.latency is None else 0.9 * self.latency + 0.1 * latency
        self._reported.update(limits, (permit.sent, permit.tokens_sent), now)
        if used is not None:
            self._bounds.correct(permit.tokens, used, now)
        self._increase(now)
        self._changed.set()

    def on_error(self, permit: Permit, limits: Limits | None = None) -> None:
        """The request failed for another reason than a quota: the window stays."""
        self._reported.update(limits, (permit.sent, permit.tokens_sent), self._clock())
        self._changed.set()

    def on_rate_limit(self, permit: Permit, wait: float | None = None, limits: Limits | None = None, refusals: int = 1) -> Pause:
        """A 429. `wait`: its Retry-After, seconds. `refusals`: how often this request was refused in a row."""
        now = self._clock()
        self._reported.update(limits, (permit.sent, permit.tokens_sent), now)
        if permit.at <= self._ended_at:
            # Sent before the quota ended, as far as anybody knew: one of those in flight together, for whom the window shrinks.
            self._size -= self._size > self._least
        elif permit.at > self._corrected_at and self._has_ended(permit, wait, now):
            self._ends += 1
            pause = min(MAX_BACKOFF_S, BASE_BACKOFF_S * 2.0 ** min(self._ends - 1, 10)) if wait is None else wait
            # Jitter, upwards only: kernels that share the key must not resume at once.
            self._end(now, pause * self.rng.uniform(1.0, 1.1))
        else:
            self._changed.set()
            backoff = min(MAX_BACKOFF_S, BASE_BACKOFF_S * 2.0 ** min(refusals - 2, 10)) * self.rng.uniform(0.75, 1.0)
            return Pause(backoff if wait is None else wait, shared=False)
        self._changed.set()
        return Pause(max(0.0, self._until - now), shared=True)

    def _has_ended(self, permit: Permit, wait: float | None, now: float) -> bool:
        """Whether a quota has ended, and not this request alone was refused."""
        if self._reported.scarce(self._sent_in_all, now):
            return True
        rate, number = self._learned_rate, permit.sent
        if rate.rate is not None:
            if self._emptied and permit.in_flight > CROWDED * self._most_at_once:
                # Refused as soon as so many were in flight again, at whatever rate: the server limits how many it takes at once.
                rate.forget()
                self._size, self._credit, self._bounded, self._corrected_at = self._most_at_once, 0.0, True, now
                self._refusals.clear()
                return False
            if rate.record_refusal(now):
                self._corrected_at = now
        elif self._bounded:
            self._size, self._credit = min(self._size, self._most_at_once), 0.0
        refusals = self._refusals
        refusals.record(number, permit.in_flight)
        ended, suspicious = refusals.judge(number, wait, rate_known=rate.rate is not None)
        if ended:
            return True
        if suspicious:
            self._until = max(self._until, now + min(MAX_HOLD_S, now - permit.at))
        if rate.rate is None and not self._self_hosted and (share := refusals.share(number)) > HIGH_SHARE + rate.background:
            # Single ones pass in between: faster than the server serves.
            rate.start(self._passed.lately(now), now, 0.0, measured=True, share=share)
        return False

    def _end(self, now: float, pause: float) -> None:
        """All pause. Where no headers told it, the window shrinks to those that were not refused, and a rate is learned or corrected."""
        fewest = self._refusals.fewest_in_flight(self._sent - 2 * self.cap)
        self._refusals.clear()
        self._ended_at, self._until = now, max(self._until, now + pause)
        scarce = self._reported.scarce(self._sent_in_all, now)
        for quota in scarce:
            quota.record_refusal()
        if scarce:
            return
        if self._learned_rate.rate is None and fewest is not None:
            self._most_at_once, self._emptied = max(MIN_AT_ONCE, fewest - 1.0), False
        self._bounded = self._self_hosted
        self._slow_start = False
        self._least = max(1.0, self._size / LARGEST_DECREASE)
        self._size = max(self._least, min(self._size, self.in_flight - 1.0))
        if self._self_hosted:
            return
        if self._learned_rate.rate is None:
            self._learned_rate.start(self._passed.quota(now), now, pause)
        else:
            self._learned_rate.exhausted(now, pause)

    def start_run(self) -> None:
        """A new run begins: not below the first window, unless a quota ended and its rate is still known."""
        now = self._clock()
        if self.in_flight == 0 and now - self._ended_at > FORGOTTEN_AFTER_S:
            self._learned_rate.forget()
            self._bounded = False
        if not self._bounded and self._learned_rate.rate is None:
            self._size, self._slow_start = max(self._size, self._start), True

    def _increase(self, now: float) -> None:
        """Slow start (twice the window in a round trip), also where a learned rate is the brake; after a decrease by one in a round trip.

        Additive increase is at most one a second: with short answers a round trip is too short to learn from.
        """
        if self._size >= self.cap or self.in_flight * 2 < self._size:
            return
        if self._slow_start or self._learned_rate.rate is not None:
            if self._refusals and self._refusals.lately(self._sent) >= CALM:
                return
            self._size = min(float(self.cap), self._size + SLOW_START_STEP)
        elif self._self_hosted:
            self._size = min(float(self.cap), self._size + 1 / self._size)
        else:
            # Answers often arrive in bursts, so elapsed time is saved up, for one step at most.
            pace = PROBES_PER_S if self._bounded and self._size >= self._most_at_once else 1.0
            self._credit = min(1.0, self._credit + pace * max(0.0, now - self._grown_at))
            step = min(1 / self._size, self._credit)
            self._credit -= step
            self._size = min(float(self.cap), self._size + step)
        self._grown_at = now
