"""The run log: what is written is there for another process, errors are never offered, and broken text loses nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

import holynb
from holynb import loop, runlog
from holynb.errors import BadSetting
from holynb.events import Ended, Failed, Noted
from holynb.journal import Payment
from holynb.pricing import spending
from holynb.run import resume
from holynb.runlog import RunLog, RunRecord, StoredRow, tables
from holynb.runlog.logfile import connect
from holynb.runlog.writer import LogWriter
from holynb.types import Message, Outcome, Sampling, Usage

OK = Outcome(
    "ok",
    "네, hello",
    route="a/b",
    model="b-1",
    attempts=2,
    usage=Usage(3, 4, 1),
    cost=Decimal("0.00012"),
    latency_s=0.5,
    ttft_s=0.1,
    finish_reason="stop",
)


@pytest.fixture
def log(tmp_path: Path):
    log = RunLog(tmp_path / "home" / "runs.sqlite")
    yield log
    log.close()


def stored(row: int, key: str = "k") -> StoredRow:
    return StoredRow(
        row, 0, f"{key}{row}", row, (Message("system", "s"), Message("user", f"q{row}")), Sampling(5, 0.0, stop=("x",), extra={"a": [1]})
    )


def write(
    log: RunLog, run: str = "r1", outcomes: dict[int, Outcome] | None = None, *, shared: bool = True, name: str | None = None
) -> None:
    async def main() -> None:
        rows = {0: OK} if outcomes is None else outcomes
        await log.start(RunRecord(run, name, "a/b", len(rows), 1.0, spec={"options": {"retries": 1}}), [stored(i) for i in rows])
        for row, outcome in rows.items():
            event = Ended(row, outcome, 2.0 + row)
            if outcome.cost is not None:
                what = "cached" if outcome.cached else "answer" if outcome.status == "ok" else "attempt"
                log.record_payment(run, Payment(row, event.at, outcome.route, outcome.model, what, outcome.usage, outcome.cost))
            promise = log.record(run, event, f"k{row}", shared=shared)
            assert promise is not None
            await promise
        await log.finish(run, "done")

    asyncio.run(main())


def test_an_answer_comes_back_as_it_was(log: RunLog):
    write(log)
    assert log.cached(["k0", "nothing"]) == {"k0": OK}
    assert log.answers("r1") == {0: ("k0", OK)}


def test_requests_come_back_to_be_made_again(log: RunLog):
    write(log, outcomes={0: OK, 1: OK})
    assert log.requests("r1") == [stored(0), stored(1)]


def test_runs_are_found_by_id_name_and_beginning(log: RunLog):
    write(log, "20-aaaa", name="first")
    write(log, "20-bbbb", {0: OK, 1: Outcome("error", error_type="timeout", error="late", attempts=4)})
    assert [r.id for r in log.runs()] == ["20-aaaa", "20-bbbb"] or [r.id for r in log.runs()] == ["20-bbbb", "20-aaaa"]
    record = log.find("20-bbbb")
    assert record is not None
    assert (record.ok, record.failed, record.cost, record.status, record.spec) == (
        1,
        1,
        Decimal("0.00012"),
        "done",
        {"options": {"retries": 1}},
    )
    assert log.find("first") == log.find("20-aaaa") == log.find("20-a")
    assert log.find("nope") is None


def test_rows_of_the_log_do_not_make_an_unknown_cost_known(log: RunLog):
    free, unknown = replace(OK, attempts=0, cost=Decimal(0), cached=True), replace(OK, cost=None)
    write(log, "some", {0: free, 1: unknown})
    write(log, "both", {0: OK, 1: free, 2: unknown, 3: unknown})
    write(log, "log", {0: free})
    counted = {r.id: (r.ok, r.cost, r.unknown) for r in log.runs()}
    assert counted == {"some": (2, None, 1), "both": (4, Decimal("0.00012"), 2), "log": (1, Decimal(0), 0)}


def test_errors_are_never_offered(log: RunLog):
    write(log, outcomes={0: Outcome("error", error_type="server", error="x", attempts=1)})
    assert log.cached(["k0"]) == {}


def test_no_cache_answers_are_kept_but_not_offered(log: RunLog):
    write(log, shared=False)
    assert log.cached(["k0"]) == {}
    assert log.answers("r1")[0][1] == OK


def test_a_row_answered_again_replaces_what_stood_there(log: RunLog):
    write(log, outcomes={0: Outcome("error", error_type="server", error="x", attempts=1)})
    write(log)
    assert log.answers("r1") == {0: ("k0", replace(OK, attempts=1 + OK.attempts))}, "the server saw the first, too"


def test_clear_takes_answers_off_offer(log: RunLog):
    write(log)
    assert log.clear() == 1
    assert log.cached(["k0"]) == {}
    assert log.answers("r1")


def test_a_log_that_is_not_there_yet_reads_as_empty(log: RunLog):
    assert (log.runs(), log.cached(["k"]), log.answers("r"), log.requests("r"), log.clear()) == ([], {}, {}, [], 0)
    assert not log.path.exists()


def test_the_file_is_its_owners_alone(log: RunLog):
    write(log)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    with connect(log.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_surrogate_halves_lose_nothing(log: RunLog):
    write(log, outcomes={0: Outcome("ok", "half \ud83d emoji", attempts=1), 1: OK})
    assert log.answers("r1")[0][1].text == "half ? emoji"
    assert log.answers("r1")[1][1] == OK


def test_attempts_are_written(log: RunLog):
    async def main() -> None:
        await log.start(RunRecord("r1", None, "a/b", 1, 1.0), [stored(0)])
        log.record("r1", Failed(0, 1, "a/b", "rate_limit", "slow", 1.0, 0.5, Usage(1, 2), "raw"), None, shared=False)
        await log.finish("r1", "done")

    asyncio.run(main())
    with connect(log.path) as db:
        rows = db.execute("SELECT row, attempt, route, kind, message, wait, tokens_in, tokens_out, raw FROM attempts").fetchall()
    db.close()
    assert rows == [(0, 1, "a/b", "rate_limit", "slow", 0.5, 1, 2, "raw")]


def test_ten_thousand_keys_are_looked_up(log: RunLog):
    write(log, outcomes=dict.fromkeys(range(1200), OK))
    outcomes = log.cached([f"k{i}" for i in range(10_000)])
    assert len(outcomes) == 1200


def test_a_log_that_cannot_be_written_is_told_at_a_runs_end_and_what_was_to_be_written_is_once_it_can_be(tmp_path: Path):
    log = RunLog(tmp_path / "runs.sqlite")
    write(log)
    log.close()
    log.path.rename(tmp_path / "away")
    log.path.mkdir()  # nothing can be written here, even as root
    heard = []

    async def main() -> None:
        written = asyncio.Event()

        def listener(what: str, why: Exception | None) -> None:
            heard.append(what)
            if what == "written":
                written.set()

        log.watch(listener)
        await log.start(RunRecord("r2", None, "a/b", 1, 1.0), [stored(0)])
        promise = log.record("r2", Ended(0, OK, 1.0), "k", shared=True)
        assert promise is not None
        await promise
        with pytest.raises((sqlite3.Error, OSError)):
            await log.finish("r2", "done")
        assert heard == ["trouble"]
        log.path.rmdir()
        (tmp_path / "away").rename(log.path)
        await asyncio.wait_for(written.wait(), 20)

    asyncio.run(main())
    assert heard == ["trouble", "written"]
    assert log.answers("r2") == {0: ("k", OK)}
    record = log.find("r2")
    assert record is not None
    assert record.status == "done"
    assert log.answers("r1"), "and what was there before is there"
    log.close()


def test_two_processes_write_the_same_log(log: RunLog):
    code = f"""
