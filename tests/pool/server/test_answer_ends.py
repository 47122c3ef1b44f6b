"""Why a pool's answer ended, where its finish reason alone gives wrong advice: a full context, and a stop string before any word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pool_fake import Pool

from holynb.config.model_traits import ModelTraits
from holynb.engines.poolwire import StreamFold
from holynb.errors import Fault
from holynb.full_context import ADVICE, is_full
from holynb.scheduler.empty_answers import check_empty
from holynb.scheduler.failover import WorkItem
from holynb.types import Completion, Done, Message, Request, Route, Sampling

CHAT = "/v1/chat/completions"


def ask(pool: Pool, content: str, **more: Any) -> tuple[dict[str, Any], Completion]:
    """The whole answer, and what holynb's own client reads of the same as a stream."""
    body = {"messages": [{"role": "user", "content": content}], **more}
    fold = StreamFold()
    for event in pool.events(CHAT, {**body, "stream_options": {"include_usage": True}}):
        fold.feed(event.encode() if isinstance(event, str) else b"data: " + json.dumps(event).encode())
    return pool.ask(CHAT, body)[1], fold.completion()


def fault_of(completion: Completion, **sampling: Any) -> Fault:
    request = Request(0, (Message("user", "x"),), Route.parse("pool/echo"), sampling=Sampling(**sampling))
    with pytest.raises(Fault) as caught:
        check_empty(WorkItem(request, ()), request, Done(completion), ModelTraits(None))
    return caught.value


def test_an_answer_that_ends_with_the_context_says_so_and_how_long_it_is(echo: Pool) -> None:
    whole, completion = ask(echo, "x" * 300, max_tokens=4000)
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["notes"] == ["context_full"]
    assert completion.note == f"the model's context is full (512 tokens, prompt and answer): {ADVICE}"
    assert is_full(completion.finish_reason, completion.note)


@pytest.mark.parametrize(("length", "more"), [(300, {"max_tokens": 211}), (100, {"max_tokens": 4000}), (300, {"max_tokens": 5})])
def test_one_that_ends_before_it_does_not(echo: Pool, length: int, more: dict[str, Any]) -> None:
    whole, completion = ask(echo, "x" * length, **more)
    assert "notes" not in whole["usage"]
    assert completion.note is None


def test_thought_or_blanks_up_to_the_end_of_the_context_are_no_want_of_max_tokens(echo: Pool) -> None:
    _, completion = ask(echo, " " * 300, max_tokens=4000)
    fault = fault_of(completion, max_tokens=4000)
    assert (fault.kind, fault.retry) == ("context_length", False)
    assert fault.message.startswith("no answer began; the model's context is full (512 tokens")
    assert "--max-tokens" not in fault.message


def test_a_stop_string_before_the_first_word_is_named(echo: Pool) -> None:
    whole, completion = ask(echo, "  over and out", stop=["o", "x"])
    assert (whole["choices"][0]["finish_reason"], whole["choices"][0]["stop_reason"]) == ("stop", "o")
    words = fault_of(completion, stop=("o", "x")).message
    assert words == 'the answer is empty (the stop string "o" ended it before its first word); leave --stop out, or change it or the prompt'


def test_one_behind_words_is_nothing_to_say(echo: Pool) -> None:
    whole, completion = ask(echo, "so far. over", stop=["over"])
    assert whole["choices"][0]["stop_reason"] == "over"
    assert (completion.text, completion.note) == ("so far. ", None)
    assert "stop_reason" not in ask(echo, "so far")[0]["choices"][0]


def test_other_servers_do_not_say_what_stopped_them() -> None:
    empty = Completion("", "stop")
    assert "--stop may have ended it before its first word; leave --stop out" in fault_of(empty, stop=("o",)).message
    assert fault_of(empty).message == "the answer is empty; change the prompt, or use another model"
    assert "--stop" not in fault_of(Completion("", "unknown"), stop=("o",)).message
