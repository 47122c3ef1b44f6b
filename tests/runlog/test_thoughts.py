"""What was thought is in the run log and comes back from it; a log from before has no place for it, is read, and gets one when written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb import loop
from holynb.events import Ended
from holynb.runlog import RunLog, RunRecord, records, tables
from holynb.types import Outcome, Usage

OLDER = Path(__file__).parents[1] / "runs" / "older_log.sql"
OK = Outcome(
    "ok",
    "yes",
    route="a/b",
    attempts=1,
    usage=Usage(9, 700, tokens_reasoning=650),
    cost=Decimal("0.5"),
    finish_reason="stop",
    reasoning="차를 고른다 🍵",
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    log = RunLog(tmp_path / "runs.sqlite")
    yield log
    log.close()


def write(log: RunLog, *outcomes: Outcome, run: str = "r") -> None:
    async def written() -> None:
        await log.start(RunRecord(run, None, "a/b", 9, 1.0), [])
        for i, outcome in enumerate(outcomes):
            if (promise := log.record(run, Ended(i, outcome, 2.0 + i), f"key{i}", shared=True)) is not None:
                await promise
        await log.finish(run, "done")

    loop.submit(written()).result(30)


@pytest.fixture
def older(log: RunLog) -> Path:
    with closing(sqlite3.connect(log.path)) as db:
        db.executescript(OLDER.read_text("utf-8"))
    return log.path


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {row[1] for row in db.execute("PRAGMA table_info(answers)")}


def test_thoughts_come_back_as_they_were(log: RunLog):
    cut = Outcome(
        "error", error_type="truncated", finish_reason="length", attempts=1, usage=Usage(9, 5, tokens_reasoning=5), reasoning="hm"
    )
    write(log, OK, cut, Outcome("ok", "no"))
    assert [o for _, o in log.answers("r").values()] == [OK, cut, Outcome("ok", "no")]
    assert log.cached(["key0", "key1"]) == {"key0": OK, "key1": cut}


def test_a_row_asked_again_adds_its_tokens_and_keeps_the_last_thoughts(log: RunLog):
    again = Outcome("ok", "no", attempts=1, usage=Usage(9, 10, tokens_reasoning=4), cost=Decimal("0.1"), reasoning="other")
    write(log, OK)
    write(log, again)
    (_, stands), *_ = log.answers("r").values()
    assert (stands.usage.tokens_out, stands.usage.tokens_reasoning, stands.reasoning) == (710, 654, "other")


def test_an_older_log_is_read_as_it_is(older: Path, log: RunLog):
    (run,) = [r for r in log.runs() if r.name == "old"]
    texts = {row: (o.text, o.reasoning, o.usage.tokens_reasoning) for row, (_, o) in log.answers(run.id).items()}
    assert texts[0] == ("Tea.", None, None)
    assert "reasoning" not in columns(older), "a reader writes nothing"


def test_an_older_log_that_is_written_gets_the_columns(older: Path, log: RunLog):
    before = {r.id: log.answers(r.id) for r in log.runs()}
    write(log, OK)
    assert {"reasoning", "tokens_reasoning"} <= columns(older)
    assert log.answers("r")[0][1] == OK
    assert {run: log.answers(run) for run in before} == before
    write(log, OK, run="s")
    assert log.answers("s")[0][1] == OK


def test_columns_are_added_once_whoever_comes_first(older: Path):
    with closing(sqlite3.connect(older, isolation_level=None)) as one, closing(sqlite3.connect(older, isolation_level=None)) as other:
        tables.add_missing(one)
        tables.add_missing(other)
        assert "reasoning" in columns(older)


texts = st.none() | st.text(max_size=20)


@given(texts, st.none() | st.integers(0, 2**53))
def test_what_is_written_is_what_is_read(reasoning: str | None, tokens: int | None):
    outcome = Outcome("ok", "x", usage=Usage(tokens_reasoning=tokens), reasoning=reasoning)
    row = records.answer_row("r", Ended(0, outcome, 1.0), "k", shared=True)
    assert records.outcome(row[5:]) == outcome
