"""Jinja2 whose steps, sizes and time are bounded. Knows Jinja2 and plain values; no rows, no prompts, no models."""

from holynb.bounded.allowance import ITEM_BYTES, MAX_BYTES, MAX_ITEMS, Allowance, TooMuch
from holynb.bounded.environment import BoundedEnvironment, Stream
from holynb.bounded.filters import FILTERS, to_json
from holynb.bounded.formats import check_spec
from holynb.bounded.sizes import CONTAINERS, measure, whole

__all__ = [
    "CONTAINERS",
    "FILTERS",
    "ITEM_BYTES",
    "MAX_BYTES",
    "MAX_ITEMS",
    "Allowance",
    "BoundedEnvironment",
    "Stream",
    "TooMuch",
    "check_spec",
    "measure",
    "to_json",
    "whole",
]
