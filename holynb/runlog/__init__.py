"""The run log: one SQLite file of requests, answers and payments, written by one thread."""

from holynb.runlog.current import close, log

__all__ = ["close", "log"]
