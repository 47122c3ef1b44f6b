"""A circuit breaker: closed; open after consecutive faults, or while a server refuses; half-open for one probe after a wait. Pure.

Nygard, "Release It!", 2nd ed., chapter 5. Times are arguments.
"""

from __future__ import annotations

__all__ = ["Breaker"]

MAX_CONSECUTIVE_FAULTS = 5
#: Wait for the next probe where rows have somewhere else to go: a probe costs one of them an attempt.
COOLDOWN_S = 30.0
#: Waits for the first, second, … probe where rows have nowhere else to go; the last one repeats.
PROBE_WAITS_S = (1.0, 2.0, 4.0, 8.0)

#: Kinds of fault that are about the endpoint's health, not about the request or our rate.
UNHEALTHY_KINDS = frozenset({"server", "connection", "timeout", "truncated", "oom"})
#: Those of them that open the circuit of a lone endpoint: its rows wait for a server that is gone or silent, and nothing else helps
#: them. A server that says what failed is there: its rows end after their own retries.
ABSENT_KINDS = frozenset({"connection", "timeout"})


class Breaker:
    """State of one endpoint. `limit` consecutive faults of `kinds` open it; a probe that fails opens it again.

    `cooldown` is in seconds; `scale` scales the waits before probes. `failing_since`: the first of these faults after the last answer.
    `failed_probes`: how many failed since it opened. `refusing`: it is open because the server refuses (429). `kind`: of the last fault.
    """

    def __init__(self, limit: int = MAX_CONSECUTIVE_FAULTS, cooldown: float = COOLDOWN_S) -> None:
        self.limit = limit
        self.cooldown = cooldown
        self.kinds = UNHEALTHY_KINDS
        self.scale = 1.0
        self.opened_at: float | None = None
        self.failing_since: float | None = None
        self.failed_probes = 0
        self.refusing = False
        self.kind: str | None = None
        self._hold = 0.0
        self._consecutive = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing but a probe may be sent."""
        return self.opened_at is not None

    def probe_at(self, *, needed: bool) -> float | None:
        """The time from which a probe may be sent; None where the circuit is closed. `needed`: rows have nowhere else to go."""
        if self.opened_at is None:
            return None
        wait = self.scale * PROBE_WAITS_S[min(self.failed_probes, len(PROBE_WAITS_S) - 1)]
        if self.refusing:
            return self.opened_at + max(wait, self._hold)
        return self.opened_at + (min(wait, self.cooldown) if needed else self.cooldown)

    def record_success(self) -> None:
        """Close the circuit."""
        self._consecutive = self.failed_probes = 0
        self.opened_at = self.failing_since = None
        self.refusing = False

    def record_failure(self, kind: str, now: float, *, certain: bool = False) -> bool:
        """Count a fault of this kind. Returns whether it has just opened the circuit. `certain`: one such fault is proof."""
        if kind not in self.kinds:
            return False
        self.kind = kind
        self._consecutive += 1
        self.failing_since = now if self.failing_since is None else self.failing_since
        if self.opened_at is not None or not (certain or self._consecutive >= self.limit):
            return False
        self.opened_at = now
        return True

    def record_failed_probe(self, now: float) -> None:
        """Open it again, for longer."""
        self.failed_probes += 1
        self.opened_at = now
        self.refusing = False

    def refuse(self, now: float, hold: float) -> None:
        """Open it because the server refuses: no probe for `hold` seconds."""
        self.opened_at, self._hold, self.refusing = now, hold, True
