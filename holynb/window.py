"""How many requests an endpoint may have in flight: a congestion window (slow start, then additive increase, multiplicative decrease).

RFC 5681's shape, with a 429 in the place of a lost packet. asyncio only; knows no requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Window"]


class Window:
    """At most `size` in flight and nothing while paused. One coroutine waits in `acquire` at a time; owned by the io thread."""

    def __init__(self, cap: int, start: int = 16, clock: Callable[[], float] | None = None) -> None:
        self.cap = cap
        self.size = float(min(start, cap))
        self.flying = 0
        self._slow_start = True
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._until = 0.0
        self._cut_at = -1.0
        self._changed = asyncio.Event()

    async def acquire(self) -> None:
        """Wait for a place and take it."""
        while True:
            pause = self._until - self._clock()
            if pause <= 0 and self.flying < int(self.size):
                self.flying += 1
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(pause if pause > 0 else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def release(self) -> None:
        """Give a place back."""
        self.flying -= 1
        self._changed.set()

    def grew(self) -> None:
        """An answer came: twice the window a round trip until the first 429, one place a round trip after it."""
        if self.size < self.cap:
            self.size = min(float(self.cap), self.size + (1.0 if self._slow_start else 1.0 / self.size))

    def limited(self, wait: float) -> None:
        """A 429: pause everybody, halve the window; once for all that were in flight together."""
        now = self._clock()
        self._slow_start = False
        self._until = max(self._until, now + wait)
        if now >= self._cut_at:
            self.size = max(1.0, self.size / 2)
            self._cut_at = now + max(wait, 0.5)
        self._changed.set()
