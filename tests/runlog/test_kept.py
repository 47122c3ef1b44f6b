"""What cannot be written now is kept and tried again: a locked log loses no answer, and a script is told what stays in memory."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import holynb
from holynb import runlog
from holynb.events import Ended, Noted
from holynb.run.run import Run
from holynb.runlog import RunLog, RunRecord, logfile, store, writer
from holynb.types import Outcome, Usage

pytestmark = pytest.mark.usefixtures("ended")
DEADLINE = 60.0


def notes(run: Run) -> list[str]:
    return [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and "run log" in e.text]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait of seconds is one of a twentieth of a second."""
    monkeypatch.setattr(writer, "PATIENCE_S", 0.2)
    monkeypatch.setattr(writer, "RETRY_BUSY_S", 0.02)


class Locked:
    """`with Locked(path):` another connection holds the log, as a program does that writes for long."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *args: object) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


@pytest.mark.usefixtures("impatient")
def test_a_log_that_is_locked_for_long_has_all_answers_once_it_is_free(home: Path):
    holynb.infer("a", "sim/echo").wait(DEADLINE)
    with Locked(home / "runs.sqlite"):
        run = holynb.infer([f"row {i}" for i in range(400)], "sim/echo", name="big", concurrency=32)
        end = time.monotonic() + DEADLINE
        while run.summary().ok < 400:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not run.done, "it waits for the log, for a while"
    run.wait(DEADLINE)
    assert len(notes(run)) == 2, "once that it cannot be written, once that it can"
    record = runlog.log().find("big")
    assert record is not None
    assert (record.ok, record.status) == (400, "done")
    again = holynb.infer([f"row {i}" for i in range(400)], "sim/echo").wait(DEADLINE)
    assert again.frame()["attempts"].sum() == 0


@pytest.mark.usefixtures("impatient")
def test_a_log_that_stays_locked_ends_the_wait_and_is_written_when_it_is_free(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "END_WAIT_S", 0.5)
    holynb.infer("a", "sim/echo").wait(DEADLINE)
    with Locked(home / "runs.sqlite"), pytest.warns(RuntimeWarning, match="locked"):
        holynb.infer(["b", "c"], "sim/echo", name="late").wait(DEADLINE)
    runlog.close()
    record = runlog.log().find("late")
    assert record is not None
    assert (record.ok, record.status) == (2, "done")


def test_what_is_kept_is_bounded_and_the_end_of_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "MAX_KEPT_BYTES", 100_000)
    (tmp_path / "runs.sqlite").mkdir()
    log, heard = RunLog(tmp_path / "runs.sqlite"), []

    async def main() -> None:
        log.watch(lambda what, why: heard.append(what))
        await log.start(RunRecord("r", None, "a/b", 100, 1.0), [])
        for row in range(100):
            promise = log.record("r", Ended(row, Outcome("ok", "x" * 5000), 2.0), f"k{row}", shared=True)
            assert promise is not None
            await promise
        (tmp_path / "runs.sqlite").rmdir()
        await log.finish("r", "done")

    asyncio.run(main())
    log.close()
    assert heard[0] == "trouble"
    assert heard.count("full") > 0
    assert 10 < len(log.answers("r")) < 25


def test_a_row_that_sqlite_refuses_takes_no_other_with_it(tmp_path: Path):
    """A server may count more tokens than SQLite's integers hold; the writer's thread ended with it, and every row waited for ever."""
    log = RunLog(tmp_path / "runs.sqlite")

    async def main() -> list[object]:
        await log.start(RunRecord("r", None, "a/b", 3, 1.0), [])
        outcomes = [Outcome("ok", "a"), Outcome("ok", "b", usage=Usage(2**70, 1)), Outcome("ok", "c")]
        promises = [log.record("r", Ended(row, outcome, 2.0), f"k{row}", shared=True) for row, outcome in enumerate(outcomes)]
        ends = await asyncio.wait_for(asyncio.gather(*[p for p in promises if p], return_exceptions=True), DEADLINE)
        await log.finish("r", "done")
        return list(ends)

    first, second, third = asyncio.run(main())
    assert (first, third) == (None, None)
    assert isinstance(second, OverflowError)
    assert sorted(log.answers("r")) == [0, 2]
    log.close()


SCRIPT = """
import sys, warnings, holynb
run = holynb.infer([f"row {i} " + "x" * 2000 for i in range(40)], "sim/echo")
run.wait()
run.wait()
print(run.frame()["status"].eq("ok").sum())
"""


def script(home: Path, limit: int | None = None, *, warn: str = "default") -> subprocess.CompletedProcess[str]:
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n" if limit else ""
    env = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": warn}
    return subprocess.run(  # noqa: PLW1510 - the tests look at it
        [sys.executable, "-c", before + SCRIPT], env=env, capture_output=True, text=True, timeout=DEADLINE
    )


def test_a_script_is_told_once_that_its_log_is_broken(tmp_path: Path):
    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 500)
    done = script(tmp_path)
    assert (done.returncode, done.stdout) == (0, "40\n")
    assert done.stderr.count("RuntimeWarning: The run log") == 1
    assert "file is not a database" in done.stderr
    assert done.stderr.splitlines()[0].startswith("<string>:4:"), "the line of the script that waited"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_a_script_is_told_once_that_its_log_cannot_grow(tmp_path: Path):
    done = script(tmp_path, 60_000)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
    assert done.stderr.count("RuntimeWarning: The run log") == 1


def test_a_script_whose_log_can_be_written_is_told_nothing(tmp_path: Path):
    done = script(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "40\n", "")


def test_a_close_of_a_log_that_stays_locked_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "PATIENCE_S", 0.1)
    log = RunLog(tmp_path / "runs.sqlite")
    done = threading.Event()
    log._writer.put("DELETE FROM answers", [()], lambda failure: done.set())
    assert done.wait(DEADLINE)
    with Locked(tmp_path / "runs.sqlite"):
        failures = []
        log._writer.put("DELETE FROM answers", [()], failures.append)
        started = time.monotonic()
        log._writer.close(0.5)
        assert time.monotonic() - started < 5
    assert "holynb-log" not in {t.name for t in threading.enumerate()}
    with closing(logfile.connect(tmp_path / "runs.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_an_older_log_is_read_and_written(home: Path):
    """One from before the table of payments."""
    from holynb.runlog import tables

    home.joinpath("runs.sqlite").touch()
    with closing(sqlite3.connect(home / "runs.sqlite")) as db:
        db.executescript(tables.TABLES)
        db.execute("INSERT INTO runs(id, name, route, n, started) VALUES('old', 'old', 'sim/echo', 1, 1.0)")
        db.commit()
    holynb.infer("a", "sim/echo", name="new").wait(DEADLINE)
    assert {r.name for r in runlog.log().runs()} == {"old", "new"}


def test_a_log_of_a_newer_holynb_with_more_columns_is_written(home: Path):
    from holynb.runlog import tables

    with closing(sqlite3.connect(home / "runs.sqlite")) as db:
        db.executescript(tables.SCHEMA)
        db.execute("ALTER TABLE answers ADD COLUMN colour TEXT")
        db.commit()
    run = holynb.infer("a", "sim/echo", name="new").wait(DEADLINE)
    assert run.frame()["status"].tolist() == ["ok"]
    assert [o.text for _, o in runlog.log().answers(run.id).values()] == ["a"]


def test_a_log_of_a_newer_holynb_with_other_columns_is_left_as_it_is_and_said(home: Path):
    from holynb.runlog import tables

    with closing(sqlite3.connect(home / "runs.sqlite")) as db:
        db.executescript(tables.SCHEMA)
        db.execute("ALTER TABLE answers RENAME COLUMN text TO words")
        db.commit()
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        run = holynb.infer("a", "sim/echo", name="new").wait(DEADLINE)
    assert run.frame()["status"].tolist() == ["ok"]


def test_a_clock_that_is_set_back_in_a_run_keeps_every_answer(home: Path, monkeypatch: pytest.MonkeyPatch):
    run = holynb.infer([f"row {i}" for i in range(60)], "sim/echo", name="big", p={"latency": 0.03}, concurrency=4)
    end = time.monotonic() + DEADLINE
    while run.summary().ok < 20:
        assert time.monotonic() < end
        time.sleep(0.01)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() - 86_400)
    for side in ("", "-wal", "-shm"):
        home.joinpath(f"runs.sqlite{side}").unlink(missing_ok=True)
    run.wait(DEADLINE)
    record = runlog.log().find("big")
    assert record is not None
    assert (record.ok, record.status) == (60, "done")
