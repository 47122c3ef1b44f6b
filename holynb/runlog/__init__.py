"""The run log: one SQLite file of requests, answers and payments, written by one thread."""

from holynb.runlog.current import close, log
from holynb.runlog.lease import Lease
from holynb.runlog.ledger import PART_ROWS, PARTS, WHOLE
from holynb.runlog.store import BrokenLog, RunLog, RunRecord, StoredRow

__all__ = ["PARTS", "PART_ROWS", "WHOLE", "BrokenLog", "Lease", "RunLog", "RunRecord", "StoredRow", "close", "log"]
