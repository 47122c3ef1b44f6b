"""Statements in fewer steps: the same rows, in each table in the same order, whatever comes."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.runlog import tables as tables_of
from holynb.runlog import writer
from holynb.runlog.logfile import LogFile
from holynb.runlog.promises import Promises
from holynb.runlog.statements import ROWS_PER_INSERT, MadeRows, Statement, batches, merged, wide
from holynb.runlog.writer import LogWriter

INSERT_A = "INSERT INTO a VALUES(?,?) ON CONFLICT(n) DO UPDATE SET x = a.x || excluded.x"
OR_REPLACE_A = "INSERT OR REPLACE INTO a VALUES(?,?)"
INSERT_B = "INSERT INTO b(n, x) VALUES(?,?)"
UPDATE_A = "UPDATE a SET x = x || ? WHERE n = ?"
ROWS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("pqr")), max_size=2 * ROWS_PER_INSERT + 3)
STATEMENTS = st.lists(
    st.one_of(
        st.builds(Statement, st.sampled_from((INSERT_A, OR_REPLACE_A, INSERT_B)), ROWS),
        st.builds(lambda rows: Statement(UPDATE_A, [(x, n) for n, x in rows]), ROWS),
        st.builds(lambda rows: Statement(INSERT_B, tuple(rows)), ROWS),  # rows that are made as they are read
    ),
    max_size=8,
)


def tables(steps: list[tuple[str, object]]) -> list[list[tuple[object, ...]]]:
    db = sqlite3.connect(":memory:")
    try:
        db.executescript("CREATE TABLE a(n INTEGER PRIMARY KEY, x TEXT); CREATE TABLE b(n INTEGER, x TEXT);")
        for sql, rows in steps:
            db.executemany(sql, rows)
        return [db.execute(f"SELECT * FROM {t} ORDER BY rowid").fetchall() for t in "ab"]
    finally:
        db.close()


@settings(max_examples=60, deadline=None)
@given(STATEMENTS)
def test_what_is_written_is_the_same(statements: list[Statement]):
    expected = tables([(s.sql, s.rows) for s in statements])
    assert tables(list(batches(statements))) == expected
    assert tables(list(merged(statements))) == expected


def test_rows_of_one_table_go_together():
    rows = [(i, "x") for i in range(2 * ROWS_PER_INSERT + 1)]
    alternating = [s for row in rows for s in (Statement(INSERT_B, [row]), Statement(INSERT_A, [row]))]
    assert [(sql.count("?"), len(list(of))) for sql, of in batches(alternating)] == [(2 * ROWS_PER_INSERT, 2), (2, 1)] * 2
    rows_made = MadeRows(rows, tuple)
    assert [(sql.count("?"), len(list(of))) for sql, of in wide(INSERT_B, rows_made)] == [(2 * ROWS_PER_INSERT, 2), (2, 1)]


def test_a_group_is_told_in_one_call():
    async def main() -> list[BaseException | None]:
        loop = asyncio.get_running_loop()
        promises, calls, failures = Promises(loop), 0, list[Exception]()
        call_soon = loop.call_soon_threadsafe

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            return call_soon(*args, **kwargs)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment, method-assign]
        futures = [loop.create_future() for _ in range(100)]

        def write() -> None:
            for i, future in enumerate(futures):
                promises.resolve(future, failures.append if i == 1 else None, OSError() if i < 2 else None)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()  # the loop cannot answer meanwhile
        async with asyncio.timeout(5):
            results = await asyncio.gather(*futures, return_exceptions=True)
        assert calls == 1
        assert [type(f) for f in failures] == [OSError], "told, and its future does not fail"
        promises.resolve(late := loop.create_future(), None, None)
        async with asyncio.timeout(5):
            await late
        return [r for r in results if r is not None]

    (failure,) = asyncio.run(main())
    assert isinstance(failure, OSError)


def test_what_leads_is_committed_with_what_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment and its answer: a kill between two commits would have the row paid again."""
    groups: list[list[str]] = []
    monkeypatch.setattr(writer, "FOLLOWS_S", 5.0)
    monkeypatch.setattr(LogFile, "commit", lambda self, group: groups.append([s.sql for s in group]))
    log = LogWriter(tmp_path / "runs.sqlite", tables_of.SCHEMA)
    done = threading.Event()
    log.add(Statement("payment", [], leads=True))
    time.sleep(0.05)  # as long as the thread needs to take the first alone, and more
    log.add(Statement("answer", [], lambda failure: done.set()))
    assert done.wait(30)
    log.close()
    assert groups == [["payment", "answer"]]


def test_a_group_of_the_most_does_not_end_between_the_two() -> None:
    log = LogWriter(Path("runs.sqlite"), "")
    writing = writer._Writing(log, queue.SimpleQueue(), LogFile(log.path, ""), lambda what, why: None)
    most = writer.MAX_STATEMENTS_PER_COMMIT
    writing._waiting.extend(Statement(str(n), [], leads=n % 2 == 1) for n in range(most + 3))
    group = writing._group()
    assert len(group) == most + 1
    assert not group[-1].leads
