"""Batch APIs: one module a provider, the limits of each, rows cut into batches. Submits and reads; decides nothing."""

from holynb.batches.calls import cut_off
from holynb.batches.limits import ProviderLimits, table
from holynb.batches.pace import Pace
from holynb.batches.pieces import MARK_CHARS, Cut, Cutter, custom_id, row_of
from holynb.batches.vendor import Answered, Candidates, Lost, Standing, Vendor
from holynb.batches.vendors import of

__all__ = [
    "MARK_CHARS",
    "Answered",
    "Candidates",
    "Cut",
    "Cutter",
    "Lost",
    "Pace",
    "ProviderLimits",
    "Standing",
    "Vendor",
    "custom_id",
    "cut_off",
    "of",
    "row_of",
    "table",
]
