"""A run: from a plan to its end, and from the run log onwards."""

from holynb.run.bench import Bench, Measured, measure
from holynb.run.function import infer
from holynb.run.plan import Plan
from holynb.run.quote import Quote
from holynb.run.reading import read
from holynb.run.run import Run
from holynb.run.session import SessionRun

__all__ = ["Bench", "Measured", "Plan", "Quote", "Run", "SessionRun", "infer", "measure", "read"]
