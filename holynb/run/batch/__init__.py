"""Runs by batch: rows submitted in pieces, polled and read by whichever kernel lives then. Decides what `batches/` submits and reads."""

from holynb.run.batch.handle import BatchHandle
from holynb.run.batch.setup import batched

__all__ = ["BatchHandle", "batched"]
