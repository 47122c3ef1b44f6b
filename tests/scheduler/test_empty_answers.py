"""Nothing is not an answer: what an empty text costs, how often it is asked for, and what its row says, whatever engine it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from engines_fake import Scripted, always, done
from hypothesis import given
from hypothesis import strategies as st
from scheduled import FAST, drive, ends, request

from holynb.errors import Fault
from holynb.scheduler import empty_answers
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.retry import Policy
from holynb.scheduler.validation import ResponseValidator
from holynb.schema import load
from holynb.types import Completion, Done, Message, Request, Route, Sampling, Usage


def ended(reason: str, text: str = "", **more: Any) -> Done:
    return Done(Completion(text, reason, "m", **more))


def refused(answer: Done, **sampling: Any) -> Fault:
    asked = Request(0, (Message("user", "x"),), Route("a", "b"), Sampling(**sampling))
    with pytest.raises(Fault) as caught:
        empty_answers.check(WorkItem(asked, ("a",)), asked, answer)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "sampling", "message"),
    [
        (ended("length", usage=Usage(9, 512), thinking=True), {"max_tokens": 512}, "all 512 tokens went to thinking; --max-tokens 4096"),
        (ended("length", usage=Usage(9, 500), thinking=True), {"max_tokens": 512}, "all 500 tokens went to thinking; --max-tokens 4096"),
        (ended("length", thinking=True), {"max_tokens": 8192}, "all 8192 tokens went to thinking; --max-tokens 16384"),
        (ended("length", thinking=True), {}, "all its tokens went to thinking; --max-tokens 4096"),
        (
            ended("length", usage=Usage(9, 5), thinking=True),
            {"max_tokens": 2048, "extra": {"max_completion_tokens": 5}},
            "all 5 tokens went to thinking; -p max_completion_tokens=4096",
        ),
        (ended("length"), {"max_tokens": 16}, "the token limit was reached, after 16 tokens, before the answer began; --max-tokens 4096"),
    ],
)
def test_an_answer_that_length_ended_before_its_first_word(answer: Done, sampling: dict[str, Any], message: str):
    fault = refused(answer, **sampling)
    assert (fault.kind, fault.retry, fault.finish_reason, fault.message) == ("truncated", False, "length", message)


def test_only_options_that_there_are_are_named():
    from holynb.config.options import TABLE

    options = {f"--{row.name.replace('_', '-')}" for row in TABLE}
    for answer in (ended("length", thinking=True), ended("length"), ended("tool"), ended("stop")):
        words = refused(answer, max_tokens=512).message.replace(";", " ").replace(",", " ").split()
        assert {w for w in words if w.startswith("--")} <= options


def test_a_tool_call_is_no_answer_and_not_asked_again():
    fault = refused(ended("tool"))
    assert (fault.kind, fault.retry) == ("invalid_output", False)
    assert "-p tools" in fault.message


@given(st.text(alphabet=" \n\t\r\u00a0\u2028\u3000\x0c", max_size=5))
def test_white_space_is_nothing(text: str):
    assert refused(ended("stop", text)).kind == "invalid_output"


@pytest.mark.parametrize("text", ["0", ".", "\u200b", "{}", " a "])
def test_anything_else_is_an_answer(text: str):
    asked = request(0)
    for reason in ("stop", "length", "tool", "other", "unknown"):
        empty_answers.check(WorkItem(asked, ("a",)), asked, ended(reason, text))


@pytest.mark.parametrize("reason", ["stop", "other", "unknown", "pause_turn"])
def test_an_empty_answer_is_asked_for_once_more(reason: str):
    engine = Scripted(always(ended(reason, usage=Usage(3, 1), note="OTHER" if reason == "other" else None)))
    journal, _ = drive([engine], 1)
    (row,) = ends(journal)
    assert (row.status, row.text, row.error_type, row.finish_reason, row.attempts) == ("error", None, "invalid_output", reason, 2)
    assert "change the prompt, or ask another model" in (row.error or "")
    assert ("(OTHER)" in (row.error or "")) == (reason == "other")
    assert row.usage == Usage(6, 2), "both were counted"


def test_an_answer_that_comes_the_second_time_is_one():
    journal, _ = drive([Scripted(lambda row, attempt: [ended("stop") if attempt == 1 else done("tea")])], 3)
    assert [(o.status, o.text, o.attempts, o.error) for o in ends(journal)] == [("ok", "tea", 2, None)] * 3


def test_without_retries_it_is_not_asked_for_again():
    (row,) = ends(drive([Scripted(always(ended("stop")))], 1, Policy(FAST.timeouts, retries=0))[0])
    assert (row.error_type, row.attempts) == ("invalid_output", 1)
    assert "change the prompt" in (row.error or "")


def test_what_length_ended_is_asked_once():
    engine = Scripted(always(ended("length", usage=Usage(3, 512), thinking=True)))
    journal, _ = drive([engine], 20)
    assert {(o.status, o.error_type, o.attempts) for o in ends(journal)} == {("error", "truncated", 1)}
    assert sorted(engine.asked) == list(range(20)), "rows that think too long say nothing against the server"


def test_a_server_of_empty_answers_is_there():
    """Its circuit stays closed, also where rows have somewhere else to go: each is asked there."""

    def script(row: int, attempt: int) -> Sequence[Any]:
        return [ended("length", thinking=True)] if row < 15 else [done("tea")]

    first, second = Scripted(script), Scripted(always(done("from the second")), "test/other")
    journal, _ = drive([first, second], 20, cap=1)
    assert [o.text for o in ends(journal)] == ["from the second"] * 15 + ["tea"] * 5
    assert sorted(first.asked) == list(range(20))


def test_each_route_is_asked_once_more_on_its_own():
    first, second = (
        Scripted(always(ended("stop"))),
        Scripted(lambda row, attempt: [ended("stop") if attempt == 1 else done("tea")], "test/other"),
    )
    (row,) = ends(drive([first, second], 1)[0])
    assert (row.text, row.attempts, first.seen[0], second.seen[0]) == ("tea", 4, 2, 2)


def test_what_stays_empty_goes_to_the_stronger_route_of_a_router():
    asked = request(0)
    item = WorkItem(asked, ("test/model",))
    validator = ResponseValidator(load({"type": "object"}), escalations={asked.route: "strong"})
    validator.translate(item, asked.route, asked, Fault("invalid_output", "empty", retry=True))
    assert item.chain == ("test/model",)
    validator.translate(item, asked.route, asked, Fault("invalid_output", "empty", retry=False))
    assert item.chain == ("test/model", "strong")
