"""A circuit breaker: closed; open after consecutive faults; half-open for one probe after a cooldown. Pure; the time is an argument.

Nygard, "Release It!", 2nd ed., chapter 5.
"""

from __future__ import annotations

__all__ = ["Breaker"]

MAX_CONSECUTIVE_FAULTS = 5
COOLDOWN_S = 30.0

#: Kinds of fault that are about the endpoint's health, not about the request or our rate.
UNHEALTHY_KINDS = frozenset({"server", "connection", "timeout", "truncated", "oom"})


class Breaker:
    """State of one endpoint. `limit` consecutive faults open it for `cooldown` seconds; a probe that fails opens it again."""

    def __init__(self, limit: int = MAX_CONSECUTIVE_FAULTS, cooldown: float = COOLDOWN_S) -> None:
        self.limit = limit
        self.cooldown = cooldown
        self.opened_at: float | None = None
        self._consecutive = 0

    def probe_at(self) -> float | None:
        """The time from which a probe may be sent; None where the circuit is closed."""
        return None if self.opened_at is None else self.opened_at + self.cooldown

    def is_open(self, now: float) -> bool:
        """Whether no request may be sent at `now`."""
        return self.opened_at is not None and now < self.opened_at + self.cooldown

    def half_open(self, now: float) -> bool:
        """Whether a single probe may be sent at `now`."""
        return self.opened_at is not None and now >= self.opened_at + self.cooldown

    def record_success(self) -> None:
        """Close the circuit."""
        self._consecutive, self.opened_at = 0, None

    def record_failure(self, kind: str, now: float) -> bool:
        """Count a fault of this kind. Returns whether it has just opened the circuit."""
        if kind not in UNHEALTHY_KINDS:
            return False
        self._consecutive += 1
        if self.half_open(now) or (self.opened_at is None and self._consecutive >= self.limit):
            self.opened_at = now
            return True
        return False
