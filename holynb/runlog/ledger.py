"""What was paid, when, and for what: a line for each attempt that a server counted, and for each row that ended without one. Pure words of SQL.

A row that is asked again on another day replaces its answer in the run log; its earlier lines here stay on the day and the route that were
paid. Nothing is added up here (`spending` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holynb.journal import Paid

__all__ = ["INSERT", "PARTS", "PART_ROWS", "TABLE", "VIEW", "WHOLE", "line"]

#: The parts of a run's long rows stand under the run's id with this behind it; those of row i from i times so many on.
PARTS, PART_ROWS = "/parts", 1_000_000

#: Of a row that was asked in parts, what counts is the parts: they stand in the log from the moment they were paid.
WHOLE = f"""NOT EXISTS (SELECT 1 FROM answers p WHERE p.run = a.run || '{PARTS}'
            AND p.row >= a.row * {PART_ROWS} AND p.row < (a.row + 1) * {PART_ROWS})"""  # noqa: S608 - constants of ours

#: What a log that is older than payments knows of them: one line a row, on the day of its newest answer.
KNOWN = f"""SELECT run, row, at, route, model, CASE WHEN cached THEN 'cached' WHEN status = 'ok' THEN 'answer' ELSE status END,
  CASE WHEN cached THEN NULL ELSE tokens_in END, CASE WHEN cached THEN NULL ELSE tokens_out END, cost
  FROM answers a WHERE (attempts > 0 OR cached) AND (status != 'cancelled' OR cost IS NOT NULL) AND {WHOLE}"""  # noqa: S608
COLUMNS = "run, row, at, route, model, what, tokens_in, tokens_out, cost"

#: Made once, in one transaction with the rest of the schema, and filled with what an older log knows.
TABLE = f"""
CREATE TABLE IF NOT EXISTS payments(
  run TEXT NOT NULL, row INTEGER NOT NULL, at REAL NOT NULL, route TEXT, model TEXT, what TEXT NOT NULL,
  tokens_in INTEGER, tokens_out INTEGER, cost TEXT);
CREATE INDEX IF NOT EXISTS payments_at ON payments(at);
INSERT INTO payments({COLUMNS}) SELECT * FROM ({KNOWN}) WHERE (SELECT user_version FROM pragma_user_version) < 1;
PRAGMA user_version = 1;
"""  # noqa: S608
#: The same for a reader that finds an older log, and may not write it.
VIEW = f"CREATE TEMP VIEW payments({COLUMNS}) AS {KNOWN}"
INSERT = f"INSERT INTO payments({COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?)"


def line(run: str, paid: Paid) -> Sequence[Any]:
    """What INSERT takes."""
    u, cost = paid.usage, None if paid.cost is None else str(paid.cost)
    return (run, paid.row, paid.at, paid.route, paid.model, paid.what, u.tokens_in, u.tokens_out, cost)
