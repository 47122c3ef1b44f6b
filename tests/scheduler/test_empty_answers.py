"""Nothing is not an answer: what an empty text costs, how often it is asked for, and what its row says, whatever engine it came from."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engines_fake import Scripted, always, done
from hypothesis import given
from hypothesis import strategies as st
from scheduled import FAST, drive, ends, request

from holynb.config.model_entries import KnownModel, Reading, ThinkingControl
from holynb.config.model_traits import ModelTraits
from holynb.errors import Fault
from holynb.scheduler import empty_answers
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.retry import Policy
from holynb.scheduler.validation import ResponseValidator
from holynb.schema import load
from holynb.types import Completion, Done, Message, Request, Route, Sampling, Timeouts, Usage

NOTHING_KNOWN = ModelTraits()
LEVELS = ("low", "medium", "high")


def thinker(output: int = 128_000, **control: Any) -> ModelTraits:
    reading = Reading(dt.date(2026, 11, 28), "https://example.com")
    told = ThinkingControl("effort", reading, **{"values": LEVELS, "default": "medium", "off": {"effort": "none"}, **control})
    return ModelTraits(KnownModel("a", ("b",), reading, output=output, thinks=True, thinking=told))


def ended(reason: str, text: str = "", **more: Any) -> Done:
    return Done(Completion(text, reason, "m", **more))


def refused(answer: Done, traits: ModelTraits = NOTHING_KNOWN, **sampling: Any) -> Fault:
    asked = Request(0, (Message("user", "x"),), Route("a", "b"), Sampling(**sampling))
    with pytest.raises(Fault) as caught:
        empty_answers.check_empty(WorkItem(asked, ("a",)), asked, answer, traits)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "sampling", "message"),
    [
        (
            ended("length", usage=Usage(9, 512), thinking=True),
            {"max_tokens": 512},
            "all 512 tokens went to thinking; --max-tokens 4096 or --think low",
        ),
        (
            ended("length", usage=Usage(9, 500), thinking=True),
            {"max_tokens": 512},
            "all 500 tokens went to thinking; --max-tokens 4096 or --think low",
        ),
        (ended("length", thinking=True), {"max_tokens": 8192}, "all 8192 tokens went to thinking; --max-tokens 16384 or --think low"),
        (ended("length", thinking=True), {}, "all its tokens went to thinking; --max-tokens 4096 or --think low"),
        (
            ended("length", usage=Usage(9, 5), thinking=True),
            {"max_tokens": 2048, "extra": {"max_completion_tokens": 5}},
            "all 5 tokens went to thinking; -p max_completion_tokens=4096 or --think off",
        ),
        (ended("length"), {"max_tokens": 16}, "the token limit was reached, after 16 tokens, before the answer began; --max-tokens 4096"),
    ],
)
def test_an_answer_that_length_ended_before_its_first_word(answer: Done, sampling: dict[str, Any], message: str):
    fault = refused(answer, **sampling)
    assert (fault.kind, fault.retry, fault.finish_reason, fault.message) == ("truncated", False, "length", message)


@pytest.mark.parametrize(
    ("traits", "think", "change"),
    [
        (thinker(), None, "--max-tokens 4096 or --think low"),
        (thinker(), "high", "--max-tokens 4096 or --think low"),
        (thinker(), 400, "--max-tokens 4096 or --think low"),
        (thinker(), "low", "--max-tokens 4096 or --think off"),
        (thinker(), "off", "--max-tokens 4096"),
        (thinker(), 0, "--max-tokens 4096"),
        (thinker(default="low"), None, "--max-tokens 4096 or --think off"),
        (thinker(default="low", off=False), None, "--max-tokens 4096"),
        (thinker(off=False), "low", "--max-tokens 4096"),
        (thinker(output=1000), None, "--max-tokens 1000 or --think low"),
        (thinker(output=512), None, "--think low"),
        (thinker(output=512, off=False), "low", "shorten the prompt, or use another model"),
    ],
)
def test_what_is_named_would_help(traits: ModelTraits, think: str | int | None, change: str):
    fault = refused(ended("length", usage=Usage(9, 512), thinking=True), traits, max_tokens=512, think=think)
    assert fault.message == f"all 512 tokens went to thinking; {change}"


@pytest.mark.parametrize(
    ("traits", "think", "change"),
    [
        (thinker(), None, "--max-tokens 4096 or --think off"),
        (thinker(), "high", "--max-tokens 4096 or --think off"),
        (thinker(), "off", "--max-tokens 4096"),
        (thinker(off=False), None, "--max-tokens 4096 or --think low"),
        (NOTHING_KNOWN, None, "--max-tokens 4096 or --think off"),
    ],
)
def test_a_limit_of_a_few_words_wants_no_thinking_at_all(traits: ModelTraits, think: str | None, change: str):
    fault = refused(ended("length", usage=Usage(9, 64), thinking=True), traits, max_tokens=64, think=think)
    assert fault.message == f"all 64 tokens went to thinking; {change}"


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
        empty_answers.check_empty(WorkItem(asked, ("a",)), asked, ended(reason, text), NOTHING_KNOWN)


@pytest.mark.parametrize("reason", ["stop", "other", "unknown", "pause_turn"])
def test_an_empty_answer_is_asked_for_once_more(reason: str):
    engine = Scripted(always(ended(reason, usage=Usage(3, 1), note="OTHER" if reason == "other" else None)))
    journal, _ = drive([engine], 1)
    (row,) = ends(journal)
    assert (row.status, row.text, row.error_type, row.finish_reason, row.attempts) == ("error", None, "invalid_output", reason, 2)
    assert "change the prompt, or use another model" in (row.error or "")
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


NEVER = ModelTraits(KnownModel("a", ("c",), Reading(dt.date(2026, 11, 28), "https://example.com"), thinks=False))
UNSAID = {"test/model": NOTHING_KNOWN, "test/other": NOTHING_KNOWN}


@pytest.mark.parametrize(
    ("traits", "thinking", "moves"),
    [
        (UNSAID, True, False),
        ({"test/model": thinker()}, True, False),
        ({"test/other": thinker()}, True, False),
        ({"test/model": thinker(), "test/other": thinker()}, True, False),
        ({"test/model": thinker(), "test/other": thinker(default="high")}, True, False),
        ({"test/model": thinker(), "test/other": thinker(default="low")}, True, True),
        ({"test/model": thinker(), "test/other": thinker(default="off")}, True, True),
        ({"test/model": thinker(), "test/other": NEVER}, True, True),
        ({"test/other": NEVER}, True, True),
        ({"test/other": NEVER}, False, False),  # it was no thought that took the tokens, as far as is known
    ],
)
def test_what_was_thought_away_moves_only_where_less_is_thought(traits: dict[str, ModelTraits], thinking: bool, moves: bool):
    """The circuit stays closed: rows that think too long say nothing against the server."""

    def script(row: int, attempt: int) -> Sequence[Any]:
        return [ended("length", usage=Usage(3, 512), thinking=thinking)] if row < 15 else [done("tea")]

    first, second = Scripted(script), Scripted(always(done("from the second")), "test/other")
    journal, _ = drive([first, second], 20, cap=1, traits=traits)
    if moves:
        assert [o.text for o in ends(journal)] == ["from the second"] * 15 + ["tea"] * 5
    else:
        assert [(o.status, o.error_type) for o in ends(journal)] == [("error", "truncated")] * 15 + [("ok", None)] * 5
        assert second.asked == []
    assert sorted(first.asked) == list(range(20))


def test_of_several_routes_the_next_that_thinks_less_is_asked():
    away = always(ended("length", usage=Usage(3, 512), thinking=True))
    engines = [Scripted(away), Scripted(always(done("as long")), "test/other"), Scripted(always(done("at once")), "test/third")]
    journal, _ = drive(engines, 3, traits={"test/model": thinker(), "test/other": thinker(), "test/third": NEVER})
    assert [o.text for o in ends(journal)] == ["at once"] * 3
    assert engines[1].asked == []


def test_a_stream_that_was_cut_moves_to_any_route():
    engines = [Scripted(always("half")), Scripted(always(done("whole")), "test/other")]
    journal, _ = drive(engines, 1, Policy(FAST.timeouts, retries=0))
    assert [o.text for o in ends(journal)] == ["whole"]


def test_where_a_row_moves_its_default_limit_is_the_route_s_own():
    asked: list[int | None] = []

    class Noting(Scripted):
        async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Any]:
            asked.append(request.sampling.max_tokens)
            async for item in super().send(request, timeouts):
                yield item

    for said in (False, True):
        engines = [Noting(always(Fault("content_filter", "no"))), Noting(always(done("tea")), "test/other")]
        first = replace(request(0), sampling=Sampling(max_tokens=8192), default_limit=not said)
        drive(engines, 1, traits={"test/model": thinker()}, items=[WorkItem(first, ("test/model", "test/other"))])
    assert asked == [8192, 2048, 8192, 8192]


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
