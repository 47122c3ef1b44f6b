"""A log that is deleted, replaced or cut off while a kernel lives: begun anew, with all that the runs that go on have paid for."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import holynb
from holynb import runlog
from holynb.events import Noted, Started
from holynb.run.run import Run
from holynb.runlog.logfile import LogFile, connect

pytestmark = pytest.mark.usefixtures("ended")
DEADLINE = 60.0
ROWS = 60
SLOW = {"p": {"latency": 0.05}, "concurrency": 4}


def prompts(n: int = ROWS) -> list[str]:
    return [f"row {i}" for i in range(n)]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def sent(run: Run) -> int:
    return sum(isinstance(e, Started) for e in run.journal.events_since(0)[0])


def said(run: Run, words: str) -> list[str]:
    return [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and words in e.text]


def in_another_process(code: str, *args: str) -> str:
    path = os.pathsep.join([*sys.path])
    done = subprocess.run(  # noqa: PLW1510 - the assertion says it
        [sys.executable, "-c", code, *args], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0
    return done.stdout


def delete(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def delete_the_file_alone(path: Path) -> None:
    path.unlink()


def delete_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_with_an_older_copy(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(path.with_name("copy"))) as copy:
        db.backup(copy)
    delete(path)
    path.with_name("copy").rename(path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut_off(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(FULL)")
    time.sleep(0.3)  # a commit or more
    os.truncate(path, path.stat().st_size // 2)


def delete_the_write_ahead_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def delete_the_shared_index(path: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        (delete, True),
        (delete_the_file_alone, True),
        (delete_the_folder, True),
        (replace_with_an_older_copy, None),
        (empty, True),
        (cut_off, True),
        (delete_the_write_ahead_log, False),
        (delete_the_shared_index, False),
    ],
)
def test_in_the_middle_of_a_run_it_is_noticed_and_nothing_is_paid_twice(home: Path, harm: Callable[[Path], None], lost: bool | None):
    run = holynb.infer(prompts(), "sim/echo", name="big", **SLOW)
    until(lambda: run.summary().ok >= 20)
    harm(home / "runs.sqlite")
    run.wait(DEADLINE)
    assert run.frame()["text"].tolist() == prompts()
    times = len(said(run, "was deleted, replaced or damaged. A new one was begun"))
    assert times == lost or (lost is None and times <= 1), "the copy may lack what was answered while it was made"
    code = "import holynb, sys; r = holynb.infer([f'row {i}' for i in range(60)], 'sim/echo', p={'latency': 0.05}).wait()\nprint(r.frame()['attempts'].sum())"
    assert in_another_process(code) == "0\n", "another kernel finds all of it"
    record = runlog.log().find("big")
    assert record is not None
    assert (record.status, record.n, record.ok, record.failed, len(runlog.log().requests(record.id))) == ("done", ROWS, ROWS, 0, ROWS)
    with closing(connect(home / "runs.sqlite")) as db:
        assert db.execute("SELECT count(*), sum(attempts) FROM answers WHERE run = ?", (record.id,)).fetchone() == (ROWS, ROWS)
        assert db.execute("SELECT count(*) FROM payments WHERE run = ? AND what = 'answer'", (record.id,)).fetchone() == (ROWS,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_goes_after_the_ones_beside_it_counts_as_replaced(tmp_path: Path):
    path = tmp_path / "runs.sqlite"
    file = LogFile(path, "CREATE TABLE IF NOT EXISTS t (x);")
    file.open(1.0)
    path.with_name(path.name + "-shm").unlink()
    assert not file.is_current()
    assert not file.replaced, "the log itself is there yet"
    file.close()
    delete(path)
    file.open(1.0)
    assert file.replaced
    file.close()


def test_a_run_that_was_resumed_keeps_what_it_had_before(home: Path):
    first = holynb.infer(prompts(30), "sim/echo", name="big", **SLOW).wait(DEADLINE)
    run = holynb.infer(prompts(), "sim/echo", name="big", **SLOW)
    until(lambda: run.summary().ok >= 40)
    delete(home / "runs.sqlite")
    run.wait(DEADLINE)
    assert (sent(first), sent(run)) == (30, 30)
    again = holynb.infer(prompts(), "sim/echo", **SLOW).wait(DEADLINE)
    assert sent(again) == 0
    assert said(again, "deleted or replaced") == []


def test_before_the_next_run_it_is_noticed_and_forgets_everything(home: Path):
    holynb.infer(prompts(3), "sim/echo").wait(DEADLINE)
    delete(home / "runs.sqlite")
    run = holynb.infer(prompts(3), "sim/echo").wait(DEADLINE)
    assert sent(run) == 3
    assert len(said(run, "was deleted, replaced")) == 1
    again = holynb.infer(prompts(3), "sim/echo").wait(DEADLINE)
    assert sent(again) == 0
    assert said(again, "deleted or replaced") == []
    assert in_another_process("from holynb import runlog; print(len(runlog.log().runs()))") == "2\n"


def test_another_process_that_closes_the_log_leaves_it_to_this_one():
    """A close of the file itself drops SQLite's locks; the next process to end then removed the write-ahead log under this one."""
    close = """
from contextlib import closing
from holynb import runlog
from holynb.runlog.logfile import connect
with closing(connect(runlog.log().path)) as db:
    db.execute("UPDATE runs SET route = route")
print(len(runlog.log().runs()))
"""
    for i in range(1, 4):
        holynb.infer([f"x{i}"], "sim/echo").wait(DEADLINE)
        assert in_another_process(close) == f"{i}\n"


