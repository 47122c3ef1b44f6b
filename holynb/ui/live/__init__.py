"""The live view of a run: the widget, what it is sent, and recordings of it."""

from holynb.ui.live.totals import Tally

__all__ = ["Tally"]
