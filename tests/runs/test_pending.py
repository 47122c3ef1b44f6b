"""What a plan still has to send: decided once, for the estimate and for the run."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holynb
from holynb import runlog
from holynb.config import Options
from holynb.run import quote
from holynb.run.keys import RequestKeys
from holynb.run.pending import own_answers, pending
from holynb.run.plan import Continued, Plan, make
from holynb.types import Outcome

OK = Outcome("ok", text="yes", cost=Decimal("0.5"))


@pytest.fixture(autouse=True)
def place(home: Path, no_project: None, ended: None) -> None:
    """A home and a session of their own."""


def plan(texts: list[str], **options: Any) -> Plan:
    return make(texts, "sim/echo", Options.parse(options))


def test_rows_that_ask_the_same_are_one_group():
    assert pending(plan(["a", "b", "a", ""]), {}, {}).groups == [[0, 2], [1]]


def test_without_the_cache_each_row_is_sent():
    assert pending(plan(["a", "b", "a"], cache=False), {}, {}).groups == [[0], [1], [2]]


def test_shared_answers_are_not_sent_and_say_what_they_cost():
    p = plan(["a", "b", "a"])
    left = pending(p, {}, {p.keys.of(0): OK})
    assert (dict(left.answers), left.groups, left.saved) == ({0: OK, 2: OK}, [[1]], Decimal(1))


def test_an_answer_of_the_run_itself_counts_only_for_the_same_request():
    p = plan(["a", "b"])
    earlier = {0: (p.keys.of(0), OK), 1: ("another", OK), 7: (p.keys.of(0), OK)}
    assert own_answers(p, earlier) == {0: (p.keys.of(0), OK)}
    assert pending(p, own_answers(p, earlier), {}).own == {0}


@pytest.mark.parametrize("outcome", [Outcome("error"), Outcome("cancelled")])
def test_what_failed_is_sent_again(outcome: Outcome):
    p = plan(["a"])
    assert own_answers(p, {0: (p.keys.of(0), outcome)}) == {}


def test_refresh_takes_nothing_from_the_log():
    p = plan(["a"], refresh=True)
    assert own_answers(p, {0: (p.keys.of(0), OK)}) == {}


def test_an_answer_that_no_longer_holds_to_the_schema_is_sent_again():
    p = plan(["a"], schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    good = replace(OK, text='{"n": 1}')
    assert own_answers(p, {0: (p.keys.of(0), OK)}) == {}
    assert pending(p, {}, {p.keys.of(0): OK}).groups == [[0]]
    assert dict(pending(p, {}, {p.keys.of(0): good}).answers) == {0: good}


def test_an_answer_in_chunks_stands_under_its_own_key_and_is_kept_there():
    p = plan(["a"], chunk="auto")
    assert p.keys.chunked(0) not in (None, p.keys.whole(0))
    left = pending(p, {}, {p.keys.chunked(0): OK})
    assert (dict(left.answers), left.keys) == ({0: OK}, [p.keys.chunked(0)])


def test_what_only_failed_keeps_is_neither_sent_nor_saved():
    p = replace(plan(["a", "b"]), earlier=Continued("run", {0: OK}))
    left = pending(p, {0: (p.keys.of(0), OK)}, {})
    assert (left.groups, left.saved, left.own) == ([[1]], None, {0})


def test_each_key_is_computed_once(monkeypatch: pytest.MonkeyPatch):
    p = plan(["a", "b"])
    calls: list[str] = []
    real = type(p.rows.requests[0]).key
    monkeypatch.setattr(type(p.rows.requests[0]), "key", lambda self, base: calls.append(base) or real(self, base))
    keys = RequestKeys(p.rows.requests, {p.route: "x"}, chunk=None, long={})
    assert [keys.of(0), keys.of(0), keys.whole(0), keys.of(1)][0] == keys.whole(0)
    assert calls == ["x", "x"]


@given(
    st.lists(st.sampled_from(["a", "b", "c", "", "d"]), min_size=1, max_size=12),
    st.sets(st.sampled_from("abcd")),
    st.booleans(),
    st.booleans(),
)
def test_every_row_is_answered_or_sent_or_asks_nothing(texts: list[str], shared: set[str], cache: bool, refresh: bool):
    p = plan(texts, cache=cache, refresh=refresh)
    known = {p.keys.of(i): OK for i, t in enumerate(texts) if t in shared} if cache and not refresh else {}
    left = pending(p, {}, known)
    sent = [row for group in left.groups for row in group]
    assert sorted([*sent, *left.answers, *(i for i, t in enumerate(texts) if not t)]) == list(range(len(texts)))
    assert all(len({texts[row] for row in group}) == 1 for group in left.groups)


def test_the_estimate_counts_what_the_run_sends():
    holynb.infer(["a", "b"], "sim/echo").wait()
    texts = ["a", "b", "c", "c", "d", ""]
    estimated = quote.quote(plan(texts))
    run = holynb.infer(texts, "sim/echo").wait()
    sent = sum(o is not None and o.attempts > 0 for o in run.rows())
    assert (estimated.rows, sent) == (2, 2)
    assert len(runlog.log().answers(run.id)) == 6
