"""The rate of a quota that no header reports, learned from what passes and what is refused. Pure; time is an argument."""

from __future__ import annotations

from collections import deque

__all__ = ["LearnedRate", "Passed"]


class Passed:
    """How many requests were answered in the last minute, counted by the second."""

    SPAN_S = 60

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()

    def record(self, now: float) -> None:
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += 1
            return
        self._seconds.append([second, 1])
        while self._seconds[0][0] < second - self.SPAN_S:
            self._seconds.popleft()

    def lately(self, now: float) -> float:
        """Answers a second in the last ten seconds, or since the first."""
        recent = [(second, count) for second, count in self._seconds if second > now - 10]
        return sum(count for _, count in recent) / max(1.0, now - recent[0][0]) if recent else 0.0

    def quota(self, now: float) -> float:
        """The rate per second of a quota a minute that ended now, if all of it passed since the first answer.

        A bucket holds a minute's worth and is refilled meanwhile: n = 60 r + t r.
        """
        recent = [(second, count) for second, count in self._seconds if second >= now - self.SPAN_S]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / (self.SPAN_S + max(0.0, now - recent[0][0]))


class LearnedRate:
    """A rate for servers that end a quota with a bare 429. What passes between two ends of it is the quota, which gives its rate.

    It starts at what passed in the last minute, as most quotas are a minute's, and rises until it is refused, which measures it. From just
    below the measured rate it grows slowly for ten seconds, and then faster and faster, since a quota may be lifted: twice in ten seconds
    more, sixteen times in twenty. (CUBIC, RFC 9438, leaves a plateau in the same way.)

    Refusals that do not become fewer at a lower rate have nothing to do with it: their share is the background, which lowers no rate.
    """

    #: Least to begin with, where no Retry-After of a second or more tells of a small quota: it may be a second's, or of another kind.
    INITIAL_RATE = 4.0
    #: However often a server refuses, it is retried after half a minute: a refusal may have another reason than a rate.
    MIN_RATE = 1 / 30
    SAFETY_FACTOR, GROWTH_PER_S = 0.95, 1.01
    #: After the plateau the rate is 2 to the power of (t / DOUBLING_S)² times as high; before it is measured, t counts from the start.
    #: At a measured rate below one request a second, all of these are as many requests instead.
    PLATEAU_S, DOUBLING_S, FIRST_DOUBLING_S = 10.0, 10.0, 3.0
    #: Most that one request raises the rate: below one a second, the time between two is long enough for anything.
    MAX_STEP = 1.5
    #: Share of refusals beyond the background at which the rate is taken for too high; what part of the last share counts as no fewer,
    #: while the rate is at most so many times that after the last correction.
    TOLERATED_SHARE, NO_FEWER, SAME_RATE = 0.02, 0.7, 1.05
    #: Refusals so soon after a correction are of another process, whose rate is not corrected yet: this rate keeps at least so much.
    SETTLING_S, LARGEST_DROP = 1.6, 0.85

    def __init__(self) -> None:
        self.rate: float | None = None
        self.background = 0.0
        self._measured = False
        self.since = self._at = self._next = self._resumed = 0.0
        self._sent = self._refused = 0
        self._last_share = self._began_at_rate = self._minutes_rate = 0.0

    def forget(self) -> None:
        self.rate = None
        self.background = self._last_share = 0.0

    def start(self, rate: float, now: float, wait: float, *, measured: bool = False, share: float = 0.0) -> None:
        """Pace requests from now on. `wait`: a pause before the first, seconds. `share`: of refusals, at the rate so far."""
        self._minutes_rate = rate
        if not measured and wait < 1.5:
            rate = max(rate, self.INITIAL_RATE)
        self.rate, self._measured, self._last_share = max(self.MIN_RATE, rate), measured, share
        self._begin(self.rate, now, wait)

    def exhausted(self, now: float, wait: float) -> None:
        """The quota ended again; all pause for `wait` seconds."""
        if self.rate is None:
            return
        span, passed = now - self.since, self._sent - self._refused
        if passed > 0 and span > 0.5:
            least = self.LARGEST_DROP * self.rate if self._measured and span < self.SETTLING_S else 0.0
            self.rate, self._measured = max(self.SAFETY_FACTOR * passed / span, least), True
        else:
            self.rate = min(self.rate / 2, max(self._minutes_rate, self.rate / 8))
        self.rate = max(self.MIN_RATE, self.rate)
        self._begin(self.rate, now, wait)

    def record_refusal(self, now: float) -> bool:
        """Count a single refusal at this rate. Returns whether it corrected the rate."""
        if self.rate is None:
            return False
        self._refused += 1
        span = now - self.since
        if span <= 0.5 or self._refused >= self._sent:
            return False
        if not self._measured:
            self.exhausted(now, 0.0)
            self._next = now + 1 / self.rate  # nothing is left: the next one at once would be refused too
            return True
        share = self._refused / self._sent
        if self._refused < 2 or span < self.SETTLING_S or share <= self.background + self.TOLERATED_SHARE:
            return False
        if share >= self.NO_FEWER * self._last_share > 0 and self.rate <= self.SAME_RATE * self._began_at_rate:
            self.background = max(self.background, share)
        self._last_share = share
        rate = self.SAFETY_FACTOR * self._sent * (1 - max(0.0, share - self.background)) / span
        self.rate = max(self.MIN_RATE, min(self.rate, rate))
        self._begin(self.rate, now, 0.0)
        self._next = now + 1 / self.rate
        return True

    def _begin(self, rate: float, now: float, wait: float) -> None:
        self.since, self._sent, self._refused, self._began_at_rate = now, 0, 0, rate
        self._at = self._next = now + wait
        self._resumed = now + wait

    def delay(self, now: float) -> float:
        """Seconds until the next request may be sent."""
        return 0.0 if self.rate is None else max(0.0, self._next - now)

    def record_send(self, now: float) -> None:
        """Count a request that is sent now."""
        if self.rate is None:
            return
        self._sent += 1
        elapsed = max(0.0, now - self._at)
        pace = min(1.0, self.rate) if self._measured else 1.0
        age = pace * (now - self._resumed) - (self.PLATEAU_S if self._measured else 0.0)
        if age < 0:
            growth = self.GROWTH_PER_S ** (pace * elapsed)
        else:
            doubling = self.DOUBLING_S if self._measured else self.FIRST_DOUBLING_S
            exponent = (age**2 - max(0.0, age - pace * elapsed) ** 2) / doubling**2
            growth = 2.0 ** min(exponent, 64.0)  # a lull of hours is beyond what a float holds
        self.rate *= min(growth, self.MAX_STEP)
        self._at = now
        # Unused capacity is not saved up: a burst after a lull would be refused.
        self._next = max(self._next, now - 1 / self.rate) + 1 / self.rate
