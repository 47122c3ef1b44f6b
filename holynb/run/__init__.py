"""A run: from a plan to its end, and from the run log onwards."""

from holynb.run.run import Run, infer

__all__ = ["Run", "infer"]