def test_two_kernels_and_one_deletes_it(home: Path):
    code = """
import sys, holynb
run = holynb.infer([f"other {i}" for i in range(60)], "sim/echo", p={"latency": 0.15}, concurrency=4, name="other")
while run.summary().ok < 8:
    pass
print("started", flush=True)
run.wait()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        run = holynb.infer(prompts(), "sim/echo", name="big", **SLOW)
        until(lambda: run.summary().ok >= 20)
        delete(home / "runs.sqlite")
        run.wait(DEADLINE)
        assert other.wait(DEADLINE) == 0
        other.stdout.close()
    finally:
        other.kill()
        other.wait()
    assert {(r.name, r.ok, r.status) for r in runlog.log().runs()} == {("big", ROWS, "done"), ("other", ROWS, "done")}


def test_a_log_that_another_program_vacuums_is_the_same_log(home: Path):
    holynb.infer([f"{i} {'x' * 5000}" for i in range(200)], "sim/echo", name="first").wait(DEADLINE)
    with closing(connect(home / "runs.sqlite")) as db:
        db.execute("DELETE FROM requests")
        db.execute("DELETE FROM answers")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    run = holynb.infer(prompts(3), "sim/echo", name="second").wait(DEADLINE)
    assert said(run, "deleted or replaced") == []
    assert {r.name for r in runlog.log().runs()} == {"first", "second"}
    assert not (home / "runs.sqlite.broken").exists()


def test_what_is_left_of_a_log_that_was_cut_off_is_moved_aside(home: Path):
    run = holynb.infer([*prompts(), *["x" * 9000 + str(i) for i in range(20)]], "sim/echo", name="big", **SLOW)
    until(lambda: run.summary().ok >= 20)
    cut_off(home / "runs.sqlite")
    run.wait(DEADLINE)
    assert (home / "runs.sqlite.broken").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_a_home_with_odd_characters_is_read_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a b", "a?b=c#d", "100%25", "ü é", "'quoted\"", os.fsdecode(b"\xff\xfe")):
        monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / name))
        first = holynb.infer(prompts(2), "sim/echo").wait(DEADLINE)
        again = holynb.infer(prompts(2), "sim/echo").wait(DEADLINE)
        assert (sent(first), sent(again)) == (2, 0), name
        assert (tmp_path / name / "runs.sqlite").exists()


def test_a_log_of_two_gigabytes_is_opened_at_once(home: Path):
    holynb.infer(prompts(2), "sim/echo").wait(DEADLINE)
    runlog.close()
    with (home / "runs.sqlite").open("r+b") as file:
        file.truncate(2 * 2**30)
    started = time.monotonic()
    again = holynb.infer(prompts(2), "sim/echo").wait(DEADLINE)
    assert sent(again) == 0
    assert time.monotonic() - started < 5
    delete(home / "runs.sqlite")


def test_a_file_that_is_still_there_costs_a_commit_next_to_nothing(tmp_path: Path):
    from holynb.runlog import tables

    file = LogFile(tmp_path / "runs.sqlite", tables.SCHEMA)
    file.open(1.0)
    started = time.process_time()
    assert all(file.is_current() for _ in range(1000))
    assert time.process_time() - started < 1.0
    file.close()
    assert threading.active_count() < 50
