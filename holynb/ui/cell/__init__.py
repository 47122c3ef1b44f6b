"""A running cell: rewriting it, waiting for its run, completing its line, showing its output."""

from holynb.ui.cell.host import Host
from holynb.ui.cell.pending import LineStep, Work
from holynb.ui.cell.wait import QUIET_S, WaitState

__all__ = ["QUIET_S", "Host", "LineStep", "WaitState", "Work"]
