"""The table of payments: a line for each attempt that a server counted, and for each row that ended without one. SQL only.

A row that is sent again on another day replaces its answer in the run log; its earlier payments stay with the day and the route that were
paid. Nothing is added up here (`spending` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from holynb.journal import Payment
from holynb.types import Usage

__all__ = ["INSERT", "LEGACY_VIEW", "PARTS_PER_ROW", "PARTS_SUFFIX", "TABLE", "VERDICTS_SUFFIX", "WITHOUT_PARTS", "owner", "to_row"]

#: The parts of a run's long rows are stored under the run's id with this suffix; those of row i begin at row i * PARTS_PER_ROW.
PARTS_SUFFIX, PARTS_PER_ROW = "/parts", 1_000_000
#: A judge's verdicts on a run's answers, in the same way.
VERDICTS_SUFFIX = "/verdicts"

#: Condition on `answers a`: not a row that was sent in parts. The parts count instead: they are in the log from the moment they were paid.
WITHOUT_PARTS = f"""NOT EXISTS (SELECT 1 FROM answers p WHERE p.run = a.run || '{PARTS_SUFFIX}'
            AND p.row >= a.row * {PARTS_PER_ROW} AND p.row < (a.row + 1) * {PARTS_PER_ROW})"""  # noqa: S608 - constants of ours

#: Payments of a log from before this table: one line a row, on the day of its newest answer.
LEGACY_PAYMENTS = f"""SELECT run, row, at, route, model, CASE WHEN cached THEN 'cached' WHEN status = 'ok' THEN 'answer' ELSE status END,
  CASE WHEN cached THEN NULL ELSE tokens_in END, CASE WHEN cached THEN NULL ELSE tokens_out END, cost
  FROM answers a WHERE (attempts > 0 OR cached) AND (status != 'cancelled' OR cost IS NOT NULL) AND {WITHOUT_PARTS}"""  # noqa: S608
COLUMNS = "run, row, at, route, model, what, tokens_in, tokens_out, cost"

#: Created once, in one transaction with the rest of the schema, and filled from an older log's answers.
TABLE = f"""
CREATE TABLE IF NOT EXISTS payments(
  run TEXT NOT NULL, row INTEGER NOT NULL, at REAL NOT NULL, route TEXT, model TEXT, what TEXT NOT NULL,
  tokens_in INTEGER, tokens_out INTEGER, cost TEXT, tokens_reasoning INTEGER);
CREATE INDEX IF NOT EXISTS payments_at ON payments(at);
CREATE INDEX IF NOT EXISTS payments_run ON payments(run);
INSERT INTO payments({COLUMNS}) SELECT * FROM ({LEGACY_PAYMENTS}) WHERE (SELECT user_version FROM pragma_user_version) < 1;
PRAGMA user_version = 1;
"""  # noqa: S608
#: The same for a reader of an older log, which may not write to it.
LEGACY_VIEW = f"CREATE TEMP VIEW payments({COLUMNS}, tokens_reasoning) AS SELECT *, NULL FROM ({LEGACY_PAYMENTS})"  # noqa: S608
INSERT = f"INSERT INTO payments({COLUMNS}, tokens_reasoning) VALUES(?,?,?,?,?,?,?,?,?,?)"


def owner(run: str) -> str:
    """The id of the run that what is kept beside it belongs to."""
    return run.removesuffix(PARTS_SUFFIX).removesuffix(VERDICTS_SUFFIX) if "/" in run else run


def to_rows(whole: Sequence[Any], rows: Sequence[int], parts: Sequence[tuple[Usage, Decimal | None]]) -> list[tuple[Any, ...]]:
    """Parameters of INSERT for the parts of a payment, whose own are `whole`."""
    run, _, at, route, model, what, *_ = whole
    return [
        (run, row, at, route, model, what, u.tokens_in, u.tokens_out, None if cost is None else str(cost), u.tokens_reasoning)
        for row, (u, cost) in zip(rows, parts, strict=True)
    ]


def to_row(run: str, payment: Payment) -> Sequence[Any]:
    """Parameters of INSERT."""
    u, cost = payment.usage, None if payment.cost is None else str(payment.cost)
    return (run, payment.row, payment.at, payment.route, payment.model, payment.what, u.tokens_in, u.tokens_out, cost, u.tokens_reasoning)
