"""The live view of a run: the widget, what it is sent, and recordings of it."""

from holynb.ui.live.totals import Totals

__all__ = ["Totals"]
