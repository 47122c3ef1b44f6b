"""Runs shown again: from the session, from the log, unfinished ones with the way to finish them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

import holynb
from holynb import runlog
from holynb.errors import BadOption, InferError
from holynb.run import session
from holynb.ui.output import report
from holynb.ui.output.static import as_html, as_text


def forget_the_session() -> None:
    session._session.clear()


def test_nothing_yet_and_no_such_run() -> None:
    forget_the_session()
    with pytest.raises(BadOption, match="There is no run yet"):
        report.load()
    with pytest.raises(BadOption, match="There is no run 'x'"):
        report.load("x")


def test_the_log_gives_what_the_session_gave() -> None:
    df = pd.DataFrame({"a": ["x", "y", ""]}, index=pd.MultiIndex.from_tuples([("p", 1), ("p", 1), ("q", 2)]))
    run = holynb.infer("{{ a }}", "sim/echo", df=df, name="kept").wait()
    now = as_text(report.load("kept"))
    forget_the_session()
    for name in ("kept", run.id, None):
        then = report.load(name)
        assert [then.label(i) for i in (0, 1)] == ["p, 1", "p, 1"]
        assert [o and o.text for o in then.rows[:2]] == ["x", "y"]
        assert "data:image/svg+xml" not in as_html(then), "a run of a few milliseconds has nothing to chart"
    assert now.splitlines()[:3] == as_text(report.load("kept")).splitlines()[:3]


def test_failures_are_kept_too() -> None:
    with pytest.raises(InferError):
        holynb.infer(["a", "b"], "sim/echo", name="bad", p={"fault": "401"}).wait()
    forget_the_session()
    assert "2 of 2 failed: 2 auth" in as_text(report.load("bad"))


def test_what_was_not_answered_says_how_to_go_on() -> None:
    """As a killed kernel leaves it: the run and its requests, and some of the answers."""
    holynb.infer([f"row {i}" for i in range(8)], "sim/echo", name="cut").wait()
    runlog.close()
    with closing(sqlite3.connect(runlog.log().path)) as db, db:
        db.execute("DELETE FROM answers WHERE row > 2")
    forget_the_session()
    text = as_text(report.load("cut"))
    assert "5 rows have no answer in the run log" in text
    assert "%infer resume cut" in text


def test_after_a_fallback_the_title_names_the_route_that_answered(home: Path) -> None:
    told = {"fault": "quota", "at": "stream"}
    run = holynb.infer(["a", "b"], "sim/stream", fallback=["sim/echo"], cache=False, name="moved", p=told).wait()
    assert report.of(run).title == "moved, 2 by fallback sim/echo"
