"""The OpenAI wire against exact bytes: every shape that real servers send, and the official SDK's types as the oracle of both directions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params
from pydantic import TypeAdapter
from servers.asking import KEY, ask, endpoint, hear, refuse, request, run
from servers.exact import END, EOF, RST, Asked, Exact, chunk, reply, sse, stream_head, streamed

from holynb.engines import finish, hosted, openai
from holynb.engines.classify import ErrorDetail
from holynb.errors import Fault
from holynb.types import Delta, Engine, Limits, Route, Usage

WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4.1-mini-2025-04-14",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "안녕하세요 🍵", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 20,
        "completion_tokens": 7,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}


def part(content: str | None = None, *, finish: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    body = {**({"content": content} if content is not None else {}), **delta}
    choices = [{"index": 0, "delta": body, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": choices,
        "usage": usage,
    }


USED = {**part(), "choices": [], "usage": WHOLE["usage"]}
STREAM = sse(part("", role="assistant"), part("안녕"), part("하세요"), part(" 🍵"), part(finish="stop"), USED, "[DONE]")


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "_traits_by_model", {})


def fold(*pieces: bytes) -> Any:
    answer = openai.Chat()
    texts = [answer.feed(piece) for piece in pieces]
    completion = answer.end()
    assert "".join(t or "" for t in texts) == completion.text
    return completion


# -- what goes out -------------------------------------------------------------------------------------------------------


def test_the_request_is_what_the_sdk_would_send():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    sampling = {"max_tokens": 64, "temperature": 0.5, "top_p": 0.9, "stop": ("END",), "seed": 7, "extra": {"reasoning_effort": "low"}}
    sent = request(stream=True, messages=[("system", "Be brief."), ("user", "안녕?")], sampling=sampling, schema=schema)
    body = openai.body(sent)
    assert body == {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "안녕?"}],
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    params = completion_create_params.CompletionCreateParamsStreaming
    TypeAdapter(params).validate_python(body)
    assert set(body) <= set(params.__annotations__) | set(completion_create_params.CompletionCreateParamsBase.__annotations__)


def test_what_is_not_said_is_not_sent():
    assert openai.body(request("hi")) == {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}
    assert openai.body(request("hi", sampling={"max_tokens": 9, "extra": {"max_completion_tokens": 5}})).get("max_tokens") is None


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "string"}, True),
        ({"type": "object", "properties": {}}, False),
        ({"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False}, False),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"], "additionalProperties": False},
            },
            False,
        ),
        ({"$defs": {"x": {"type": "object", "properties": {}, "additionalProperties": False}}, "anyOf": [{"$ref": "#/$defs/x"}]}, True),
    ],
)
def test_strict_only_where_the_schema_can_be(schema: dict[str, Any], strict: bool):
    assert openai.strict(schema) is strict


def test_address_and_headers():
    with Exact([reply(WHOLE)]) as server:
        ask(endpoint(f"{server.base}/v1"))
        sent = server.asked[0]
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.json["messages"][0]["content"] == "안녕?"


def test_no_key_sends_no_header():
    with Exact([reply(WHOLE)]) as server:
        ask(endpoint(f"{server.base}/v1"), key=None)
        assert "authorization" not in server.asked[0].headers


def test_a_lone_surrogate_in_a_prompt_goes_out_as_json():
    with Exact([reply(WHOLE)]) as server:
        ask(endpoint(server.base), request("a\ud800b"))
        assert server.asked[0].json["messages"][0]["content"] == "a\ud800b"


# -- whole answers -------------------------------------------------------------------------------------------------------


def test_a_whole_answer():
    ChatCompletion.model_validate(WHOLE)
    with Exact(
        [reply(WHOLE, x_ratelimit_limit_requests="600", x_ratelimit_remaining_requests="599", x_ratelimit_reset_requests="100ms")]
    ) as server:
        deltas, done = run(lambda engine: hear(engine, request()), endpoint(server.base))
    assert deltas == []
    assert done.completion.text == "안녕하세요 🍵"
    assert (done.completion.finish_reason, done.completion.model) == ("stop", "gpt-4.1-mini-2025-04-14")
    assert done.completion.usage == Usage(20, 7, 16, tokens_reasoning=3)
    assert done.limits == Limits(600, 599, 0.1)


def test_blank_lines_before_the_json_as_deepseek_sends_them_while_a_request_waits():
    body = b"\n\n\n" + json.dumps(WHOLE).encode()
    with Exact([stream_head("application/json"), chunk(b"\n"), 0.02, chunk(b"\n\n"), chunk(body), END]) as server:
        assert ask(endpoint(server.base))[1].text == "안녕하세요 🍵"


def answer(**changes: Any) -> Any:
    message = changes.pop("message", {"content": "x"})
    return {**WHOLE, "choices": [{"message": message, "finish_reason": "stop"} | changes.pop("choice", {})]} | changes


@pytest.mark.parametrize(
    ("value", "text", "finish", "counted"),
    [
        (answer(usage=None), "x", "stop", Usage()),
        (answer(usage={"prompt_tokens": 1}), "x", "stop", Usage(1)),
        (answer(usage={"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": None}), "x", "stop", Usage()),
        (
            answer(usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1}),
            "x",
            "stop",
            Usage(9, 2, 8),
        ),
        (
            answer(usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cache_write_tokens": 5}}),
            "x",
            "stop",
            Usage(9, 2, None, 5),
        ),
        (answer(usage=None, message={"content": None, "refusal": "No."}), "No.", "refusal", Usage()),
        (answer(usage=None, message={"content": None, "tool_calls": [{}]}, choice={"finish_reason": "tool_calls"}), "", "tool", Usage()),
        (answer(usage=None, message={"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}), "ab", "stop", Usage()),
        (answer(usage=None, choice={"finish_reason": None}), "x", "unknown", Usage()),
        (answer(usage=None, choice={"finish_reason": "length"}, error=None), "x", "length", Usage()),
        (answer(usage=None, message={"content": "a\ud83d\ude00b\ud800"}), "a😀b\ufffd", "stop", Usage()),
    ],
)
def test_shapes_of_a_whole_answer(value: Any, text: str, finish: str, counted: Usage):
    result = openai.read(value)
    assert (result.text, result.finish_reason, result.usage) == (text, finish, counted)


def test_the_oracle_reads_the_same_usage():
    theirs = ChatCompletion.model_validate(WHOLE).usage
    ours = openai.read(WHOLE).usage
    assert theirs is not None
    assert theirs.prompt_tokens_details is not None
    assert (ours.tokens_in, ours.tokens_out, ours.tokens_cached) == (
        theirs.prompt_tokens,
        theirs.completion_tokens,
        theirs.prompt_tokens_details.cached_tokens,
    )


# -- streams -------------------------------------------------------------------------------------------------------------


def test_a_stream():
    for event in STREAM.split(b"\n\n")[:-2]:
        ChatCompletionChunk.model_validate_json(event.removeprefix(b"data: "))
    with Exact([streamed(STREAM)]) as server:
        deltas, result = ask(endpoint(server.base), request(stream=True))
        assert server.asked[0].json["stream_options"] == {"include_usage": True}
    assert "".join(deltas) == result.text == "안녕하세요 🍵"
    assert (result.finish_reason, result.model, result.usage) == ("stop", "gpt-4.1-mini-2025-04-14", Usage(20, 7, 16, tokens_reasoning=3))


def test_the_golden_stream_cut_at_every_byte():
    whole = fold(STREAM)
    for i in range(len(STREAM) + 1):
        assert fold(STREAM[:i], STREAM[i:]) == whole, i
    assert fold(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == whole


def test_every_finish_reason_of_the_vendors_client_has_a_meaning():
    known = get_args(ChatCompletionChunk.model_fields["choices"].annotation)[0].model_fields["finish_reason"].annotation
    words = get_args(get_args(known)[0])
    assert "stop" in words
    assert [w for w in words if w not in finish.OPENAI] == []


def test_a_stream_that_ends_before_its_finish_reason_is_never_an_answer():
    """Whatever the cut: either the finish reason has come whole, or it is `truncated`."""
    finish = STREAM.index(b'"finish_reason": "stop"')
    ends = STREAM.index(b"\n\n", finish)
    for i in range(len(STREAM) + 1):
        answer = openai.Chat()
        answer.feed(STREAM[:i])
        if i < ends:
            with pytest.raises(Fault) as caught:
                answer.end()
            assert caught.value.kind == "truncated", i
        else:
            assert answer.end().text == "안녕하세요 🍵"


@pytest.mark.parametrize(
    ("events", "text", "finish", "counted"),
    [
        (
            [part("a", usage=None), part("b", finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 2}), "[DONE]"],
            "ab",
            "stop",
            Usage(1, 2),
        ),
        (
            [
                part("a", usage={"prompt_tokens": 1, "completion_tokens": 1}),
                part("b", finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 2}),
            ],
            "ab",
            "stop",
            Usage(1, 2),
        ),
        (
            [{"choices": [], "prompt_filter_results": [{}]}, part("a"), part(finish="stop"), {"choices": [], "usage": None}],
            "a",
            "stop",
            Usage(),
        ),
        ([part("a", reasoning_content=None), part(finish="length", obfuscation="xyz")], "a", "length", Usage()),
        ([part("a"), part(finish="stop"), {**part(usage={"prompt_tokens": 3})}, "[DONE]"], "a", "stop", Usage(3)),
        (
            [part("a"), {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}, part(finish="stop")],
            "a",
            "stop",
            Usage(),
        ),
        ([part(refusal="No."), part(finish="stop")], "No.", "refusal", Usage()),
    ],
)
def test_deviations_of_streams(events: Sequence[Any], text: str, finish: str, counted: Usage):
    result = fold(sse(*events))
    assert (result.text, result.finish_reason, result.usage) == (text, finish, counted)


def test_comments_and_empty_chunks_are_no_sign_of_work_but_thinking_is():
    chat = openai.Chat()
    assert chat.feed(b": keep-alive\n\n") is None
    assert chat.feed(sse(part("", role="assistant"))) is None
    assert chat.feed(sse({"choices": [], "usage": None})) is None
    assert chat.feed(sse(part(reasoning_content="hm"))) == ""
    assert chat.feed(sse(part(tool_calls=[{"index": 0}]))) == ""
    assert chat.feed(sse(part("a"))) == "a"


def test_a_surrogate_pair_in_two_events_is_one_character():
    events = (
        b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"\\ude00b"},"finish_reason":"stop"}]}\n\n'
    )
    assert fold(*events.split(b"\n\n")[:1], b"\n\n", events.split(b"\n\n")[1] + b"\n\n").text == "a😀b"
    assert openai.Chat().feed(events) == "a😀b"


@given(st.lists(st.text(), max_size=6))
def test_any_text_in_any_number_of_events(texts: list[str]):
    result = fold(sse(*(part(t) for t in texts), part(finish="stop")))
    assert result.text == "".join(texts)


def test_text_arrives_while_the_server_still_writes():
    async def first(engine: Engine) -> Any:
        stream = engine.send(request(stream=True), hosted.Timeouts())
        item = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return item

    with Exact([stream_head(), chunk(sse(part("early"))), 60.0]) as server:
        assert run(first, endpoint(server.base)) == Delta("early")


def test_streams_leave_their_connection_to_the_next_request():
    """Breaking off at [DONE] would open a connection for every answer."""

    async def ten(engine: Engine) -> None:
        for _ in range(10):
            await hear(engine, request(stream=True))

    with Exact([stream_head(), chunk(STREAM), 0.02, END]) as server:
        run(ten, endpoint(server.base))
        assert (len(server.asked), server.connections) == (10, 1)


@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b"", b": keep-alive\n\n"])
def test_a_finished_stream_that_stays_open_is_left_after_a_while(last: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hosted, "DRAIN_S", 0.1)
    with Exact([stream_head(), chunk(sse(part("a"), part(finish="stop"), USED) + last), 60.0]) as server:
        assert ask(endpoint(server.base), request(stream=True))[1].usage == Usage(20, 7, 16, tokens_reasoning=3)


@pytest.mark.parametrize("first", [[part(finish="stop")], [part("t", finish="stop"), part("e", finish="stop")]])
def test_a_reason_that_comes_before_the_last_word_ends_nothing(first: list[Any], monkeypatch: pytest.MonkeyPatch):
    """Relays of Gemini give `stop` with every piece, or with empty ones while a model still thinks."""
    monkeypatch.setattr(hosted, "DRAIN_S", 0.05)
    with Exact([stream_head(), chunk(sse(*first)), 0.2, chunk(sse(part("a", finish="stop"), "[DONE]")), END]) as server:
        assert ask(endpoint(server.base), request(stream=True))[1].text == ("a" if len(first) == 1 else "tea")


def test_a_break_after_the_last_word_costs_nothing():
    with Exact([stream_head(), chunk(STREAM), 0.05, RST]) as server:
        assert ask(endpoint(server.base), request(stream=True))[1].text == "안녕하세요 🍵"


def test_a_server_that_streams_unasked_or_not_though_asked():
    with Exact([streamed(STREAM)]) as server:
        assert ask(endpoint(server.base)) == ([], fold(STREAM))
    with Exact([reply(WHOLE)]) as server:
        deltas, result = ask(endpoint(server.base), request(stream=True))
        assert (deltas, result.text) == ([], "안녕하세요 🍵")


# -- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [EOF, RST, END])
def test_a_cut_stream_is_truncated(end: Any):
    with Exact([stream_head(), chunk(sse(part("half"))), 0.05, end]) as server:
        fault = refuse(endpoint(server.base), request(stream=True))
    assert (fault.kind, fault.retry, fault.stops) == ("truncated", True, False)


def test_done_without_a_finish_reason_is_truncated_and_keeps_its_usage():
    with Exact([streamed(sse(part("half"), USED, "[DONE]"))]) as server:
        fault = refuse(endpoint(server.base), request(stream=True))
    assert (fault.kind, fault.usage) == ("truncated", Usage(20, 7, 16, tokens_reasoning=3))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>", "server", "not JSON: 502 Bad Gateway"),
        (b'{"choices": [{"mess', "server", 'not JSON: {"choices"'),
        (b"", "server", "200, but with nothing"),
        (b"[]", "server", "no choices"),
        (b'"hello"', "server", "no choices"),
        (b'{"choices": []}', "server", "no choices"),
        (b'{"choices": [null]}', "server", "no choices"),
        (b'{"error": {"message": "upstream exploded", "code": 502}}', "server", "502: upstream exploded"),
        (b'{"error": "something"}', "server", "500: something"),
        (b'{"error": {"message": "slow down", "code": "429"}}', "rate_limit", "429: slow down"),
        (b'{"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "try later"}}}', "rate_limit", "try later"),
        (
            b'{"object": "error", "message": "context length is 1024", "type": "BadRequestError", "code": 400}',
            "context_length",
            "context length",
        ),
        (json.dumps(answer(choice={"finish_reason": "content_filter"})).encode(), "content_filter", "content filter"),
    ],
)
def test_a_200_that_is_no_answer(body: Any, kind: str, words: str):
    with Exact([reply(body, content_type="text/html" if isinstance(body, str) else "application/json")]) as server:
        fault = refuse(endpoint(server.base, provider="holysheep"))
    assert fault.kind == kind
    assert words in fault.message
    assert "holysheep" in fault.message


def test_half_a_json_by_length_is_truncated():
    whole = reply(WHOLE)
    with Exact([whole[:-30], EOF]) as server:
        assert refuse(endpoint(server.base)).kind == "truncated"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b'data: {"error": {"message": "The server is overloaded", "type": "server_error"}}\n\n', "server"),
        (b'event: error\ndata: {"message": "model crashed: CUDA out of memory"}\n\n', "oom"),
        (b'data: {"error": {"message": "limit", "code": "rate_limit_exceeded"}}\n\n', "rate_limit"),
        (b"data: {broken\n\n", "server"),
        (b"data: [1]\n\n", "server"),
        (b"data: " + b"x" * 5_000_000 + b"\n\n", "server"),
    ],
)
def test_an_error_in_the_middle_of_a_stream(event: bytes, kind: str):
    with Exact([stream_head(), chunk(sse(part("half"))), chunk(event), END]) as server:
        fault = refuse(endpoint(server.base), request(stream=True))
    assert fault.kind == kind


def test_a_filtered_stream_is_no_answer_and_says_what_it_cost():
    with Exact([streamed(sse(part("half"), part(finish="content_filter"), USED, "[DONE]"))]) as server:
        fault = refuse(endpoint(server.base), request(stream=True))
    assert (fault.kind, fault.retry, fault.usage) == ("content_filter", False, Usage(20, 7, 16, tokens_reasoning=3))


def test_an_error_after_usage_keeps_the_usage():
    with Exact(
        [streamed(sse(part("half", usage={"prompt_tokens": 5, "completion_tokens": 1})) + b'data: {"error": {"message": "x"}}\n\n')]
    ) as server:
        assert refuse(endpoint(server.base), request(stream=True)).usage == Usage(5, 1)


def test_a_refused_key_names_its_variable_and_the_page_and_nothing_of_it():
    body = {
        "error": {
            "message": f"Incorrect API key provided: {KEY}. ({KEY[:12]}****)",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    with Exact([reply(body, 401)]) as server:
        fault = refuse(
            endpoint(server.base, provider="holysheep", key_name="HOLYSHEEP_API_KEY", key_page="https://www.holysheep.ai/register")
        )
    assert (fault.kind, fault.retry, fault.stops, fault.status) == ("auth", False, True, 401)
    assert "holysheep refused the key in HOLYSHEEP_API_KEY" in fault.message
    assert "https://www.holysheep.ai/register" in fault.message
    assert "Incorrect API key provided: ***" in fault.message


def test_a_server_that_wants_a_key_where_none_was_set():
    with Exact([reply({"error": "Unauthorized"}, 401)]) as server:
        fault = refuse(endpoint(server.base, provider="vllm", key_name="VLLM_API_KEY"), key=None)
    assert "vllm needs a key, but none is set" in fault.message
    assert "VLLM_API_KEY" in fault.message


def test_a_wrong_address_says_so():
    with Exact([reply("<h1>404 Not Found</h1>", 404)]) as server:
        fault = refuse(endpoint(server.base))
        assert (fault.kind, fault.stops) == ("not_found", True)
        assert f"{server.base} has no model gpt-4.1-mini, or is not the right address" in fault.message
        assert fault.message.endswith(f"Should it be {server.base}/v1?")
        fault = refuse(endpoint(f"{server.base}/v1"))
        assert "(404: 404 Not Found)." in fault.message


def test_a_model_that_a_server_does_not_know_is_one_that_it_has_misspelt():
    with Exact([reply({"error": {"message": "The model `gpt-4.1-minni` does not exist", "code": "model_not_found"}}, 404)]) as server:
        fault = refuse(replace(endpoint(f"{server.base}/v1"), route=Route("openai", "gpt-4.1-minni")))
    assert fault.message.endswith("Did you mean openai/gpt-4.1-mini?")


def test_a_429_carries_wait_and_limits():
    body = {"error": {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    headers = {
        "retry_after": "7",
        "x_ratelimit_limit_requests": "60",
        "x_ratelimit_remaining_requests": "0",
        "x_ratelimit_reset_requests": "1m0s",
    }
    with Exact([reply(body, 429, **headers)]) as server:
        fault = refuse(endpoint(server.base))
    assert (fault.kind, fault.retry, fault.wait, fault.limits) == ("rate_limit", True, 7.0, Limits(60, 0, 60.0))


# -- what a refusal teaches ----------------------------------------------------------------------------------------------


def picky(*refused: str, message: str = "Unsupported parameter: '{0}' is not supported with this model.") -> Any:
    """A server that takes none of these parameters."""

    def script(incoming: Asked, number: int) -> Sequence[bytes]:
        for name in refused:
            if name in incoming.json:
                error = {"message": message.format(name), "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
                return [reply({"error": error}, 400)]
        return [reply(WHOLE)]

    return script


async def until_taken(engine: Engine, **sampling: Any) -> int:
    """Attempts, as the scheduler would make them."""
    for attempt in range(1, 6):
        try:
            await hear(engine, request(sampling=sampling))
        except Fault as fault:
            assert (fault.kind, fault.retry, fault.wait) == ("bad_request", True, 0.0)
        else:
            return attempt
    raise AssertionError("never taken")


def test_max_tokens_is_swapped_once_and_remembered_per_address_and_model():
    with Exact(picky("max_tokens")) as server:
        assert run(lambda e: until_taken(e, max_tokens=5), endpoint(server.base)) == 2
        assert run(lambda e: until_taken(e, max_tokens=5), endpoint(server.base)) == 1, "remembered after the engine was closed"
        assert [("max_tokens" in a.json, a.json.get("max_completion_tokens")) for a in server.asked] == [
            (True, None),
            (False, 5),
            (False, 5),
        ]
        assert run(lambda e: until_taken(e, max_tokens=5), endpoint(server.base, model="other")) == 2


def test_a_server_that_knows_only_the_old_name():
    with Exact(picky("max_completion_tokens", message="Extra inputs are not permitted: {0}")) as server:
        where = endpoint(server.base, options={"max_tokens": "max_completion_tokens"})
        assert run(lambda e: until_taken(e, max_tokens=5), where) == 2
        assert "max_tokens" in server.asked[1].json


def test_temperature_goes_too_where_a_model_refuses_it():
    with Exact(picky("max_tokens", "temperature")) as server:
        assert run(lambda e: until_taken(e, max_tokens=5, temperature=0.2, top_p=0.5), endpoint(server.base)) == 3
        assert "temperature" not in server.asked[2].json
        assert server.asked[2].json["top_p"] == 0.5


def test_a_server_that_takes_neither_name_is_not_asked_for_ever():
    with Exact(picky("max_tokens", "max_completion_tokens")) as server:

        async def twice(engine: Engine) -> list[bool]:
            seen = []
            for _ in range(3):
                with pytest.raises(Fault) as caught:
                    await hear(engine, request(sampling={"max_tokens": 5}))
                seen.append(caught.value.retry)
            return seen

        assert run(twice, endpoint(server.base)) == [True, False, False]


def test_requests_that_were_under_way_together_all_get_another_attempt():
    gate: list[Asked] = []

    class Until(list[bytes]):
        def __iter__(self) -> Any:
            while len(gate) < 3:
                yield 0.01
            yield refusal

    refusal = reply(
        {"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens", "code": "unsupported_parameter"}}, 400
    )

    def script(incoming: Asked, number: int) -> Any:
        gate.append(incoming)
        return Until() if "max_tokens" in incoming.json else [reply(WHOLE)]

    async def three(engine: Engine) -> list[bool]:
        result = await asyncio.gather(*(hear(engine, request(row=i, sampling={"max_tokens": 5})) for i in range(3)), return_exceptions=True)
        return [isinstance(f, Fault) and f.retry for f in result]

    with Exact(script) as server:
        assert run(three, endpoint(server.base)) == [True] * 3


@pytest.mark.parametrize(
    "reported",
    [
        ErrorDetail(
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
            "invalid_value",
            "invalid_request_error",
            "max_tokens",
        ),
        ErrorDetail("messages: Field required", "", "invalid_request_error", "messages"),
    ],
)
def test_other_bad_requests_teach_nothing(reported: ErrorDetail):
    error = {"message": reported.message, "code": reported.code, "type": reported.type, "param": reported.param}
    with Exact([reply({"error": error}, 400)]) as server:
        fault = refuse(endpoint(server.base))
    assert (fault.kind, fault.retry) == ("bad_request", False)
