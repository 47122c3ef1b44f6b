"""The user interface: magics, commands, live view, output, panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holynb.run import SessionRun

__all__ = ["figures"]


def figures(run: SessionRun) -> dict[str, Any]:
    """A run's charts as plotly figures, by name. For `run.plot()`: the only import of `ui` from below it."""
    from holynb.ui.output import plots

    return plots.figures(run)
