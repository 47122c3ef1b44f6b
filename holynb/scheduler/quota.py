"""Three estimates of when one more request may be sent: a sliding window, a server's headers, a learned rate. Pure; time is an argument."""

from __future__ import annotations

from collections import deque

__all__ = ["INFINITE", "HeaderQuota", "LearnedRate", "SlidingWindow"]

INFINITE = float("inf")


class SlidingWindow:
    """At most `cap` in any 60 seconds, exactly: what the user's --rpm and --tpm mean."""

    SPAN_S = 60.0

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def delay(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits. More than the cap fits when nothing else is there."""
        while self._entries and self._entries[0][0] <= now - self.SPAN_S:
            self._total -= self._entries.popleft()[1]
        over = self._total + min(amount, self.cap) - self.cap
        if over <= 0:
            return 0.0
        for at, count in self._entries:
            over -= count
            if over <= 0:
                return max(0.0, at + self.SPAN_S - now)
        return self.SPAN_S

    def take(self, amount: int, now: float) -> None:
        """Count `amount`; a negative one corrects an estimate that was too high."""
        self._entries.append((now, amount))
        self._total += amount


class HeaderQuota:
    """A quota as reported in a server's headers: limit, what is left, seconds until it is full again.

    A reply reports what was left when the server admitted its request, so everything sent after that request is subtracted; replies to
    requests older than the newest one seen are ignored, since long answers overtake each other.

    Some servers refill continuously (a token bucket), others at once at the end of a fixed window. The time at which the quota is full
    tells them apart: in a bucket each request postpones it, in a window it stays.
    """

    #: Added to the reported time of a full quota, for clocks and rounding.
    MARGIN_S = 0.1
    #: Shift that a bucket's full time must show before the two are told apart: some servers round to whole seconds.
    MIN_SHIFT_S = 2.0

    def __init__(self) -> None:
        self.limit: int | None = None
        self.left: int | None = None
        self.window = False
        self._sent = 0  # total sent, up to and with the request whose reply reported `left`
        self._at = 0.0
        self._full_at = 0.0
        self._refill_rate = 0.0
        self._used = 0
        self._baseline: tuple[float, int, float] | None = None  # first report since the quota was last full: at, used, full at

    def update(self, reported: tuple[int | None, int | None, float | None], sent: int, now: float) -> None:
        """`reported`: limit, left, reset. `sent`: total sent, up to and with the request that this reply answers."""
        limit, left, reset = reported
        if left is None or sent < self._sent:
            return
        if limit != self.limit:
            self.limit, self.window, self._baseline = limit, False, None
        self.left, self._sent, self._at = left, sent, now
        total = limit if limit is not None else left + 1
        used = max(0, total - left)
        if reset is None:
            reset = used * SlidingWindow.SPAN_S / max(total, 1)
        else:
            self._compare(used, reset, now)
        self._refill_rate = 0.0 if self.window or not reset else used / reset
        self._full_at = now + reset * 1.02 + self.MARGIN_S

    def _compare(self, used: int, reset: float, now: float) -> None:
        last, self._used = self._used, used
        if self._baseline is None or used < last or not used:
            self._baseline = (now, used, now + reset)
            return
        then, before, full_at = self._baseline
        expected = (now - then) + (used - before) * reset / used
        if expected > self.MIN_SHIFT_S:
            self.window = now + reset - full_at < expected / 2

    def scarce(self, sent: int, now: float) -> bool:
        """Whether less than a tenth is probably left, so that a refusal is about this quota."""
        if self.left is None or now >= self._full_at:
            return False
        return self.left - (sent - self._sent) + self._refill_rate * (now - self._at) < (self.limit or 1) / 10

    def delay(self, amount: int, sent: int, now: float) -> float:
        """Seconds until `amount` is probably available; 0 where nothing is known."""
        if self.left is None:
            return 0.0
        full = max(1, self.limit or 1)
        needed = min(amount, full)
        if now >= self._full_at + SlidingWindow.SPAN_S:
            self.left = self._baseline = None  # the last report is too old
            return 0.0
        if now >= self._full_at:
            # Full again; what was sent since the last report counts, and the next reply will report.
            return 0.0 if sent - self._sent + needed <= full else self.MARGIN_S
        available = self.left - (sent - self._sent) + self._refill_rate * (now - self._at)
        if available >= needed:
            return 0.0
        return min(self._full_at - now, (needed - available) / self._refill_rate if self._refill_rate > 0 else INFINITE)


class LearnedRate:
    """A rate for servers that send a bare 429. What passes between two refusals is the quota, which gives its rate.

    Before the second refusal the rate doubles each second; afterwards it starts just below the measured rate and grows slowly.
    """

    INITIAL_RATE = 4.0
    #: However often a server refuses, it is retried after half a minute: a refusal may have another reason than a rate.
    MIN_RATE = 1 / 30
    SAFETY_FACTOR, GROWTH_PER_S = 0.95, 1.01

    def __init__(self) -> None:
        self.rate: float | None = None
        self._measured = False
        self._counting_since = 0.0
        self._passed = 0
        self._next = 0.0
        self._at = 0.0

    def record_refusal(self, now: float, wait: float) -> None:
        """Count a refusal; several among requests in flight together count as one. `wait`: its pause, seconds."""
        span, passed = now - self._counting_since, self._passed - 1  # without the refused one
        if self.rate is None:
            self.rate = self.INITIAL_RATE
        elif passed > 0 and span > 0.5:
            self.rate, self._measured = self.SAFETY_FACTOR * passed / span, True
        else:
            self.rate /= 2
        self.rate = max(self.MIN_RATE, self.rate)
        self._counting_since, self._passed = now, 0
        self._at = self._next = now + wait

    def delay(self, now: float) -> float:
        """Seconds until the next request may be sent."""
        return 0.0 if self.rate is None else max(0.0, self._next - now)

    def record_send(self, now: float) -> None:
        """Count a request that is sent now."""
        if self.rate is None:
            return
        self._passed += 1
        self.rate *= (self.GROWTH_PER_S if self._measured else 2.0) ** max(0.0, now - self._at)
        self._at = now
        # Unused capacity is not saved up: a burst after a lull would be refused.
        self._next = max(self._next, now - 1 / self.rate) + 1 / self.rate
