"""The run log of 0.1: `runs-0.1.sqlite` was written by the last commit of its first week, a0021ee1, with five rows of `sim/echo` answered, refused and compared."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

import holynb
from holynb.runlog import current, tables

TEXTS = ["good", "bad", "[fail] me", "fine", "한국어"]


@pytest.fixture
def kept(home: Path) -> Path:
    """That file, as the run log of this test."""
    return Path(shutil.copy(Path(__file__).with_name("runs-0.1.sqlite"), home / "runs.sqlite"))


def sent(name: str, **options: object) -> pd.DataFrame:
    run = holynb.infer("Classify: {{ text }}", "sim/echo", df=pd.DataFrame({"text": TEXTS, "n": range(5)}), name=name, **options)
    run.wait()
    return run.frame()


def test_what_was_answered_is_not_sent_again(kept: Path) -> None:
    again = sent("labels")
    assert again["cached"].tolist() == [True] * 5
    assert [text.removeprefix("Classify: ") for text in again["text"]] == TEXTS


def test_what_was_refused_is_asked_again(kept: Path) -> None:
    with pytest.raises(holynb.InferError, match="5 of 5 failed: 5 quota"):
        sent("refused", p={"fault": "quota"})
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT count(*) FROM attempts JOIN runs ON id = run WHERE name = 'refused' AND kind = 'quota'").fetchone()[0] > 5


def test_its_runs_are_listed_and_its_columns_added(kept: Path) -> None:
    assert {record.name for record in current.log().runs()} == {"labels", "refused", "flaky", "compared"}
    with closing(sqlite3.connect(kept)) as db:
        lacked = tables.missing(db)
        paid = db.execute("SELECT count(*) FROM payments").fetchone()
    assert "reasoning" in lacked["answers"]
    sent("labels")
    current.close()
    with closing(sqlite3.connect(kept)) as db:
        assert tables.missing(db) == {}
        assert db.execute("SELECT count(*) FROM payments").fetchone() == paid


@pytest.mark.parametrize(("name", "ended"), [("labels", {"ok"}), ("compared", {"ok"}), ("refused", {"error"})])
def test_its_rows_are_shown_again(kept: Path, name: str, ended: set[str]) -> None:
    found = current.log().find(name)
    assert found is not None
    answers = current.log().answers(found.id)
    assert {outcome.status for _, outcome in answers.values()} == ended
    assert len(answers) == found.n
