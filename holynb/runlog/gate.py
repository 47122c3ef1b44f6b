"""The gate between SQLite and a fork: SQLite's mutexes, held by another thread as a process is forked, are never released in the child.

Whoever uses SQLite is inside the gate; a fork waits until nobody is, for a moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["inside"]

#: Longest wait of a fork: a statement may itself wait for another process.
FORK_WAIT_S = 2.0


class _Gate:
    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forking = False

    def enter(self) -> None:
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside = max(0, self._inside - 1)
            self._changed.notify_all()

    def shut(self) -> None:
        """Before a fork."""
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: not self._inside, FORK_WAIT_S)

    def reopen(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()


_gate = _Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.shut, after_in_parent=_gate.reopen, after_in_child=_gate.renew)


@contextmanager
def inside() -> Iterator[None]:
    """Around every use of SQLite; not one inside another."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()
