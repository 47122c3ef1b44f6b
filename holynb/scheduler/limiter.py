"""Rate limiting of one endpoint and key: a congestion window, the server's own quota, the user's bounds, a shared pause.

The window is AIMD (Chiu and Jain, 1989) with slow start, in RFC 5681's shape, with a 429 in the place of a lost packet. It is the brake for
servers without quota headers; where headers report the quota, the bucket they feed is the main control and a 429 is the exception. A single
429 among answers pauses all requests, as the server asked, and changes nothing else: some gateways refuse now and then whatever the rate.
asyncio only; knows no requests, no engines and no retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from holynb.scheduler.quota import INFINITE, HeaderQuota, LearnedRate, SlidingWindow
from holynb.types import Limits

__all__ = ["MAX_WAIT_S", "Limiter", "Permit", "shared_limiter"]

#: Longest wait for a server. A quota that reports a longer one is probed with one request, whose 429 makes the scheduler move on or stop;
#: a 429 that asks for a longer one is not waited out: the row moves on or ends, saying until when (as the OpenAI SDK does).
MAX_WAIT_S = 120.0
#: Upper end of slow start where no headers report the quota: what is in flight when a quota ends is refused together.
MAX_SLOW_START = 32
#: Multiplicative decrease for a self-hosted server; 0.5 for any other.
SELF_HOSTED_DECREASE = 0.7
BASE_BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
#: A refusal is compared with the first 8 replies to requests in flight with it: an exhausted quota refuses most of them, so at least 4, and
#: half of those observed.
MIN_REFUSALS, MAX_WITNESSES = 4, 8
#: Up to this share of refusals (moving average over about so many requests), single ones are taken for noise and do not shrink the window.
TOLERATED_REFUSAL_RATE, REFUSAL_RATE_WINDOW = 0.15, 128


@dataclass(slots=True)
class Permit:
    """A request's right to be in flight. `sent` and `tokens_sent` are running totals, so that replies can be put in order."""

    at: float
    tokens: int
    sent: int
    tokens_sent: int
    held: bool = True


