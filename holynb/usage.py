"""Token usage and quota as a server reports them. A value that it did not report is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["NO_USAGE", "Limits", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of an attempt. `tokens_in` includes cached and cache writes, `tokens_out` reasoning; `device_s`: a pool's device-seconds.

    `tokens_reasoning`: those of `tokens_out` that were thought; None where the server does not split them.
    `tokens_cache_write_1h`: those of `tokens_cache_write` that were written for an hour, which costs more than for minutes.
    """

    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    tokens_cache_write: int | None = None
    device_s: float | None = None
    tokens_cache_write_1h: int | None = None
    tokens_reasoning: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Field by field; a field that is None on one side takes the other's value."""
        if self is NO_USAGE:
            return other
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Usage(*(b if a is None else a if b is None else a + b for a, b in pairs))


#: Nothing counted yet.
NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Limits:
    """Quota from a reply's headers. `*_reset` is in seconds from now until the quota is full again."""

    requests: int | None = None
    requests_left: int | None = None
    requests_reset: float | None = None
    tokens: int | None = None
    tokens_left: int | None = None
    tokens_reset: float | None = None
