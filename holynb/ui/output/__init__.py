"""The final output of a run: static HTML, charts, text."""

from holynb.ui.output.page import Page
from holynb.ui.output.series import OUT_OF_MEMORY_TEXT, RECOVERED_TEXT, REPLICA_TEXTS, combined_load, mark_name
from holynb.ui.output.svg import COLOURS
from holynb.ui.output.text import (
    ago,
    clean,
    clip,
    count,
    grid,
    one_line,
    percentile,
    price,
    progress,
    seconds,
    shared_prefix,
    thinking,
    thought,
    verdict,
)

__all__ = [
    "COLOURS",
    "OUT_OF_MEMORY_TEXT",
    "RECOVERED_TEXT",
    "REPLICA_TEXTS",
    "Page",
    "ago",
    "clean",
    "clip",
    "combined_load",
    "count",
    "grid",
    "mark_name",
    "one_line",
    "percentile",
    "price",
    "progress",
    "seconds",
    "shared_prefix",
    "thinking",
    "thought",
    "verdict",
]
