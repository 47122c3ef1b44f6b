"""The part of a form that shows a run after the click's callback has returned: the live view while it runs, then the final output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as w

from holynb.ui.cell import QUIET_S
from holynb.ui.live import timer
from holynb.ui.live.source import RunSource
from holynb.ui.live.widget import LiveView
from holynb.ui.output import plots, report

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["RunOutlet"]

TICK_S = 0.1


class RunOutlet:
    """Shows one run at a time. `box` is empty until the first run has lasted a second or ended."""

    def __init__(self) -> None:
        self.box = w.VBox(layout=w.Layout(width="100%"))
        self._view: LiveView | None = None

    def show(self, run: Run, on_end: Callable[[], None]) -> None:
        """Follow a run on the kernel's event loop. Calls `on_end` in the main thread once the final output is shown."""

        def step() -> bool:
            if run.done:
                self._show_final(run)
                on_end()
                return False
            self._paint(run)
            return True

        timer.repeat(TICK_S, step)

    def _paint(self, run: Run) -> None:
        if self._view is not None:
            self._view.tick()
        elif run.elapsed > QUIET_S:
            self._view = LiveView(RunSource(run), clicks=False)  # the form has its own Stop
            self.box.children = [self._view.widget]

    def _show_final(self, run: Run) -> None:
        """As a cell would: the table and, below it, its charts."""
        shown = plots.bundles(report.of(run), run.options.show, width=self._view.width if self._view is not None else None)
        outputs = [{"output_type": "display_data", "data": data, "metadata": {}} for data in shown if data]
        self.box.children = [w.Output(outputs=outputs, layout=w.Layout(width="100%"))]
        if self._view is not None:
            self._view.close()
            self._view = None
