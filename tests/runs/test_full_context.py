"""Where a model's context is full no larger --max-tokens helps: the row, the run and a row in parts say what does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from servers.exact import Asked, Exact, Step, reply

import holynb
from holynb.full_context import ADVICE, full_context_note, is_full
from holynb.results.cut_answers import CutAnswers
from holynb.types import Outcome

ROUTE = "openai/gpt-6-luna"
pytestmark = pytest.mark.usefixtures("keyed")


def serving(text: str, reason: str) -> Exact:
    def script(_: Asked, number: int) -> Sequence[Step]:
        counts = {"prompt_tokens": 12, "completion_tokens": 500}
        return [reply({"model": "m", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": reason}], "usage": counts})]

    return Exact(script)


def ask(server: Exact, **options: object) -> holynb.Run:
    run = holynb.infer(["Say tea.", "Say more."], ROUTE, api_base=server.base, stream=False, max_tokens=4000, **options)
    try:
        return run.wait(30)
    except holynb.InferError:
        return run


@pytest.mark.parametrize("word", ["model_length", "model_context_window_exceeded"])
def test_an_answer_that_filled_the_context_says_so_and_the_run_does_not_advise_more_tokens(word: str) -> None:
    with serving("tea tea", word) as server:
        run = ask(server)
        again = ask(server)
    for one in (run, again):
        row = one.frame().iloc[0]
        assert (row["status"], row["finish_reason"]) == ("ok", "length")
        assert row["error"] == f"the model's context is full (512 tokens, prompt and answer): {ADVICE}"
        assert one.summary().cut_off() == f"2 of 2 answers were cut off where the model's context is full: {ADVICE}."
    assert set(again.frame()["cached"]) == {True}


def test_no_answer_for_want_of_room_is_another_fault_than_a_small_max_tokens() -> None:
    with serving("", "model_length") as server:
        row = ask(server).frame().iloc[0]
    assert (row["status"], row["error_type"]) == ("error", "context_length")
    assert "--max-tokens" not in row["error"]


def test_answers_cut_for_either_reason_are_counted_apart() -> None:
    cut = CutAnswers()
    for error in (None, full_context_note(512), full_context_note(None), "oom: kept"):
        cut.add(Outcome("ok", "x", finish_reason="length", error=error))
    cut.add(Outcome("ok", "x", finish_reason="stop"))
    cut.add(Outcome("error", finish_reason="length"))
    assert (cut.at_limit, cut.full) == (2, 2)
    assert cut.words(5).split("\n") == [
        "2 of 5 answers were cut off at the token limit: raise --max-tokens.",
        f"2 of 5 answers were cut off where the model's context is full: {ADVICE}.",
    ]
    assert cut.words(40) == ""
    assert not is_full("stop", full_context_note(1))
