"""One process at a time continues a run: two at once would each send, and pay, the same rows. Knows files; knows no log.

The system releases the locks of a process that dies. Where the filesystem cannot lock, a lease is granted without a lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from pathlib import Path

from holynb.errors import BadOption
from kernels_support.jupyter.lock import Lock

__all__ = ["WAIT_S", "Lease", "RunHeld"]

#: Longest wait for the run before to end: one that was interrupted finishes what is in flight.
WAIT_S = 6.0
POLL_S = 0.05


class RunHeld(BadOption):
    """Another process continues this run now."""


class Lease:
    """The exclusive right to continue a run, by its id and by its name."""

    def __init__(self) -> None:
        self._locks: list[Lock] = []

    async def acquire(self, home: Path, run: str, name: str | None, *, begins: bool) -> None:
        """Acquire, waiting up to WAIT_S for the holder to end; not at all where the run `begins` (two began under one name at once).

        Raises RunHeld where it is still held.
        """
        for word in dict.fromkeys(filter(None, (run, name))):
            lock = _lock(home, word)
            with suppress(OSError):
                if not await _acquire(lock, 0 if begins else WAIT_S):
                    self.release()
                    raise RunHeld(
                        f"Run {name or run} is active in another cell or kernel, and its rows would be paid twice. Wait until it ends, or stop it there "
                        f"(%infer stop {name or run}); this cell then sends what is left."
                    )
                self._locks.append(lock)

    @staticmethod
    def is_held(home: Path, run: str) -> bool:
        """Whether a process continues this run now. False where the filesystem cannot tell."""
        lock = _lock(home, run)
        try:
            free = lock.take(0)
        except OSError:
            return False
        lock.free(remove=True)
        return not free

    def release(self) -> None:
        """Let others continue the run. Idempotent."""
        while self._locks:
            self._locks.pop().free(remove=True)


def _lock(home: Path, word: str) -> Lock:
    return Lock(home / "turns" / hashlib.sha256(word.encode()).hexdigest()[:16])


async def _acquire(lock: Lock, seconds: float) -> bool:
    """Whether the lock was acquired in time. Polled, not waited for in a thread: a run that is cancelled must not get it afterwards."""
    end = time.monotonic() + seconds
    while not lock.take(0):
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(POLL_S)
    return True
