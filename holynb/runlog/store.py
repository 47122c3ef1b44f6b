"""The run log: every request, attempt and answer of every run, in one SQLite file. Cache, resume and history are queries of it.

Holds no header and no key. Errors are never offered as answers. Written through `logwriter`, read on connections of the caller's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from holynb.errors import BadSetting
from holynb.journal import Paid
from holynb.runlog import ledger
from holynb.runlog.ledger import PART_ROWS, PARTS
from holynb.runlog.writer import LogWriter, connect
from holynb.types import Ended, Event, Failed, Message, Outcome, Sampling, Usage

__all__ = ["PARTS", "PART_ROWS", "BrokenLog", "RunLog", "RunRecord", "StoredRow"]

ANSWERS = """
CREATE TABLE IF NOT EXISTS runs(
  id TEXT PRIMARY KEY, name TEXT, route TEXT NOT NULL, n INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
  status TEXT NOT NULL DEFAULT 'running', spec TEXT NOT NULL DEFAULT '{}');
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
  cached INTEGER NOT NULL, PRIMARY KEY(run, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_key ON answers(key, at) WHERE status = 'ok' AND shared = 1;
"""
#: All or nothing: two kernels that open an older log at once must not both fill its payments.
SCHEMA = f"BEGIN IMMEDIATE;{ANSWERS}{ledger.TABLE}COMMIT;"

#: A row that is asked again (resumed, `--only failed`) replaces its answer and adds to what was paid for it; an answer from the log brings
#: its tokens along and was paid elsewhere.
PAID = ", ".join(
    f"{n}=CASE WHEN answers.cached OR excluded.cached THEN excluded.{n} ELSE coalesce(answers.{n}+excluded.{n}, excluded.{n}, answers.{n}) END"
    for n in ("tokens_in", "tokens_out", "tokens_cached", "tokens_cache_write")
)
ANSWER = f"""INSERT INTO answers VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT(run, row) DO UPDATE SET key=excluded.key, shared=excluded.shared, at=excluded.at, status=excluded.status, text=excluded.text,
error_type=excluded.error_type, error=excluded.error, route=excluded.route, model=excluded.model,
attempts=answers.attempts+excluded.attempts, {PAID}, cost=plus(answers.cost, excluded.cost), latency_s=excluded.latency_s,
ttft_s=excluded.ttft_s, finish_reason=excluded.finish_reason, cached=excluded.cached"""
REQUEST = "INSERT OR REPLACE INTO requests VALUES(?,?,?,?,?,?)"
COLUMNS = (
    "status, text, error_type, error, route, model, attempts, tokens_in, tokens_out, tokens_cached, tokens_cache_write, cost, "
    "latency_s, ttft_s, finish_reason, cached"
)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the log knows it. `ok`, `failed` and `cost` are counted from its answers; `cost` is None where none is known."""

    id: str
    name: str | None
    route: str
    n: int
    started: float
    ended: float | None = None
    status: str = "running"
    spec: Mapping[str, Any] = field(default_factory=dict)
    ok: int = 0
    failed: int = 0
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A request as it was made, to make it again. `label`: of the index, as JSON; no `messages`: skipped; `route`: None in older logs."""

    row: int
    sample: int
    key: str | None
    label: Any
    messages: tuple[Message, ...]
    sampling: Sampling
    route: str | None = None


class BrokenLog(BadSetting, sqlite3.DatabaseError):
    """A log that cannot be read: one line for a person, and to whoever can do without a log what SQLite's own errors are."""


class RunLog:
    """The log at `path`. One per process and file; many processes may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = LogWriter(path, SCHEMA)

    # -- writing ---------------------------------------------------------------------------------------------------
    def start(self, record: RunRecord, rows: Iterable[StoredRow], aside: Iterable[int] = ()) -> asyncio.Future[None]:
        """Keep a run and its requests; the future is done when they are on disk. Call on the io loop.

        `aside`: rows of the run as it was whose answers are to other questions: they stay on offer, and are the run's no more.
        """
        self.prepare()
        self._writer.put(
            "UPDATE answers SET run = run || ? WHERE run = ? AND row = ?", [(f"/{time.time_ns()}", record.id, row) for row in aside]
        )
        self._writer.put("DELETE FROM requests WHERE run = ? AND row >= ?", [(record.id, record.n)])
        head = (record.id, record.name, record.route, record.n, record.started, json.dumps(record.spec, default=str))
        self._writer.put(
            "INSERT INTO runs(id, name, route, n, started, spec) VALUES(?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
            "status='running', ended=NULL, n=excluded.n, route=excluded.route, spec=excluded.spec",
            [head],
        )
        return self._promise(REQUEST, [_asked(record.id, r) for r in rows])

    def more(self, run: str, rows: Iterable[StoredRow]) -> asyncio.Future[None]:
        """Keep requests that came up while a run went on."""
        return self._promise(REQUEST, [_asked(run, r) for r in rows])

    def event(self, run: str, event: Event, key: str | None, *, shared: bool) -> asyncio.Future[None] | None:
        """Keep what an event says. An end returns a future to wait for; the rest is written when it is written."""
        if isinstance(event, Ended):
            return self._promise(ANSWER, [_answer(run, event, key, shared=shared)])
        if isinstance(event, Failed):
            u = event.usage or Usage()
            row = (run, event.row, event.attempt, event.route, event.at, event.kind, event.message, event.wait, u.tokens_in, u.tokens_out)
            self._writer.put("INSERT INTO attempts VALUES(?,?,?,?,?,?,?,?,?,?,?)", [(*map(_clean, row), _clean(event.raw))])
        return None

    def pay(self, run: str, paid: Paid) -> None:
        """Keep what was paid; it is on disk before whatever is kept after it."""
        self._writer.put(ledger.INSERT, [tuple(map(_clean, ledger.line(run, paid)))])

    def finish(self, run: str, status: str) -> asyncio.Future[None]:
        """Say how a run ended: done, stopped, failed."""
        return self._promise("UPDATE runs SET status=?, ended=? WHERE id=?", [(status, time.time(), run)])

    def close(self) -> None:
        """Write what is queued; end the writer's thread."""
        self._writer.close()

    def prepare(self) -> None:
        """Make the file, readable by its owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _promise(self, sql: str, rows: Sequence[Sequence[Any]]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def told(failure: Exception | None) -> None:
            if not loop.is_closed():  # nobody waits any more; what was asked for is written all the same
                with suppress(RuntimeError):  # closed since
                    loop.call_soon_threadsafe(_settle, future, failure)

        self._writer.put(sql, rows, told)
        return future

    # -- reading ---------------------------------------------------------------------------------------------------
    def cached(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """The newest shared ok answer of each key that has one, as it was given (its own cost and latency). Up to 500 keys a query."""
        with self.reading() as db:
            found: dict[str, Outcome] = {}
            for i in range(0, len(keys), 500):
                some = keys[i : i + 500]
                marks = ",".join("?" * len(some))
                sql = f"SELECT key, {COLUMNS} FROM answers WHERE key IN ({marks}) AND status='ok' AND shared=1 ORDER BY at"  # noqa: S608
                found.update((key, _outcome(rest)) for key, *rest in db.execute(sql, some))
            return found

    def answers(self, run: str) -> dict[int, tuple[str | None, Outcome]]:
        """Row → (key, outcome) of everything a run has answered or failed at."""
        with self.reading() as db:
            rows = db.execute(f"SELECT row, key, {COLUMNS} FROM answers WHERE run=?", (run,))  # noqa: S608
            return {row: (key, _outcome(rest)) for row, key, *rest in rows}

    def requests(self, run: str) -> list[StoredRow]:
        """The requests of a run, in order of row and sample."""
        with self.reading() as db:
            sql = (
                "SELECT row, sample, key, label, body FROM requests WHERE run=?1 AND row < coalesce((SELECT n FROM runs WHERE id=?1), 1e18)"
            )
            rows = db.execute(f"{sql} ORDER BY row, sample", (run,)).fetchall()
        return [_stored(*r) for r in rows]

    def runs(self, limit: int = 50) -> list[RunRecord]:
        """The newest runs first."""
        return self._records("ORDER BY started DESC LIMIT ?", (limit,))

    def find(self, name: str) -> RunRecord | None:
        """The run of this id, or the newest of this name, or the one whose id begins so (4 characters at least)."""
        for where in ("WHERE id=?1", "WHERE name=?1 ORDER BY started DESC LIMIT 1", "WHERE length(?1) >= 4 AND id LIKE ?1 || '%' LIMIT 1"):
            if found := self._records(where, (name,)):
                return found[0]
        return None

    def clear(self) -> int:
        """Offer no old answer to new runs any more. Returns how many were on offer."""
        if not self.path.exists():
            return 0
        with self._clearly(), closing(connect(self.path)) as db:
            return db.execute("UPDATE answers SET shared=0 WHERE shared=1 AND status='ok'").rowcount

    def _records(self, tail: str, args: Sequence[Any]) -> list[RunRecord]:
        sql = (  # noqa: S608 - `tail` is one of ours
            "SELECT id, name, route, n, started, ended, status, spec, (SELECT count(*) FROM answers a WHERE a.run=r.id AND a.status='ok'), "
            "(SELECT count(*) FROM answers a WHERE a.run=r.id AND a.status='error'), "
            "(SELECT group_concat(cost) FROM answers a WHERE a.run=r.id) FROM runs r "
        ) + tail
        with self.reading() as db:
            return [_record(row) for row in db.execute(sql, args)]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with; an empty one where there is no log yet (or another process is just making it). Raises BrokenLog."""
        with self._clearly(), ExitStack() as stack:
            known: set[str] = set()
            if self.path.is_file():
                db = stack.enter_context(closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30.0)))
                known = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if "answers_key" not in known:
                db = stack.enter_context(closing(sqlite3.connect(":memory:")))
                db.executescript(SCHEMA)
            elif "payments" not in known:
                db.execute(ledger.VIEW)
            yield db

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise BrokenLog(
                f"The run log {self.path} cannot be read ({exc}). holynb doctor says what to do; once it is moved away, a new one is begun."
            ) from exc


