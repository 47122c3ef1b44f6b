"""Waiting for a run: polls it twenty times a second, lets a view paint, and turns interrupts into cancellation. Knows no widget.

The run has a thread of its own; nothing here can slow it or break it. There are two ways to wait, `follow` (awaited, so that clicks
are handled meanwhile) and `wait` (blocking, inside `%%time` and scripts), which share one `WaitState`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from kernels_support.jupyter.interrupt import Interrupts

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.ui.output.report import Report

__all__ = ["View", "WaitState", "follow", "wait"]

#: Also bounds how soon an interrupt is noticed: ipykernel's SIGINT handler does not wake an idle loop.
POLL_S = 0.05
#: A run that ends sooner shows no progress.
QUIET_S = 1.0
#: After a second interrupt the cell stops waiting, even if the run has not ended by then.
INTERRUPT_GRACE_S = 0.5


class View(Protocol):
    """Shows a run's progress. Called in the main thread only; `interval_s` is the least time between two paints."""

    interval_s: float

    def paint(self, run: Run) -> None: ...


class WaitState:
    """What a waiting cell does at each poll. `interrupts` counts them; `view_error` is the exception of a view that failed.

    A run by batch is waited for until its provider has accepted all of it.
    """

    def __init__(self, run: Run, view: View | None, clock: Callable[[], float] = time.monotonic, *, quiet_s: float = QUIET_S) -> None:
        self.run = run
        self.interrupts = 0
        self.view_error: Exception | None = None
        self._view = view
        self._clock = clock
        self._next_paint = clock() + quiet_s
        self._deadline: float | None = None

    def poll(self, interrupts: int) -> bool:
        """Cancel the run and paint as due. Returns whether to go on waiting. `interrupts`: how many there have been so far."""
        if self.run.done or (self.run.batch.accepted and not interrupts):
            return False
        while self.interrupts < interrupts:
            self.interrupts += 1
            self.run.cancel()
            if self.interrupts == 2:
                self._deadline = self._clock() + INTERRUPT_GRACE_S
        now = self._clock()
        if self._deadline is not None and now >= self._deadline:
            return False
        if self._view is not None and now >= self._next_paint:
            self._paint(self._view)
        return True

    def report(self) -> Report:
        """The run as facts, also that its progress could not be shown."""
        from holynb.ui.output import report

        facts = report.of(self.run)
        if self.view_error is None:
            return facts
        return replace(facts, notes=[*facts.notes, f"Progress could not be shown: {self.view_error!r}"])

    def _paint(self, view: View) -> None:
        try:
            view.paint(self.run)
        except Exception as exc:  # noqa: BLE001 - a view that fails must not cost the run; the error is shown at the end
            self.view_error = exc
            self._view = None
        self._next_paint = self._clock() + view.interval_s


async def follow(run: Run, view: View | None) -> WaitState:
    """Await the end of `run`. Interrupts, and cancellations of the awaiting task, cancel it; neither is raised here."""
    with Interrupts() as interrupts:
        state = WaitState(run, view)
        end = asyncio.ensure_future(_wait_for_end(run))
        cancelled = 0
        while state.poll(interrupts.count + cancelled):
            try:
                await asyncio.wait({end}, timeout=POLL_S)
            except asyncio.CancelledError:
                cancelled += 1
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
        state.interrupts = max(state.interrupts, interrupts.count + cancelled)
        end.cancel()
    return state


def wait(run: Run, view: View | None) -> WaitState:
    """Block until the end of `run`; otherwise as `follow`."""
    with Interrupts() as interrupts:
        state = WaitState(run, view)
        while state.poll(interrupts.count):
            with suppress(Exception):  # what the run raises is raised by `run.check()` at the end
                run.wait(POLL_S)
        state.interrupts = max(state.interrupts, interrupts.count)
    return state


async def _wait_for_end(run: Run) -> None:
    with suppress(Exception):  # as above
        await run
