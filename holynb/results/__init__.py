"""Outcomes as a DataFrame, and as counts. The only room that imports pandas."""

from holynb.results.frame import READERS, is_frame
from holynb.results.summary import Summary, dollars, summarize

__all__ = ["READERS", "Summary", "dollars", "is_frame", "summarize"]
