"""What stays when a run has ended: static HTML, charts, text."""

from holynb.ui.output.page import Page
from holynb.ui.output.series import BACK, SHORT, mark, together
from holynb.ui.output.svg import COLOURS
from holynb.ui.output.text import ago, clean, clip, count, grid, one_line, percentile, price, progress, seconds, shared_prefix, status

__all__ = [
    "BACK",
    "COLOURS",
    "SHORT",
    "Page",
    "ago",
    "clean",
    "clip",
    "count",
    "grid",
    "mark",
    "one_line",
    "percentile",
    "price",
    "progress",
    "seconds",
    "shared_prefix",
    "status",
    "together",
]