import asyncio, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
from test_store import OK, RunLog, write
log = RunLog(Path({str(log.path)!r})); write(log, sys.argv[1], dict.fromkeys(range(200), OK)); log.close()
"""
    children = [subprocess.Popen([sys.executable, "-c", code, f"run-{i}"]) for i in range(2)]
    assert [c.wait(60) for c in children] == [0, 0]
    assert len(log.answers("run-0")) == len(log.answers("run-1")) == 200


def test_several_make_the_same_log_at_once(tmp_path: Path):
    """SQLite does not wait for another that changes a new file to WAL at the same moment."""
    together, failed = threading.Barrier(4), list[Exception]()

    def make() -> None:
        for i in range(40):
            together.wait(30)
            try:
                db = connect(tmp_path / f"{i}.sqlite")
                db.execute("CREATE TABLE IF NOT EXISTS t(a)")
                db.close()
            except sqlite3.Error as exc:
                failed.append(exc)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed


def test_the_writers_thread_ends_and_starts_anew(tmp_path: Path):
    before = set(threading.enumerate())
    writer = LogWriter(tmp_path / "x.sqlite", f"{tables.SCHEMA}CREATE TABLE IF NOT EXISTS t(a);")
    done = threading.Event()
    writer.put("INSERT INTO t VALUES(?)", [(1,)], lambda failure: done.set())
    assert done.wait(10)
    assert {t.name for t in set(threading.enumerate()) - before} == {"holynb-log"}
    writer.close()
    assert not set(threading.enumerate()) - before
    writer.put("INSERT INTO t VALUES(?)", [(2,)])
    writer.close()
    with connect(tmp_path / "x.sqlite") as db:
        assert db.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
    db.close()


def test_a_row_asked_again_keeps_what_was_paid_before(log: RunLog):
    failed = Outcome("error", error_type="invalid_output", error="x", route="a/b", attempts=2, usage=Usage(3, 4), cost=Decimal("0.1"))
    write(log, outcomes={0: failed, 1: failed, 2: Outcome("error", error_type="connection", error="x", attempts=4), 3: OK})
    now = Outcome("ok", "yes", route="a/b", attempts=1, usage=Usage(3, 5, 1), cost=Decimal("0.2"))
    elsewhere = Outcome("ok", "yes", route="a/b", attempts=0, usage=Usage(3, 5), cost=Decimal(0), cached=True)
    write(log, outcomes={0: now, 1: elsewhere, 2: now})
    rows = {row: (o.status, o.attempts, o.usage, o.cost) for row, (_, o) in log.answers("r1").items()}
    assert rows == {
        0: ("ok", 3, Usage(6, 9, 1), Decimal("0.3")),
        1: ("ok", 2, Usage(3, 5), Decimal("0.1")),
        2: ("ok", 5, Usage(3, 5, 1), Decimal("0.2")),
        3: ("ok", OK.attempts, OK.usage, OK.cost),
    }
    record = log.find("r1")
    assert record is not None
    assert record.cost == Decimal("0.60012")


def test_a_log_that_is_none_is_one_line_and_a_run_goes_on_without_it(home: Path):
    path = home / "runs.sqlite"
    path.write_bytes(b"this is no database, and long enough to be read as one" * 100)
    for ask in (
        lambda log: log.runs(),
        lambda log: log.find("x"),
        lambda log: log.clear(),
        lambda log: spending.by_day(log),
        lambda log: spending.reusable_answers(log),
    ):
        with pytest.raises(BadSetting, match=r"cannot be read \(file is not a database\)\. holynb doctor says what to do") as caught:
            ask(runlog.log())
        assert isinstance(caught.value, sqlite3.Error), "who can do without a log catches it as what it is"
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        run = holynb.infer(["a", "b"], "sim/echo", name="nightly").wait()
    assert run.frame()["status"].tolist() == ["ok", "ok"]
    (warning,) = [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and e.level == "warning"]
    assert warning.startswith(f"The run log {path} cannot be written (file is not a database). Answers are kept in memory only")
    path.rename(home / "broken.sqlite")
    holynb.infer(["a", "b"], "sim/echo", name="nightly").wait()
    runlog.close()
    assert resume.stored("nightly").ok == 2, "a new one is begun"
    loop.close()
