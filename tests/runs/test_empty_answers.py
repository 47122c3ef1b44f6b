"""Nothing is not an answer, end to end: over HTTP, with a schema, in chunks, from the run log, and in what a run says at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from servers.exact import Asked, Exact, Step, reply, sse, streamed
from servers.golden import anthropic_events, gemini_part, openai_chunk, response, response_events
from servers.reader import book

import holynb
from holynb import loop, runlog
from holynb.config import settings
from holynb.config.options import Options
from holynb.run import plan, quote, resume, session

ROUTE = "openai/gpt-6-luna"
USED = {"prompt_tokens": 20, "completion_tokens": 512, "completion_tokens_details": {"reasoning_tokens": 512}}
SPENT = "all 512 tokens went to thinking; --max-tokens 4096 or --think low"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
pytestmark = pytest.mark.usefixtures("keyed")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    session._session.clear()
    yield
    settings.reset()
    session._session.clear()
    loop.close()
    runlog.close()


def answer(text: Any, reason: Any = "stop", **more: Any) -> Callable[[Asked], Sequence[Step]]:
    """A server that says this, streamed where it is asked to."""

    def script(request: Asked) -> Sequence[Step]:
        if request.json.get("stream"):
            return [streamed(sse(openai_chunk(text), {**openai_chunk(finish=reason), **more}, "[DONE]"))]
        return [reply({"model": "m", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": reason}], **more})]

    return script


THOUGHT_AWAY = answer("", "length", usage=USED)


def serving(script: Callable[[Asked], Sequence[Step]]) -> Exact:
    return Exact(lambda request, number: script(request))


def ask(server: Exact, texts: Sequence[str] = ("Say tea.",), **said: Any) -> holynb.Run:
    run = holynb.infer(list(texts), ROUTE, api_base=server.base, **{"max_tokens": 512, **said})
    try:
        return run.wait(30)
    except holynb.InferError:
        return run


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_thought_away_is_truncated_and_asked_once(stream: bool, schema: Any):
    with serving(THOUGHT_AWAY) as server:
        row = ask(server, stream=stream, schema=schema).frame().iloc[0]
    assert (row["status"], row["error_type"], row["finish_reason"], row["attempts"]) == ("error", "truncated", "length", 1)
    assert row["error"] == f"{SPENT}"
    assert (row["tokens_in"], row["tokens_out"]) == (20, 512)
    assert row["cost"] > 0, "what was thought is billed"
    assert len(server.asked) == 1


ANTHROPIC = {"type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None, "usage": {"input_tokens": 20}}
BLOCK = {"type": "thinking", "thinking": "hm", "signature": "x"}
ENDED = {"stop_reason": "max_tokens"}, {"output_tokens": 512}


def anthropic_away(request: Asked) -> Sequence[Step]:
    reason, counts = ENDED
    if not request.json.get("stream"):
        return [reply({**ANTHROPIC, **reason, "content": [BLOCK], "usage": {**ANTHROPIC["usage"], **counts}})]
    start = {"type": "content_block_start", "index": 0, "content_block": {**BLOCK, "thinking": ""}}
    end = {"type": "message_delta", "delta": reason, "usage": counts}
    return [streamed(anthropic_events({"type": "message_start", "message": ANTHROPIC}, start, end, {"type": "message_stop"}))]


def gemini_away(request: Asked) -> Sequence[Step]:
    counts = {"promptTokenCount": 20, "thoughtsTokenCount": 512}
    away = gemini_part(None, "MAX_TOKENS", usageMetadata=counts)
    return [streamed(sse(away))] if ":streamGenerateContent" in request.path else [reply(away)]


def responses_away(request: Asked) -> Sequence[Step]:
    counts = {"input_tokens": 20, "output_tokens": 512, "output_tokens_details": {"reasoning_tokens": 512}, "total_tokens": 532}
    thought = {"id": "rs_1", "type": "reasoning", "summary": []}
    away = response("incomplete", thought, incomplete_details={"reason": "max_output_tokens"}, usage=counts)
    if not request.json.get("stream"):
        return [reply(away)]
    return [streamed(response_events({"type": "response.incomplete", "sequence_number": 1, "response": away}))]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schema", [None, SCHEMA])
@pytest.mark.parametrize(
    ("route", "away", "words"),
    [
        ("openai/o3-pro", responses_away, SPENT),
        ("openai/gpt-5-pro", responses_away, "all 512 tokens went to thinking; --max-tokens 4096"),  # it thinks no less
        ("anthropic/claude-haiku-5-5", anthropic_away, SPENT),
        ("gemini/gemini-3.8-flash", gemini_away, SPENT),
        ("gemini/gemini-3.5-flash-lite", gemini_away, "all 512 tokens went to thinking; --max-tokens 4096"),  # it thinks no less
    ],
)
def test_thought_away_on_the_other_wires(route: str, away: Callable[[Asked], Sequence[Step]], words: str, stream: bool, schema: Any):
    with serving(away) as server:
        if away is responses_away:
            settings.override(provider={"openai": {"wire": "responses"}})
        run = holynb.infer(["Say tea."], route, api_base=server.base, max_tokens=512, stream=stream, schema=schema)
        with pytest.raises(holynb.InferError, match="went to thinking"):
            run.wait(30)
    row = run.frame().iloc[0]
    assert (row["error_type"], row["error"], row["tokens_out"], row["attempts"]) == ("truncated", words, 512, 1)


def test_a_repair_that_was_thought_away_is_truncated():
    said = [answer('{"n": "tea"}'), THOUGHT_AWAY]
    with Exact(lambda request, number: said[number](request)) as server:
        row = ask(server, schema=SCHEMA).frame().iloc[0]
    assert (row["error_type"], row["error"], row["attempts"]) == ("truncated", SPENT, 2)


def test_of_routes_compared_the_one_that_answers_does():
    def script(request: Asked) -> Sequence[Step]:
        return (THOUGHT_AWAY if request.json["model"] == "gpt-6-luna" else answer("tea"))(request)

    with serving(script) as server:
        frame = ask(server, compare=["openai/gpt-4.1-mini"]).frame()
        assert frame["status"].tolist() == ["error", "ok"]
        assert frame["error"].iloc[0] == SPENT
        ask(server, compare=["openai/gpt-4.1-mini"])
        assert len(server.asked) == 2


def test_a_router_does_not_send_it_to_the_stronger_route():
    """Its stronger route thinks no less."""
    prompts = [{"prompt": "Is it tea?", "task_type": "classification"}]
    with serving(THOUGHT_AWAY) as server:
        run = holynb.infer(prompts, ROUTE, router="task_type", schema=SCHEMA, api_base=server.base, max_tokens=512)
        with pytest.raises(holynb.InferError, match="went to thinking"):
            run.wait(30)
    assert [a.json["model"] for a in server.asked] == ["gpt-6-luna"]


@pytest.mark.parametrize(
    ("fallback", "moved"),
    [("openai/gpt-4.1-mini", True), ("openai/gpt-6-sol", False), ("openai/nobody-knows-it", False)],
)
def test_it_moves_to_a_route_that_thinks_less(fallback: str, moved: bool):
    def script(request: Asked) -> Sequence[Step]:
        return (THOUGHT_AWAY if request.json["model"] == "gpt-6-luna" else answer("tea"))(request)

    with serving(script) as server:
        row = ask(server, fallback=[fallback]).frame().iloc[0]
    if moved:
        assert (row["status"], row["text"], row["route"]) == ("ok", "tea", fallback)
        assert row["error"] == f"moved: openai/gpt-6-luna: {SPENT}"
    else:
        assert (row["error_type"], row["route"], row["attempts"]) == ("truncated", "openai/gpt-6-luna", 1)


def test_the_default_is_the_model_s_and_a_fallback_s_its_own():
    refused = reply({"error": {"message": "no", "type": "invalid_request_error"}}, 400)

    def script(request: Asked) -> Sequence[Step]:
        return [refused] if request.json["model"] == "gpt-6-luna" else answer("tea")(request)

    with serving(script) as server:
        ask(server, max_tokens=None, fallback=["openai/gpt-4.1-mini"])
        ask(server, max_tokens=100, fallback=["openai/gpt-4.1-mini"])
    limits = [a.json.get("max_completion_tokens") or a.json.get("max_tokens") for a in server.asked]
    assert limits == [8192, 2048, 100, 100]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_empty_with_a_normal_end_is_asked_for_once_more(stream: bool, schema: Any):
    with serving(answer(None)) as server:
        row = ask(server, stream=stream, schema=schema).frame().iloc[0]
    assert (row["status"], row["error_type"], row["finish_reason"], row["attempts"]) == ("error", "invalid_output", "stop", 2)
    assert [len(a.json["messages"]) for a in server.asked] == [1, 1], "not as a repair: there is nothing to repair"


def test_a_word_that_nobody_knows_is_told_beside_the_answer():
    with serving(answer("tea", "banana")) as server:
        row = ask(server).frame().iloc[0]
    assert (row["status"], row["text"], row["finish_reason"]) == ("ok", "tea", "other")
    assert '"banana"' in row["error"]


@pytest.mark.parametrize("reason", ["banana", "OTHER", "SAFETY", "RECITATION", "content_filter", "length", "tool_calls", "null"])
def test_without_text_no_reason_makes_it_an_answer(reason: str):
    for stream in (False, True):
        with serving(answer("", reason)) as server:
            row = ask(server, stream=stream, retries=1, cache=False).frame().iloc[0]
        assert row["status"] == "error"
        assert "; " in row["error"] or ": " in row["error"]


# -- the run log ---------------------------------------------------------------------------------------------------------


def test_the_same_request_comes_back_from_the_log_as_that_error():
    with serving(THOUGHT_AWAY) as server:
        first = ask(server, ["a", "b", "a"])
        again = ask(server, ["a", "b", "a"])
        assert len(server.asked) == 2
        row = again.frame().iloc[0]
        assert (row["status"], row["error_type"], row["finish_reason"], row["attempts"], row["cached"]) == (
            "error",
            "truncated",
            "length",
            0,
            True,
        )
        assert row["error"] == f"{SPENT} (from the run log; --refresh asks again)"
        assert row["cost"] == 0
        assert again.saved is not None
        assert again.saved > 0
        quoted = quote.quote(plan.make(["a", "b", "a"], ROUTE, Options.parse({"api_base": server.base, "max_tokens": 512})))
        assert (quoted.rows, quoted.answered) == (0, 3), "the dry run knows it, too"
        # Every change of the request asks anew, and so does --refresh.
        ask(server, ["a"], max_tokens=4096)
        ask(server, ["a"], refresh=True)
        ask(server, ["a"], temperature=0.5)
        assert len(server.asked) == 5
    assert first.frame()["cached"].tolist() == [False, False, False]


def test_run_all_under_one_name_pays_once():
    with serving(THOUGHT_AWAY) as server:
        rows = [ask(server, name="n").frame().iloc[0] for _ in range(4)]
    assert len(server.asked) == 1
    assert [r["error_type"] for r in rows] == ["truncated"] * 4
    assert [str(r["error"]).count("from the run log") for r in rows] == [0, 1, 1, 1]
    stored = runlog.log().answers(runlog.log().find("n").id)  # type: ignore[union-attr]
    assert [(o.attempts, o.cached) for _, o in stored.values()] == [(1, False)]


def test_only_failed_and_resume_send_what_may_be_answered():
    def script(request: Asked) -> Sequence[Step]:
        return THOUGHT_AWAY(request) if request.json["messages"][-1]["content"] == "a" else [reply({"error": {"message": "odd"}}, 400)]

    with serving(script) as server:
        ask(server, ["a", "b"], name="n", retries=0)
        for again in (resume.failed_again(), resume.resumed("n")):
            with pytest.raises(holynb.InferError):
                holynb.Run(again).start().wait(30)
    assert [a.json["messages"][-1]["content"] for a in server.asked].count("a") == 1
    assert len(server.asked) == 4


def test_without_the_cache_it_is_asked_again():
    with serving(THOUGHT_AWAY) as server:
        for _ in range(2):
            ask(server, cache=False)
    assert len(server.asked) == 2


def test_an_answer_that_came_later_counts():
    said = [THOUGHT_AWAY, answer("tea")]
    with Exact(lambda request, number: said[min(number, 1)](request)) as server:
        ask(server)
        ask(server, refresh=True)
        row = ask(server).frame().iloc[0]
    assert (row["text"], row["cached"], len(server.asked)) == ("tea", True, 2)


def test_after_the_cache_is_cleared_it_is_asked_again():
    with serving(THOUGHT_AWAY) as server:
        ask(server)
        runlog.log().clear()
        ask(server)
    assert len(server.asked) == 2


@pytest.mark.parametrize("script", [answer(""), lambda _: [streamed(sse(openai_chunk("te")))], answer("", "banana")])
def test_other_errors_are_never_taken_from_the_log(script: Any):
    """A stream that was cut is `truncated`, too: the next time it may be whole."""
    with serving(script) as server:
        ask(server, retries=0)
        before = len(server.asked)
        ask(server, retries=0)
    assert len(server.asked) == 2 * before


# -- rows in chunks ------------------------------------------------------------------------------------------------------


def by_part(script: Callable[[str], tuple[str, str]]) -> Exact:
    return serving(lambda request: answer(*script(request.json["messages"][-1]["content"]), usage=USED)(request))


def test_a_part_that_was_thought_away_ends_its_row_and_is_not_paid_again():
    with by_part(lambda text: ("", "length") if "K0005" in text else ("K", "stop")) as server:
        first = ask(server, [f"List.\n\n{book(8)}"], chunk="1000").frame().iloc[0]
        sent = len(server.asked)
        again = ask(server, [f"List.\n\n{book(8)}"], chunk="1000").frame().iloc[0]
        assert len(server.asked) == sent
    assert (first["status"], first["error_type"], first["finish_reason"]) == ("error", "truncated", "length")
    assert first["error"].startswith("part ")
    assert first["error"].endswith(SPENT)
    assert again["error"] == f"{first['error']} (from the run log; --refresh asks again)"


def test_a_part_that_was_cut_off_makes_its_row_one_that_was():
    with by_part(lambda text: ("K", "length" if "K0002" in text else "stop")) as server:
        run = ask(server, [f"List.\n\n{book(8)}"], chunk="1000")
        again = ask(server, [f"List.\n\n{book(8)}"], chunk="1000")
    for row in (run.frame().iloc[0], again.frame().iloc[0]):
        assert (row["status"], row["finish_reason"]) == ("ok", "length")
        assert "part " in row["error"]
        assert "raise --max-tokens" in row["error"]


# -- what a run says -----------------------------------------------------------------------------------------------------


def test_a_run_of_which_more_than_a_tenth_was_cut_off_says_so():
    with serving(lambda request: answer("tea", "length" if request.json["messages"][0]["content"] in "ab" else "stop")(request)) as server:
        run = ask(server, list("abcdefghijklmnopqrs"))
        fewer = ask(server, list("bcdefghijklmnopqrstu"))
    assert set(run.frame()["status"]) == {"ok"}
    assert run.summary().line().endswith("\n2 of 19 answers were cut off at the token limit: raise --max-tokens.")
    assert "length" not in fewer.summary().line()


def test_a_refusal_is_no_answer_on_any_wire():
    """OpenAI sends it in a field of its own beside `stop`, Anthropic as a reason to stop: labels and scores are made of neither."""

    def refuses(request: Asked) -> Sequence[Step]:
        message = {"content": None, "refusal": "I can't help with that."}
        if request.json.get("stream"):
            event = {"choices": [{"index": 0, "delta": message, "finish_reason": None}]}
            return [streamed(sse(event, openai_chunk(finish="stop"), "[DONE]"))]
        return [reply({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USED})]

    words = "the model refused (I can't help with that.): rephrase the prompt, or use another model"
    with serving(refuses) as server:
        for more in ({}, {"stream": True}, {"schema": SCHEMA}):
            run = ask(server, cache=False, **more)
            row = run.result().iloc[0]
            assert [row.status, row.error_type, row.error, row.finish_reason] == ["error", "content_filter", words, "refusal"], more
            assert row.attempts == 1
            assert row.isna()["text"]
        assert run.summary().errors["content_filter"] == 1