@dataclass(slots=True)
class _Trial:
    """A refusal that may have been a single one: when it came, its pause, and the replies since to requests that were in flight then."""

    at: float
    pause: float
    witnesses: int
    observed: int = 0
    refused: int = 0


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
        self._size = float(min(start, cap))
        self._rpm, self._tpm = SlidingWindow(rpm) if rpm else None, SlidingWindow(tpm) if tpm else None
        self._request_quota, self._token_quota, self._learned_rate = HeaderQuota(), HeaderQuota(), LearnedRate()
        self._clock = clock
        self._sent = self._tokens_sent = 0
        self._slow_start = True
        self._grown_at = self._event_at = self._until = -INFINITE
        self._credit = 1.0
        self._refusals = 0
        self._refusal_rate = 0.0
        self._trial: _Trial | None = None
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def window(self) -> int:
        """How many may be in flight now."""
        return int(self._size + 1e-6)  # the size is a sum of many small steps

    # -- permits ---------------------------------------------------------------------------------------------------------
    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for a permit. `tokens`: estimate for prompt and answer. Return it with `release`."""
        async with self._queue:
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
        """Seconds until a request may be sent as things stand; infinite where only the end of another one makes room."""
        if self.in_flight >= self.window:
            return INFINITE
        now = self._clock()
        quota_delay = max(self._request_quota.delay(1, self._sent, now), self._token_quota.delay(tokens, self._tokens_sent, now))
        if quota_delay > MAX_WAIT_S:
            quota_delay = INFINITE if self.in_flight else 0.0
        bounds_delay = max(self._rpm.delay(1, now) if self._rpm else 0.0, self._tpm.delay(tokens, now) if self._tpm else 0.0)
        return max(self._until - now, quota_delay, bounds_delay, self._learned_rate.delay(now), 0.0)

    def _take(self, tokens: int) -> Permit:
        now = self._clock()
        self.in_flight += 1
        self._sent += 1
        self._tokens_sent += tokens
        self._learned_rate.record_send(now)
        if self._rpm:
            self._rpm.take(1, now)
        if self._tpm:
            self._tpm.take(tokens, now)
        return Permit(now, tokens, self._sent, self._tokens_sent)

    def release(self, permit: Permit) -> None:
        """Return a permit, whatever the result. Idempotent."""
        if permit.held:
            permit.held = False
            self.in_flight -= 1
            self._changed.set()

    # -- feedback --------------------------------------------------------------------------------------------------------
    def on_success(self, permit: Permit, limits: Limits | None = None, used: int | None = None) -> None:
        """An answer arrived. `used`: the tokens it took, where the server reported them."""
        now = self._clock()
        self._refusals = 0
        self._observe(permit, now, refused=False)
        latency = now - permit.at
        self.latency = latency if self.latency is None else 0.9 * self.latency + 0.1 * latency
        self._update_quotas(permit, limits, now)
        if used is not None and self._tpm and used < permit.tokens:
            self._tpm.take(used - permit.tokens, now)
        self._increase(now)
        self._changed.set()

    def on_error(self, permit: Permit, limits: Limits | None = None) -> None:
        """The request failed for another reason than a quota: the window stays."""
        self._update_quotas(permit, limits, self._clock())
        self._changed.set()

    def on_rate_limit(self, permit: Permit, wait: float | None = None, limits: Limits | None = None) -> float:
        """A 429. All requests pause; where it was not a single one, the window shrinks, once for all that were in flight together.

        Returns the pause in seconds.
        """
        now = self._clock()
        self._update_quotas(permit, limits, now)
        self._observe(permit, now, refused=True)
        first = permit.at > self._event_at
        if first:
            self._refusals += 1
        if wait is None:
            wait = min(MAX_BACKOFF_S, BASE_BACKOFF_S * 2.0 ** (self._refusals - 1))
        # Jitter, upwards only: kernels that share the key must not resume at once.
        pause = wait * random.uniform(1.0, 1.1)  # noqa: S311 - jitter, not a secret
        if first:
            self._event_at = now
            self._assess_refusal(now, pause)
        self._until = max(self._until, now + pause)
        self._changed.set()
        return max(0.0, self._until - now)

    def _assess_refusal(self, now: float, pause: float) -> None:
        """Decide what a first refusal means: near a known quota it is about that; else wait for the replies to those in flight."""
        self._trial = None
        scarce = self._request_quota.scarce(self._sent, now) or self._token_quota.scarce(self._tokens_sent, now)
        if scarce or self._learned_rate.rate is not None or self._refusal_rate > TOLERATED_REFUSAL_RATE:
            self._decrease(now, pause)
        elif self.in_flight > MIN_REFUSALS:
            self._trial = _Trial(now, pause, self.in_flight - 1)

    def _observe(self, permit: Permit, now: float, *, refused: bool) -> None:
        self._refusal_rate += (refused - self._refusal_rate) / REFUSAL_RATE_WINDOW
        trial = self._trial
        if trial is None or permit.at > trial.at:
            return
        trial.observed += 1
        trial.refused += refused
        if trial.refused >= MIN_REFUSALS and 2 * trial.refused >= trial.observed:
            self._trial = None
            self._decrease(now, max(trial.pause, self._until - now))
        elif trial.observed >= min(MAX_WITNESSES, trial.witnesses):
            self._trial = None

    def _decrease(self, now: float, pause: float) -> None:
        self._slow_start = False
        self._size = max(1.0, self._size * (SELF_HOSTED_DECREASE if self._self_hosted else 0.5))
        if not self._self_hosted:
            self._learned_rate.record_refusal(now, pause)

    def _update_quotas(self, permit: Permit, limits: Limits | None, now: float) -> None:
        if limits is not None:
            self._request_quota.update((limits.requests, limits.requests_left, limits.requests_reset), permit.sent, now)
            self._token_quota.update((limits.tokens, limits.tokens_left, limits.tokens_reset), permit.tokens_sent, now)

    def _increase(self, now: float) -> None:
        """Slow start (twice the window in a round trip) until the first decrease; then additive increase by one in a round trip.

        Additive increase is at most one a second: with short answers a round trip is too short to learn from.
        """
        if self._size >= self.cap or self.in_flight * 2 < self._size:
            return
        quota_known = self._request_quota.left is not None or self._token_quota.left is not None
        if self._slow_start and (quota_known or self._self_hosted or self._size < MAX_SLOW_START):
            self._size = min(float(self.cap), self._size + 1.0)
        elif self._self_hosted:
            self._size = min(float(self.cap), self._size + 1 / self._size)
        else:
            # Answers often arrive in bursts, so elapsed time is saved up, for one step at most.
            self._credit = min(1.0, self._credit + max(0.0, now - self._grown_at))
            step = min(1 / self._size, self._credit)
            self._credit -= step
            self._size = min(float(self.cap), self._size + step)
        self._grown_at = now


_limiters: WeakValueDictionary[Hashable, Limiter] = WeakValueDictionary()


def shared_limiter(key: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """The limiter of this endpoint and key on this loop, created if there is none: concurrent runs share one quota."""
    key = (id(asyncio.get_running_loop()), key)
    limiter = _limiters.get(key)
    if limiter is None:
        limiter = _limiters[key] = make()
    return limiter
