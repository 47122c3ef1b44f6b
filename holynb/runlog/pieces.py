"""The batches of a run, as the run log keeps them: written before each is submitted and whenever it moves on. SQL and facts only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ASK_TO_END", "COLUMNS", "EMPTY_VIEW", "INSERT", "MOVE", "OPEN", "TABLE", "StoredPiece", "piece", "row"]

TABLE = """
CREATE TABLE IF NOT EXISTS batches(
  run TEXT NOT NULL, piece INTEGER NOT NULL, key TEXT NOT NULL, route TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL,
  rows TEXT NOT NULL, state TEXT NOT NULL, at REAL NOT NULL, id TEXT, submitted REAL, fetch_before REAL,
  PRIMARY KEY(run, piece)) WITHOUT ROWID;
"""
COLUMNS = "run, piece, key, route, kind, n, rows, state, at, id, submitted, fetch_before"
#: For a reader of a log that is older than the table, which may not write to it.
EMPTY_VIEW = f"CREATE TEMP VIEW batches AS SELECT {', '.join(f'NULL AS {name}' for name in COLUMNS.split(', '))} WHERE 0"
INSERT = f"INSERT OR REPLACE INTO batches({COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)"
MOVE = """UPDATE batches SET state=?, id=coalesce(?, id), submitted=coalesce(?, submitted), fetch_before=coalesce(?, fetch_before)
WHERE run=? AND piece=?"""
ASK_TO_END = "UPDATE batches SET state='cancelling' WHERE run=? AND piece=? AND state IN ('intent', 'accepted')"
#: States in which something is still to come. `intent`: it may have been submitted; `accepted`: it has an id; `cancelling`: it is to end.
OPEN = ("intent", "accepted", "cancelling")


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """One batch. `rows`: row → the beginning of its request's key; `kind`: rows, or again (a second try of rows that were answered badly).

    key: ours, which the provider carries where it can; id: the provider's. at: when it was about to be submitted.
    """

    run: str
    piece: int
    key: str
    route: str
    kind: str = "rows"
    rows: Mapping[int, str] = field(default_factory=dict)
    state: str = "intent"
    at: float = 0.0
    id: str | None = None
    submitted: float | None = None
    fetch_before: float | None = None


def row(p: StoredPiece) -> tuple[Any, ...]:
    """Parameters of INSERT."""
    rows = json.dumps(list(p.rows.items()), separators=(",", ":"))
    return (p.run, p.piece, p.key, p.route, p.kind, len(p.rows), rows, p.state, p.at, p.id, p.submitted, p.fetch_before)


def piece(columns: Sequence[Any]) -> StoredPiece:
    """A batch from COLUMNS."""
    run, number, key, route, kind, _, rows, *rest = columns
    return StoredPiece(run, number, key, route, kind, dict(json.loads(rows)), *rest)
