"""The cell that waits: looks at its run twenty times a second, lets a view paint, and turns interrupts into a stop.

The run goes on in a thread of its own; nothing here can slow it or break it. There are two ways to wait, `follow` (awaited, so that clicks
are handled meanwhile) and `wait` (blocking, inside `%%time` and scripts), and one `Watch` that both ask what to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from kernels_support.jupyter.interrupt import Interrupts

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["View", "Watch", "follow", "wait"]

#: Seconds between two looks. ipykernel's SIGINT handler does not wake an idle loop, so this is also how soon an interrupt is noticed.
TICK = 0.05
#: Nothing is shown of a run that ends before this.
QUIET = 1.0
#: After a second interrupt the cell leaves, even if the run has not ended by then.
LEAVE = 0.5


class View(Protocol):
    """What paints a run while it goes on. Called in the main thread only; `every` is the least number of seconds between two paints."""

    every: float

    def paint(self, run: Run) -> None: ...


class Watch:
    """What a waiting cell does at each look. `interrupted` counts the interrupts; `trouble` is what a view that failed said."""

    def __init__(self, run: Run, view: View | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.interrupted = 0
        self.trouble: Exception | None = None
        self._view = view
        self._clock = clock
        self._next = clock() + QUIET
        self._leave: float | None = None

    def goes_on(self, interrupts: int) -> bool:
        """Whether to wait on. `interrupts` is how many there have been."""
        if self.run.done:
            return False
        while self.interrupted < interrupts:
            self.interrupted += 1
            self.run.cancel()
            if self.interrupted == 2:
                self._leave = self._clock() + LEAVE
        now = self._clock()
        if self._leave is not None and now >= self._leave:
            return False
        if self._view is not None and now >= self._next:
            self._paint(self._view)
        return True

    def _paint(self, view: View) -> None:
        try:
            view.paint(self.run)
        except Exception as exc:  # noqa: BLE001 - a picture that fails must not cost the run; it is told at the end
            self.trouble = exc
            self._view = None
        self._next = self._clock() + view.every


async def follow(run: Run, view: View | None) -> Watch:
    """Await the end of `run`. Interrupts, and cancellations of the awaiting cell, stop it; neither is raised here."""
    with Interrupts() as seen:
        watch = Watch(run, view)
        ended = asyncio.ensure_future(_ended(run))
        cancelled = 0
        while watch.goes_on(seen.count + cancelled):
            try:
                await asyncio.wait({ended}, timeout=TICK)
            except asyncio.CancelledError:
                cancelled += 1
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
        watch.interrupted = max(watch.interrupted, seen.count + cancelled)
        ended.cancel()
    return watch


def wait(run: Run, view: View | None) -> Watch:
    """Block until the end of `run`, as `follow` does."""
    with Interrupts() as seen:
        watch = Watch(run, view)
        while watch.goes_on(seen.count):
            with suppress(Exception):  # what the run raises is raised by `run.check()` at the end
                run.wait(TICK)
        watch.interrupted = max(watch.interrupted, seen.count)
    return watch


async def _ended(run: Run) -> None:
    with suppress(Exception):  # as above
        await run
