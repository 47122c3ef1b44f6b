"""A run log of an older holynb still answers: models that think have a longer answer by default than they had when it was written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from servers.reader import book

import holynb
from holynb import loop, runlog
from holynb.config import Options
from holynb.run import pending, plan, quote, resume, session
from holynb.run.plan import Plan

#: Where the recorded requests went: part of their keys. Nothing listens there now.
BASE = "http://127.0.0.1:8931/v1"
ROUTE = "openai/gpt-6-luna"
pytestmark = pytest.mark.usefixtures("keyed")


@pytest.fixture(autouse=True)
def older_log(home: Path) -> Iterator[None]:
    session._session.clear()
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(runlog.log().path)) as db:
        db.executescript((Path(__file__).parent / "older_log.sql").read_text("utf-8"))
    yield
    session._session.clear()
    loop.close()
    runlog.close()


def made(texts: list[str], **options: Any) -> Plan:
    return plan.make(texts, ROUTE, Options.parse({"api_base": BASE, **options}))


def answered(plan: Plan) -> dict[int, tuple[str, str | None]]:
    left = pending.read(plan, runlog.log(), {})
    return {row: (o.status, o.text) for row, o in left.answers.items()}


def test_a_request_that_differs_by_the_default_alone_is_answered():
    today = made(["tea", "cut", "away", "empty", "new"])
    assert {r.sampling.max_tokens for r in today.rows.requests if r is not None} == {8192}
    # What was thought away may be answered with more room, and an empty text was never an answer.
    assert answered(today) == {0: ("ok", "Tea."), 1: ("ok", "Te")}
    assert quote.quote(today).answered == 2


def test_a_run_of_answered_rows_sends_nothing():
    run = holynb.infer(["tea", "cut"], ROUTE, api_base=BASE).wait(30)
    frame = run.frame()
    assert frame["text"].tolist() == ["Tea.", "Te"]
    assert frame["cached"].tolist() == [True, True]
    assert frame["attempts"].tolist() == [0, 0]
    again = made(["tea"], name="new")
    assert answered(again) == {0: ("ok", "Tea.")}


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({"max_tokens": 2048}, ("ok", "Tea.")),
        ({"max_tokens": 100}, ("ok", "Tea.")),
        ({"max_tokens": 8192}, None),
        ({"temperature": 0.5}, None),
        ({"refresh": True}, None),
        ({"cache": False}, None),
        ({"chunk": "1000"}, ("ok", "Tea.")),  # it is not long
    ],
)
def test_what_somebody_said_is_the_request(options: dict[str, Any], row: tuple[str, str] | None):
    assert answered(made(["tea"], **options)) == ({} if row is None else {0: row})


def test_with_the_limit_said_the_spent_one_comes_back_as_its_error():
    assert answered(made(["away"], max_tokens=2048)) == {0: ("error", None)}


def test_samples_and_rows_in_chunks_are_answered():
    assert answered(made(["tea"], samples=2)) == {0: ("ok", "Tea."), 1: ("ok", "Tea.")}
    assert answered(made([f"List.\n\n{book(3)}"], chunk="1000")) == {0: ("ok", "K")}


def test_its_run_goes_on_with_what_it_has():
    again = resume.continued(made(["tea", "cut", "away"], name="old"))
    run = again.earlier.run
    assert run is not None
    own = pending.own_answers(again, runlog.log().answers(run))
    assert {row: o.text for row, (_, o) in own.items()} == {0: "Tea.", 1: "Te"}
    assert [r.sampling.max_tokens for r in resume.resumed("old").rows.requests if r is not None] == [2048] * 3, "as it was asked"


def test_a_run_that_went_on_goes_on_again():
    """Its requests stand in the log as they would be sent now, its answers under the keys that they had."""
    run = holynb.infer(["tea", "cut"], ROUTE, api_base=BASE, name="old").wait(30)
    assert run.frame()["text"].tolist() == ["Tea.", "Te"]
    again = resume.resumed("old")
    assert [r.sampling.max_tokens for r in again.rows.requests if r is not None] == [8192, 8192]
    assert holynb.Run(again).start().wait(30).frame()["text"].tolist() == ["Tea.", "Te"]


def test_an_empty_answer_that_was_called_ok_is_a_failed_row():
    kept = resume.continued(made(["empty"], only="failed", resume="older")).earlier.kept
    assert kept == {}
    assert answered(resume.resumed("older")) == {}


def test_models_that_do_not_think_have_no_older_keys():
    for route in ("openai/gpt-4.1-mini", "sim/echo", "pool/smollm2-135m", "anthropic/claude-haiku-4-5"):
        older = plan.make(["tea"], route, Options.parse({"dry_run": True})).keys.older(0)
        assert older == (), route
