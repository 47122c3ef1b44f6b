"""Device time: each moment of a pool's devices is shared by the requests that are under way in it. Pure but for a clock; knows no pool."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Meter"]


class Meter:
    """`devices` of one pool. The shares of all requests add up to the time in which any was under way, times the devices."""

    def __init__(self, devices: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.devices = devices
        self.flying = 0
        self._clock = clock
        self._each = 0.0
        self._at = 0.0

    def begin(self) -> float:
        """A request is under way. Returns what `end` wants to know of it."""
        self._pass()
        self.flying += 1
        return self._each

    def end(self, began: float) -> float:
        """It is over. Returns its share, in device-seconds."""
        self._pass()
        self.flying -= 1
        return self._each - began

    def _pass(self) -> None:
        now = self._clock()
        if self.flying:
            self._each += (now - self._at) * self.devices / self.flying
        self._at = now
