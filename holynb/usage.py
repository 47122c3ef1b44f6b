"""What a server says of tokens and of its quota. What it did not say is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server counted. `tokens_in` includes cached and cache writes, `tokens_out` reasoning; `device_s`: a pool's device-seconds."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    tokens_cache_write: int | None = None
    device_s: float | None = None

    def __add__(self, other: Usage) -> Usage:
        """Sums what is known on both sides; what only one side knows stays known."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Usage(*(b if a is None else a if b is None else a + b for a, b in pairs))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reply's headers said of a quota. `*_reset` is seconds from now until the quota is full again."""

    requests: int | None = None
    requests_left: int | None = None
    requests_reset: float | None = None
    tokens: int | None = None
    tokens_left: int | None = None
    tokens_reset: float | None = None
