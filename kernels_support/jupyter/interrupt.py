"""Counts SIGINTs instead of raising KeyboardInterrupt, for the short time in which an interrupted cell shuts down.

ipykernel's own SIGINT handler delivers no second interrupt to an awaiting cell, so the cell installs this one after the first,
polls `count`, and the old handler is restored in any case.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """`with Interrupts() as seen: … seen.count …`. `on_each` is called with the count, in the main thread.

    Outside the main thread, where Python allows no signal handlers, it counts and changes nothing. Nor does it where the process ignores
    interrupts, as a shell has its background jobs do: they are for the program in front. (ipykernel ignores them between cells, so there
    they count.)
    """

    def __init__(self, on_each: Callable[[int], None] | None = None) -> None:
        self.count = 0
        self._on_each = on_each
        self._previous: Any = None
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.count += 1
        if self._on_each is not None:
            self._on_each(self.count)

    def __enter__(self) -> Self:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN and "ipykernel" not in sys.modules
        if threading.current_thread() is threading.main_thread() and not ignored:
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._installed:
            # None: the previous handler was not installed from Python and cannot be restored; the system's default is the next best.
            signal.signal(signal.SIGINT, signal.SIG_DFL if self._previous is None else self._previous)
            self._installed = False
