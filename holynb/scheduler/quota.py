"""Three ways to know when one more request may go: a count per minute, a server's headers, a rate learned from refusals. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

__all__ = ["Headers", "Minute", "Pace"]

INFINITE = float("inf")


class Minute:
    """At most `cap` in any 60 seconds, exactly: what the user's --rpm and --tpm mean."""

    SPAN = 60.0

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def delay(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits. More than the cap fits when nothing else is there."""
        while self._entries and self._entries[0][0] <= now - self.SPAN:
            self._total -= self._entries.popleft()[1]
        over = self._total + min(amount, self.cap) - self.cap
        if over <= 0:
            return 0.0
        for at, held in self._entries:
            over -= held
            if over <= 0:
                return max(0.0, at + self.SPAN - now)
        return self.SPAN

    def take(self, amount: int, now: float) -> None:
        """Count it. A negative amount gives back what was estimated too high."""
        self._entries.append((now, amount))
        self._total += amount


class Headers:
    """A quota as the server's headers tell it: limit, what is left, seconds until it is full again.

    A reply says what was left when the server admitted its request, so everything sent after that request is taken off; replies that are
    older than the newest heard are ignored, since long answers overtake each other.

    Some servers refill all the time (a bucket), others at once at the end of a window. What tells them apart is the moment at which all is
    there again: with a bucket each request moves it away, in a window it stays.
    """

    #: Seconds after a full quota is promised, for clocks and rounding.
    MARGIN = 0.1
    #: Seconds by which a bucket's moment must have moved before it is looked at: some servers round to whole ones.
    TELLING = 2.0

    def __init__(self) -> None:
        self.limit: int | None = None
        self.left: int | None = None
        self.window = False
        self._sent = 0  # how much had been sent in all when the request that told us went out
        self._at = 0.0
        self._full_at = 0.0
        self._rate = 0.0
        self._used = 0
        self._mark: tuple[float, int, float] | None = None  # the first word since the quota was last filled: when, used, full at

    def hear(self, said: tuple[int | None, int | None, float | None], sent: int, now: float) -> None:
        """`said`: limit, left, reset. `sent`: how much had been sent in all, up to and with the request that this answers."""
        limit, left, reset = said
        if left is None or sent < self._sent:
            return
        if limit != self.limit:
            self.limit, self.window, self._mark = limit, False, None
        self.left, self._sent, self._at = left, sent, now
        whole = limit if limit is not None else left + 1
        used = max(0, whole - left)
        if reset is None:
            reset = used * Minute.SPAN / max(whole, 1)
        else:
            self._compare(used, reset, now)
        self._rate = 0.0 if self.window or not reset else used / reset
        self._full_at = now + reset * 1.02 + self.MARGIN

    def _compare(self, used: int, reset: float, now: float) -> None:
        last, self._used = self._used, used
        if self._mark is None or used < last or not used:
            self._mark = (now, used, now + reset)
            return
        then, before, full_at = self._mark
        expected = (now - then) + (used - before) * reset / used
        if expected > self.TELLING:
            self.window = now + reset - full_at < expected / 2

    def scarce(self, sent: int, now: float) -> bool:
        """Whether little is left as far as is known, so that a refusal will be about this quota."""
        if self.left is None or now >= self._full_at:
            return False
        return self.left - (sent - self._sent) + self._rate * (now - self._at) < (self.limit or 1) / 10

    def delay(self, amount: int, sent: int, now: float) -> float:
        """Seconds until `amount` is there, as far as is known; 0 where nothing is known."""
        if self.left is None:
            return 0.0
        full = max(1, self.limit or 1)
        need = min(amount, full)
        if now >= self._full_at + Minute.SPAN:
            self.left = self._mark = None  # nobody has told us anything for long
            return 0.0
        if now >= self._full_at:
            # Full again; what was sent since the last word counts, and the next reply will tell.
            return 0.0 if sent - self._sent + need <= full else self.MARGIN
        have = self.left - (sent - self._sent) + self._rate * (now - self._at)
        if have >= need:
            return 0.0
        return min(self._full_at - now, (need - have) / self._rate if self._rate > 0 else INFINITE)


class Pace:
    """A rate for servers that only say 429. Between two refusals exactly the quota went through, which is its rate.

    Before the second refusal the rate doubles each second; afterwards it stays just below what was measured and creeps up.
    """

    FIRST = 4.0
    #: However often a server refuses, it is asked again after half a minute: a refusal may have another reason than a rate.
    LEAST = 1 / 30
    BELOW, CREEP = 0.95, 1.01

    def __init__(self) -> None:
        self.rate: float | None = None
        self._measured = False
        self._since = 0.0
        self._passed = 0
        self._next = 0.0
        self._at = 0.0

    def refused(self, now: float, wait: float) -> None:
        """A refusal; those that were under way together are one."""
        span, passed = now - self._since, self._passed - 1  # the refused one did not
        if self.rate is None:
            self.rate = self.FIRST
        elif passed > 0 and span > 0.5:
            self.rate, self._measured = self.BELOW * passed / span, True
        else:
            self.rate /= 2
        self.rate = max(self.LEAST, self.rate)
        self._since, self._passed = now, 0
        self._at = self._next = now + wait

    def delay(self, now: float) -> float:
        """Seconds until the next one may go."""
        return 0.0 if self.rate is None else max(0.0, self._next - now)

    def took(self, now: float) -> None:
        """One goes out."""
        if self.rate is None:
            return
        self._passed += 1
        self.rate *= (self.CREEP if self._measured else 2.0) ** max(0.0, now - self._at)
        self._at = now
        # What was not used is not saved up: a burst after a lull would be refused.
        self._next = max(self._next, now - 1 / self.rate) + 1 / self.rate
