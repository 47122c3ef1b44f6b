"""One program at a time goes on with a run: two that continued it at once would each send, and pay, the same rows. Knows files; knows no log.

The system frees the locks of a program that dies. Where a place cannot lock files, nothing is held up.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from pathlib import Path

from holynb.errors import BadOption
from kernels_support.jupyter.lock import Lock

__all__ = ["WAIT_S", "Lease"]

#: Seconds that the run before may take to end: one that was interrupted hears out what is in flight.
WAIT_S = 6.0


class Lease:
    """The right to go on with a run, by its id and by its name."""

    def __init__(self) -> None:
        self._held: list[Lock] = []

    async def take(self, home: Path, run: str, name: str | None, *, begins: bool) -> None:
        """Waits a little for another to end; raises BadOption where it does not, or where both began under one name at once (`begins`)."""
        for word in dict.fromkeys(filter(None, (run, name))):
            lock = Lock(home / "turns" / hashlib.sha256(word.encode()).hexdigest()[:16])
            with suppress(OSError):
                if not await _taken(lock, 0 if begins else WAIT_S):
                    self.free()
                    raise BadOption(
                        f"Run {name or run} goes on in another cell or kernel, and its rows would be paid twice. Wait for its end, or stop it there "
                        f"(%infer stop {name or run}); this cell then sends what is left."
                    )
                self._held.append(lock)

    def free(self) -> None:
        """Let others go on with it."""
        while self._held:
            self._held.pop().free(remove=True)


async def _taken(lock: Lock, seconds: float) -> bool:
    """Asked again and again, not waited for in a thread: a run that is cancelled meanwhile must not get it afterwards."""
    end = time.monotonic() + seconds
    while not lock.take(0):
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(0.05)
    return True
