"""Device time: the time of a pool's devices, divided among the requests in flight at each moment. Pure but for a clock; knows no pool."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Meter"]


class Meter:
    """The device-seconds of one pool. The shares of all requests add up to the time with any in flight, times `devices`."""

    def __init__(self, devices: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.devices = devices
        self.in_flight = 0
        self._clock = clock
        self._per_request_s = 0.0
        self._at = 0.0

    def begin(self) -> float:
        """A request starts. Returns the token to pass to `end`."""
        self._advance()
        self.in_flight += 1
        return self._per_request_s

    def end(self, began: float) -> float:
        """A request ends. Returns its share in device-seconds."""
        self._advance()
        self.in_flight -= 1
        return self._per_request_s - began

    def _advance(self) -> None:
        now = self._clock()
        if self.in_flight:
            self._per_request_s += (now - self._at) * self.devices / self.in_flight
        self._at = now