def _settle(future: asyncio.Future[None], failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


def _clean(value: Any) -> Any:
    """SQLite takes no surrogate halves; a broken answer must not lose the whole group."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) and not value.isascii() else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, default=str)


def _asked(run: str, r: StoredRow) -> tuple[Any, ...]:
    return (run, r.row, r.sample, r.key, _json(r.label), _body(r))


def _body(r: StoredRow) -> str:
    s = r.sampling
    return _json(
        {
            "messages": [[m.role, m.content] for m in r.messages],
            "route": r.route,
            "max_tokens": s.max_tokens,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "stop": list(s.stop),
            "seed": s.seed,
            "extra": dict(s.extra),
        }
    )


def _stored(row: int, sample: int, key: str | None, label: str | None, body: str) -> StoredRow:
    said = json.loads(body)
    messages, route = tuple(Message(*m) for m in said.pop("messages")), said.pop("route", None)
    return StoredRow(row, sample, key, json.loads(label or "null"), messages, Sampling(**{**said, "stop": tuple(said["stop"])}), route)


def _answer(run: str, event: Ended, key: str | None, *, shared: bool) -> tuple[Any, ...]:
    o, u = event.outcome, event.outcome.usage
    row = (
        run,
        event.row,
        key,
        int(shared),
        event.at,
        o.status,
        o.text,
        o.error_type,
        o.error,
        o.route,
        o.model,
        o.attempts,
        u.tokens_in,
        u.tokens_out,
        u.tokens_cached,
        u.tokens_cache_write,
        None if o.cost is None else str(o.cost),
        o.latency_s,
        o.ttft_s,
        o.finish_reason,
        int(o.cached),
    )
    return tuple(map(_clean, row))


def _outcome(columns: Sequence[Any]) -> Outcome:
    status, text, error_type, error, route, model, attempts, t_in, t_out, t_cached, t_write, cost, latency, ttft, finish, cached = columns
    return Outcome(
        status,
        text,
        error_type,
        error,
        route,
        model,
        attempts,
        Usage(t_in, t_out, t_cached, t_write),
        None if cost is None else Decimal(cost),
        latency,
        ttft,
        finish,
        bool(cached),
    )


def _record(row: Sequence[Any]) -> RunRecord:
    id_, name, route, n, started, ended, status, spec, ok, failed, costs = row
    cost = sum((Decimal(c) for c in costs.split(",")), Decimal()) if costs else None
    return RunRecord(id_, name, route, n, started, ended, status, json.loads(spec), ok, failed, cost)
