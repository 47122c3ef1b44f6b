"""A cell that runs: rewritten, waited for, completed, shown."""

from holynb.ui.cell.host import Host
from holynb.ui.cell.pending import LineStep, Work
from holynb.ui.cell.wait import QUIET, Watch

__all__ = ["QUIET", "Host", "LineStep", "Watch", "Work"]
