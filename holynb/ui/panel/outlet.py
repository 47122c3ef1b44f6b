"""A place in a form where a run is watched after the click's callback has returned: the live view while it goes on, then what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as w

from holynb.ui.cell import QUIET_S
from holynb.ui.live import timer
from holynb.ui.live.source import RunSource
from holynb.ui.live.widget import LiveView
from holynb.ui.output import report, static

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["RunOutlet"]

EVERY = 0.1


class RunOutlet:
    """One run at a time. `box` is empty until the first run has gone on for a second, or is over."""

    def __init__(self) -> None:
        self.box = w.VBox(layout=w.Layout(width="100%"))
        self._view: LiveView | None = None

    def show(self, run: Run, then: Callable[[], None]) -> None:
        """Watch a run on the kernel's loop; `then` is called in the main thread when it is over and shown."""

        def step() -> bool:
            if run.done:
                self._leave(run)
                then()
                return False
            self._paint(run)
            return True

        timer.repeat(EVERY, step)

    def _paint(self, run: Run) -> None:
        if self._view is not None:
            self._view.tick()
        elif run.elapsed > QUIET_S:
            self._view = LiveView(RunSource(run), clicks=False)  # the form has its own Stop
            self.box.children = [self._view.widget]

    def _leave(self, run: Run) -> None:
        self.box.children = [w.HTML(static.as_html(report.of(run)), layout=w.Layout(width="100%"))]
        if self._view is not None:
            self._view.close()
            self._view = None
