"""How long a request waits: to connect, and for the next word. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until the socket is connected; of silence (of a whole answer if not streamed); `flex`: at that tier, None: as at others."""

    connect: float = 10.0
    silence: float = 60.0
    flex: float | None = None

    def longest_silence(self, tiers: tuple[str, ...]) -> float:
        """Of a request that asks for these service tiers."""
        return self.flex if self.flex is not None and tiers[:1] == ("flex",) else self.silence
