"""A circuit breaker: closed, open for a while after faults in a row, then half-open for one probe. Pure; the clock is passed in.

Nygard, "Release It!", 2nd ed., chapter 5.
"""

from __future__ import annotations

__all__ = ["Breaker"]

FAULTS_IN_A_ROW = 5
COOLDOWN_S = 30.0

#: What says that the endpoint is ill, rather than the request or our pace.
ILL = frozenset({"server", "connection", "timeout", "truncated", "oom"})


class Breaker:
    """State of one endpoint. `limit` faults in a row open it for `cooldown` seconds; a probe that fails opens it again."""

    def __init__(self, limit: int = FAULTS_IN_A_ROW, cooldown: float = COOLDOWN_S) -> None:
        self.limit = limit
        self.cooldown = cooldown
        self.opened: float | None = None
        self._row = 0

    def reopens(self) -> float | None:
        """When the next probe may go out; None where the circuit is closed."""
        return None if self.opened is None else self.opened + self.cooldown

    def is_open(self, now: float) -> bool:
        """Whether nothing may be sent at `now`."""
        return self.opened is not None and now < self.opened + self.cooldown

    def half_open(self, now: float) -> bool:
        """Whether one probe may be sent, and no more."""
        return self.opened is not None and now >= self.opened + self.cooldown

    def succeeded(self) -> None:
        """An answer: closed again."""
        self._row, self.opened = 0, None

    def failed(self, kind: str, now: float) -> bool:
        """A fault of this kind. Returns whether it has just opened the circuit."""
        if kind not in ILL:
            return False
        self._row += 1
        if self.half_open(now) or (self.opened is None and self._row >= self.limit):
            self.opened = now
            return True
        return False
