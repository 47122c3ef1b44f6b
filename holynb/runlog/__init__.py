"""The run log: one SQLite file of requests, answers and payments, written by one thread."""

from holynb.runlog.current import close, log
from holynb.runlog.lease import Lease, RunHeld
from holynb.runlog.ledger import PARTS_PER_ROW, PARTS_SUFFIX, VERDICTS_SUFFIX, WITHOUT_PARTS
from holynb.runlog.pieces import StoredPiece
from holynb.runlog.records import RunRecord, StoredRow, messages
from holynb.runlog.store import BrokenLog, RunLog
from holynb.runlog.tables import SIMULATED_ROUTE, UNSETTLED

__all__ = [
    "PARTS_PER_ROW",
    "PARTS_SUFFIX",
    "SIMULATED_ROUTE",
    "UNSETTLED",
    "VERDICTS_SUFFIX",
    "WITHOUT_PARTS",
    "BrokenLog",
    "Lease",
    "RunHeld",
    "RunLog",
    "RunRecord",
    "StoredPiece",
    "StoredRow",
    "close",
    "log",
    "messages",
]
