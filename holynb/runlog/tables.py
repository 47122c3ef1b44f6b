"""The run log's tables and the statements that write them. SQL only; opens no connection.

The statement ANSWER_UPSERT needs the function `plus`, which the writer defines (`writer`).
"""

from __future__ import annotations

import sqlite3

from holynb.faults import UNBILLED_KINDS
from holynb.runlog import ledger, pieces, vectors
from holynb.types import SIMULATED

__all__ = [
    "ANSWER_COLUMNS",
    "ANSWER_UPSERT",
    "ATTEMPT_INSERT",
    "REQUEST_UPSERT",
    "RUNS",
    "RUN_END",
    "RUN_HOLD",
    "RUN_UPSERT",
    "SCHEMA",
    "SIMULATED_ROUTE",
    "SPENT",
    "UNSETTLED",
    "add_missing",
    "view_missing",
]

#: An answer that ended by length before a word of it came. The same request would end the same way, and be paid for again.
SPENT = "status = 'error' AND error_type = 'truncated' AND finish_reason = 'length'"
#: An answer, or a payment, whose dollars nobody is billed.
SIMULATED_ROUTE = f"({' OR '.join(f'route LIKE {provider + chr(47) + chr(37)!r}' for provider in SIMULATED)})"
#: A row that was sent and has no answer and no cost, though its server may bill one, as results.costs.is_unsettled tells.
UNSETTLED = (
    "cost IS NULL AND coalesce(attempts, 0) > 0 AND coalesce(route, '') NOT LIKE 'pool/%' AND (status = 'cancelled' OR status = 'error' AND "
    f"coalesce(error_type, '') NOT IN ({', '.join(repr(kind) for kind in sorted(UNBILLED_KINDS))}))"
)


def _of_run(what: str) -> str:
    """Something of the answers of the run `r`, as a query of one value."""
    return f"(SELECT {what} FROM answers a WHERE a.run = r.id)"  # noqa: S608 - of ours


def _costs(which: str = "1") -> str:
    """The costs of these payments of the run `r` as `COST*TIMES,…`: a million rows cost a few amounts."""
    whose = f"r.id, r.id || '{ledger.PARTS_SUFFIX}', r.id || '{ledger.VERDICTS_SUFFIX}'"
    of_each = f"SELECT cost || '*' || count(*) AS part FROM payments WHERE run IN ({whose}) AND {which} GROUP BY cost"  # noqa: S608 - of ours
    return f"(SELECT group_concat(part) FROM ({of_each}))"  # noqa: S608 - of ours


#: What `records.run_record` counts of a run's answers, and what it has paid for, all its attempts and its judge.
_COUNTS = ", ".join(
    (
        _of_run("sum(a.status = 'ok')"),
        _of_run("sum(a.status = 'error')"),
        _costs(),
        _of_run("sum(a.status = 'ok' AND a.cost IS NULL)"),
        _of_run(f"sum({UNSETTLED})"),
        _costs(SIMULATED_ROUTE),
    )
)
TABLES = f"""
CREATE TABLE IF NOT EXISTS runs(
  id TEXT PRIMARY KEY, name TEXT, route TEXT NOT NULL, n INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
  status TEXT NOT NULL DEFAULT 'running', spec TEXT NOT NULL DEFAULT '{{}}', held TEXT, unseen TEXT);
CREATE INDEX IF NOT EXISTS runs_name ON runs(name) WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS requests(
  run TEXT NOT NULL, row INTEGER NOT NULL, sample INTEGER NOT NULL, key TEXT, label TEXT, body TEXT NOT NULL,
  PRIMARY KEY(run, row, sample)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts(
  run TEXT NOT NULL, row INTEGER NOT NULL, attempt INTEGER NOT NULL, route TEXT NOT NULL, at REAL NOT NULL,
  kind TEXT NOT NULL, message TEXT, wait REAL, tokens_in INTEGER, tokens_out INTEGER, raw TEXT);
CREATE INDEX IF NOT EXISTS attempts_run ON attempts(run, row);
CREATE TABLE IF NOT EXISTS answers(
  run TEXT NOT NULL, row INTEGER NOT NULL, key TEXT, shared INTEGER NOT NULL, at REAL NOT NULL, status TEXT NOT NULL,
  text TEXT, error_type TEXT, error TEXT, route TEXT, model TEXT, attempts INTEGER NOT NULL, tokens_in INTEGER, tokens_out INTEGER,
  tokens_cached INTEGER, tokens_cache_write INTEGER, cost TEXT, latency_s REAL, ttft_s REAL, finish_reason TEXT,
  cached INTEGER NOT NULL, reasoning TEXT, tokens_reasoning INTEGER, vector BLOB, PRIMARY KEY(run, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_key ON answers(key, at) WHERE status = 'ok' AND shared = 1;
CREATE INDEX IF NOT EXISTS answers_spent ON answers(key, at) WHERE {SPENT} AND shared = 1;
"""
#: All or nothing: two kernels that open an older log at once must not both fill its payments.
SCHEMA = f"BEGIN IMMEDIATE;{TABLES}{vectors.TABLE}{pieces.TABLE}{ledger.TABLE}COMMIT;"

