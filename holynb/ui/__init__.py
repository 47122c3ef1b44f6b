"""The user interface: magics, commands, live view, output, panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holynb.run import Run, SessionRun

__all__ = ["figures", "quality", "show"]

# What a run imports from above it.


def figures(run: SessionRun) -> dict[str, Any]:
    """A run's charts as plotly figures, by name; the value draws them side by side. For `run.plot()`."""
    from holynb.ui.output import plots

    return plots.figures(run)


def quality(run: SessionRun) -> Any:
    """How good a run's answers are. For `run.quality()`."""
    from holynb.ui.output import qualityview, report

    return qualityview.QualityView(report.assessed(run))


def show(run: Run) -> None:
    """Show a run as the value of a cell: live while it goes on, then its final output."""
    from IPython.core.getipython import get_ipython

    from holynb.ui.cell import rundisplay

    rundisplay.show(run, get_ipython())
