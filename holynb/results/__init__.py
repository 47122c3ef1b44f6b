"""Outcomes as a DataFrame, and as counts. Beside `files` the only room that imports pandas."""

from holynb.results.cache_savings import CacheSavings
from holynb.results.costs import captioned, cost_text, dollars, is_pool, is_simulated, is_unsettled
from holynb.results.cut_answers import CutAnswers
from holynb.results.frame import is_frame
from holynb.results.summary import Summary, Tally, folded, refused_by, summarize

__all__ = [
    "CacheSavings",
    "CutAnswers",
    "Summary",
    "Tally",
    "captioned",
    "cost_text",
    "dollars",
    "folded",
    "is_frame",
    "is_pool",
    "is_simulated",
    "is_unsettled",
    "refused_by",
    "summarize",
]
