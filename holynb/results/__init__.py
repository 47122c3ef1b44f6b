"""Outcomes as a DataFrame, and as counts. Beside `files` the only room that imports pandas."""

from holynb.results.frame import is_frame
from holynb.results.summary import Summary, dollars, summarize

__all__ = ["Summary", "dollars", "is_frame", "summarize"]