#: A row that is sent again (resumed, `--only failed`) replaces its answer and adds to its tokens and cost; an answer from the cache carries
#: tokens that were paid elsewhere.
ADD_TOKENS = ", ".join(
    f"{n}=CASE WHEN answers.cached OR excluded.cached THEN excluded.{n} "
    f"ELSE coalesce(answers.{n}+excluded.{n}, excluded.{n}, answers.{n}) END"
    for n in ("tokens_in", "tokens_out", "tokens_cached", "tokens_cache_write", "tokens_reasoning")
)
#: What `records.outcome` takes.
ANSWER_COLUMNS = (
    "status, text, error_type, error, route, model, attempts, tokens_in, tokens_out, tokens_cached, tokens_cache_write, cost, "
    "latency_s, ttft_s, finish_reason, cached, reasoning, tokens_reasoning, vector"
)
#: Columns that logs had not from the beginning.
ADDED = {
    "answers": {"reasoning": "TEXT", "tokens_reasoning": "INTEGER", "vector": "BLOB"},
    "payments": {"tokens_reasoning": "INTEGER"},
    "runs": {"held": "TEXT", "unseen": "TEXT"},
}
ANSWER_UPSERT = f"""INSERT INTO answers(run, row, key, shared, at, {ANSWER_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT(run, row) DO UPDATE SET key=excluded.key, shared=excluded.shared, at=excluded.at, status=excluded.status, text=excluded.text,
error_type=excluded.error_type, error=excluded.error, route=excluded.route, model=excluded.model,
attempts=answers.attempts+excluded.attempts, {ADD_TOKENS}, cost=plus(answers.cost, excluded.cost), latency_s=excluded.latency_s,
ttft_s=excluded.ttft_s, finish_reason=excluded.finish_reason, cached=excluded.cached, reasoning=excluded.reasoning,
vector=excluded.vector"""
#: Every run, for `records.run_record`; clauses that choose and order them follow.
RUNS = f"SELECT id, name, route, n, started, ended, status, spec, {_COUNTS} FROM runs r"  # noqa: S608
REQUEST_UPSERT = "INSERT OR REPLACE INTO requests VALUES(?,?,?,?,?,?)"
ATTEMPT_INSERT = "INSERT INTO attempts VALUES(?,?,?,?,?,?,?,?,?,?,?)"
#: How a run ended: its answers are all there, so what it wrote down of its budget is no longer needed.
RUN_END = "UPDATE runs SET status=?, ended=?, held=NULL WHERE id=?"
#: The most that may be gone of a run's budget by now, and what was under way when it was killed.
RUN_HOLD = "UPDATE runs SET held=?, unseen=? WHERE id=?"
RUN_UPSERT = (
    "INSERT INTO runs(id, name, route, n, started, spec) VALUES(?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
    "status='running', ended=NULL, n=excluded.n, route=excluded.route, spec=excluded.spec"
)


def missing(db: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """Columns that the tables of an older log lack, by table, with their types."""
    have = {table: {row[1] for row in db.execute(f"PRAGMA main.table_info({table})")} for table in ADDED}
    lacking = {table: {n: kind for n, kind in columns.items() if n not in have[table]} for table, columns in ADDED.items()}
    return {table: columns for table, columns in lacking.items() if columns and have[table]}


def add_missing(db: sqlite3.Connection) -> None:
    """Give an older log the columns that it lacks; another kernel may be about to do the same."""
    if not missing(db):
        return
    db.execute("BEGIN IMMEDIATE")
    for table, columns in missing(db).items():
        for name, kind in columns.items():
            db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    db.execute("COMMIT")


def view_missing(db: sqlite3.Connection) -> None:
    """The same for a reader of an older log, which may not write to it."""
    for table, columns in missing(db).items():
        empty = ", ".join(f"NULL AS {name}" for name in columns)
        db.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {empty} FROM main.{table}")  # noqa: S608 - names of ours
