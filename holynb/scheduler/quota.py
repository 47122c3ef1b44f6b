"""Quotas that are told: a sliding window of the user's, and those that a server's headers report. Pure; time is an argument."""

from __future__ import annotations

from collections import deque

from holynb.types import Limits

__all__ = ["INFINITE", "HeaderQuota", "ReportedQuotas", "SlidingWindow", "UserBounds"]

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


class UserBounds:
    """The user's requests and tokens a minute; None: no bound."""

    def __init__(self, rpm: int | None, tpm: int | None) -> None:
        self._rpm, self._tpm = SlidingWindow(rpm) if rpm else None, SlidingWindow(tpm) if tpm else None

    def delay(self, tokens: int, now: float) -> float:
        """Seconds until a request of so many tokens fits both."""
        if self._rpm is None and self._tpm is None:
            return 0.0
        return max(self._rpm.delay(1, now) if self._rpm else 0.0, self._tpm.delay(tokens, now) if self._tpm else 0.0)

    def take(self, tokens: int, now: float) -> None:
        """Count a request."""
        if self._rpm:
            self._rpm.take(1, now)
        if self._tpm:
            self._tpm.take(tokens, now)

    def correct(self, tokens: int, used: int, now: float) -> None:
        """A request that was counted with so many tokens took `used`: what it did not take is free again."""
        if self._tpm and used < tokens:
            self._tpm.take(used - tokens, now)


class HeaderQuota:
    """A quota as reported in a server's headers: limit, what is left, seconds until it is full again.

    A reply reports what was left when the server admitted its request, so everything sent after that request is subtracted; replies to
    requests older than the newest one seen are ignored, since long answers overtake each other.

    Some servers refill continuously (a token bucket), others at once at the end of a fixed window. The time at which the quota is full
    tells them apart: in a bucket each request postpones it, in a window it stays.

    Where more is used up than was sent from here, others use the quota too: only as large a part of what is left is counted on as was ours.
    """

    #: Added to the reported time of a full quota, for clocks and rounding.
    MARGIN_S = 0.1
    #: Shift that a bucket's full time must show before the two are told apart: some servers round to whole seconds.
    MIN_SHIFT_S = 2.0
    #: Requests over which our part is measured; from this part on the quota is ours alone, since replies overtake each other.
    COUNTED, ALONE, LEAST_PART = 32, 0.8, 0.1

    def __init__(self) -> None:
        self.limit: int | None = None
        self.left: int | None = None
        self.window = False
        self._sent = 0  # total sent, up to and with the request whose reply reported `left`
        self._at = 0.0
        self._full_at = 0.0
        self._refill_rate = 0.0
        self._used = 0
        self._own_part = 1.0
        self._counted: tuple[int, float] = (0, 0.0)  # since our part was measured: sent from here, used up by all
        self._baseline: tuple[float, int, float] | None = None  # first report since the quota was last full: at, used, full at

    def update(self, reported: tuple[int | None, int | None, float | None], sent: int, now: float) -> None:
        """`reported`: limit, left, reset. `sent`: total sent, up to and with the request that this reply answers."""
        limit, left, reset = reported
        if left is None or sent < self._sent:
            return
        if limit != self.limit:
            self.limit, self.window, self._baseline = limit, False, None
        self._measure_part(left, sent, now)
        self.left, self._sent, self._at = left, sent, now
        total = limit if limit is not None else left + 1
        used = max(0, total - left)
        if reset is None:
            reset = used * SlidingWindow.SPAN_S / max(total, 1)
        else:
            self._compare(used, reset, now)
        self._refill_rate = 0.0 if self.window or not reset else used / reset
        self._full_at = now + reset * 1.02 + self.MARGIN_S

    def record_refusal(self) -> None:
        """Refused where some of the quota should have been left for us."""
        self._own_part, self._counted = max(self.LEAST_PART, 0.75 * min(self._own_part, self.ALONE)), (0, 0.0)

    def _measure_part(self, left: int, sent: int, now: float) -> None:
        if self.left is None:
            return
        own, used = self._counted
        own, used = own + sent - self._sent, used + self.left - left + self._refill_rate * (now - self._at)
        if own >= self.COUNTED:
            part = max(self.LEAST_PART, min(1.0, own / max(used, 1.0)))
            self._own_part = (self._own_part + (1.0 if part > self.ALONE else part)) / 2
            own, used = 0, 0.0
        self._counted = own, used

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
        part = self._own_part if self._own_part < self.ALONE else 1.0
        available = part * (self.left + self._refill_rate * (now - self._at)) - (sent - self._sent)
        if available >= needed:
            return 0.0
        rate = part * self._refill_rate
        return min(self._full_at - now, (needed - available) / rate if rate > 0 else INFINITE)


class ReportedQuotas:
    """The quotas that the headers of one server report: of requests and of tokens. `sent`: how many of each were sent in all."""

    def __init__(self) -> None:
        self._quotas = HeaderQuota(), HeaderQuota()
        self._known = False

    def update(self, limits: Limits | None, sent: tuple[int, int], now: float) -> None:
        """`sent`: up to and with the request that this reply answers."""
        if limits is None:
            return
        self._known = True
        requests, tokens = self._quotas
        requests.update((limits.requests, limits.requests_left, limits.requests_reset), sent[0], now)
        tokens.update((limits.tokens, limits.tokens_left, limits.tokens_reset), sent[1], now)

    def delay(self, tokens: int, sent: tuple[int, int], now: float) -> float:
        """Seconds until a request of so many tokens probably has room in both."""
        if not self._known:
            return 0.0
        of_requests, of_tokens = self._quotas
        return max(of_requests.delay(1, sent[0], now), of_tokens.delay(tokens, sent[1], now))

    def scarce(self, sent: tuple[int, int], now: float) -> list[HeaderQuota]:
        """Those that a refusal is about."""
        return [quota for quota, total in zip(self._quotas, sent, strict=True) if quota.scarce(total, now)]
