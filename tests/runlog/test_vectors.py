"""Vectors in the run log: those of one request in one row, read back each in its place; what an older holynb wrote is read, too."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.events import Ended
from holynb.runlog import RunLog, RunRecord, tables, vectors
from holynb.types import Outcome


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    log = RunLog(tmp_path / "runs.sqlite")
    yield log
    log.close()


def answer(vector: bytes | None) -> Outcome:
    return Outcome("ok", "3 dimensions", route="a/b", attempts=1, vector=vector)


def write(log: RunLog, ends: dict[int, Outcome], run: str = "r") -> None:
    async def main() -> None:
        log.start(RunRecord(run, None, "a/b", len(ends), 1.0), [])
        await log.record_ends(run, [(Ended(row, outcome, 2.0), f"k{row}", True) for row, outcome in ends.items()])

    asyncio.run(main())


def kept(log: RunLog) -> list[tuple[int, int]]:
    with log.reading() as db:
        return list(db.execute("SELECT size, length(numbers) FROM vectors"))


@given(st.lists(st.none() | st.sampled_from([b"abcd", b"efgh", b"ijklmnop"]) | st.binary(min_size=4, max_size=4), max_size=12))
def test_each_vector_comes_back(given: list[bytes | None]) -> None:
    row, stand = vectors.together(given)
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(vectors.TABLE)
        if row is not None:
            db.execute(vectors.INSERT, row)
        reader = vectors.Vectors(db)
        assert [reader.of(v) for v in stand] == given


def test_those_of_a_request_are_one_row_and_one_alone_is_its_answers_own(log: RunLog) -> None:
    one, two = b"\0\0\x80?" * 3, b"\0\0\0@" * 3
    ends = {0: answer(one), 1: answer(two), 2: Outcome("error", error="no"), 3: answer(two)}
    write(log, ends)
    write(log, {0: answer(one)}, "alone")
    assert kept(log) == [(12, 24)]
    assert {row: o for row, (_, o) in log.answers("r").items()} == ends
    assert log.cached(["k0", "k3"]) == {"k0": answer(one), "k3": answer(two)}, "the newest of each"


def test_rows_that_ask_the_same_share_a_vector(log: RunLog) -> None:
    same, other = b"\0\0\x80?" * 3, b"\0\0\0@" * 3
    write(log, {0: answer(same), 1: answer(same), 2: answer(other)})
    assert kept(log) == [(12, 24)]


@pytest.mark.parametrize("again", [True, False])
def test_a_file_that_is_deleted_during_a_run_gets_them_again(log: RunLog, again: bool) -> None:
    outcomes = [answer(b"abcd"), answer(b"efgh"), answer(b"efgh"), Outcome("error", error="no"), answer(b"ijkl")]

    def delete() -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{log.path}{end}").unlink()

    async def main() -> None:
        log.start(RunRecord("r", None, "a/b", len(outcomes), 1.0), [])
        ends = [(Ended(row, outcome, time.time()), None, True) for row, outcome in enumerate(outcomes)]
        # As a journal gives them: equal ones are not the same object.
        reread = (
            (lambda row: None if outcomes[row] is None else replace(outcomes[row], vector=copied(outcomes[row].vector))) if again else None
        )
        await log.record_ends("r", ends, None, reread)
        delete()
        await log.finish("r", "done")

    asyncio.run(main())
    assert [o for _, o in log.answers("r").values()] == outcomes


def copied(vector: bytes | None) -> bytes | None:
    return None if vector is None else bytes(bytearray(vector))


def test_the_file_has_them_once_a_run_is_over(log: RunLog) -> None:
    """Not only the write-ahead log: a copy of the file alone must not miss a whole run."""
    size = 4 * 2**20

    async def main() -> None:
        log.start(RunRecord("r", None, "a/b", 2, 1.0), [])
        await log.record_ends("r", [(Ended(row, answer(bytes([row]) * size), 2.0), None, True) for row in (0, 1)])
        await log.finish("r", "done")

    asyncio.run(main())
    deadline = time.monotonic() + 20
    while log.path.stat().st_size < 2 * size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_row_whose_vectors_are_gone_is_asked_again(log: RunLog) -> None:
    write(log, {0: answer(b"abcd"), 1: answer(b"efgh")})
    log.close()
    with closing(sqlite3.connect(log.path)) as db:
        db.execute("DELETE FROM vectors")
        db.commit()
    assert [o.vector for _, o in log.answers("r").values()] == [None, None], (
        "as a row without one: `pending` does not take it for an answer"
    )


def test_a_log_from_before_them_is_read_and_gets_them(log: RunLog) -> None:
    with closing(sqlite3.connect(log.path)) as db:
        db.create_function("plus", 2, lambda a, b: a or b, deterministic=True)
        db.executescript(f"{tables.SCHEMA} DROP TABLE vectors;")
        row = ("r", 0, "k0", 1, 2.0, *["ok", "3 dimensions", None, None, "a/b", None, 1], *[None] * 8, 0, None, None, b"abcd")
        db.execute(tables.ANSWER_UPSERT, row)
        db.commit()
    assert log.cached(["k0"])["k0"].vector == b"abcd", "read as it is"
    write(log, {1: answer(b"efgh"), 2: answer(b"ijkl")})
    assert [o.vector for _, o in log.answers("r").values()] == [b"abcd", b"efgh", b"ijkl"]
    assert kept(log) == [(4, 8)]
