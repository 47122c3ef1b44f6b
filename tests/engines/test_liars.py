"""Servers that send what no model writes: text without end, JSON nested without end, numbers and letters that no field holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import END, Exact, Step, chunk, reply, sse, stream_head, streamed
from servers.golden import OPENAI, WIRES, Golden, frame, frames, gemini_part, openai_chunk, response_delta

import holynb
from holynb.engines import answer, codec, openai, poolwire, servers
from holynb.errors import Fault
from holynb.types import Endpoint, Sampling

EVENT_STREAM = "text/event-stream"


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Golden:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "TESTTESTTEST1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[True, False], ids=["orjson", "json"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(codec, "orjson", None)


def at(server: Exact, wire: Golden) -> Endpoint:
    return endpoint(server.base + wire.path, wire.wire, options=wire.options)


def event(wire: Golden, value: Any) -> bytes:
    """One event of a stream of this wire."""
    if wire.wire == "bedrock":
        return frame(json.dumps(value).encode(), event_type="contentBlockDelta")
    return frame(sse(value)) if wire.wire == "sagemaker" else sse(value)


# -- without end -----------------------------------------------------------------------------------------------------------


def piece(wire: Golden, text: str) -> bytes:
    """A part of a streamed answer."""
    if wire.wire == "anthropic":
        return event(wire, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    if wire.wire.endswith("responses"):
        return event(wire, response_delta(text))
    if wire.wire == "bedrock":
        return event(wire, {"delta": {"text": text}})
    return event(wire, gemini_part(text) if wire.wire in ("gemini", "vertex") else openai_chunk(text))


def without_end(wire: Golden, part: bytes, times: int) -> Sequence[Step]:
    return [stream_head(wire.kind), *[chunk(part)] * times, END]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_far_longer_than_was_asked_for_is_given_up(wire: Golden, stream: bool):
    with Exact(without_end(wire, piece(wire, "x" * 10_000), 1000)) as server:
        fault = refuse(at(server, wire), request(stream=stream, sampling={"max_tokens": 20}))
    assert (fault.kind, fault.retry, fault.stops) == ("server", False, False)
    assert "sent more than 70,656 characters, far beyond what max_tokens allows" in fault.message


def test_thinking_without_end_is_given_up_by_its_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answer, "BYTES_AT_LEAST", 100_000)
    thought = openai_chunk()
    thought["choices"][0]["delta"] = {"reasoning_content": "hm " * 1000}
    for part in (sse(thought), b": keep-alive\n" * 300):
        with Exact([stream_head(), *[chunk(part)] * 3000, END]) as server:
            fault = refuse(endpoint(server.base), request(stream=True, sampling={"max_tokens": 20}))
        assert "sent more than 427,680 bytes" in fault.message


@pytest.mark.parametrize(("length", "max_tokens", "good"), [(70_000, 20, True), (71_000, 20, False), (71_000, 100, True)])
def test_a_server_that_counts_otherwise_is_heard_out(length: int, max_tokens: int, good: bool):
    body = sse(openai_chunk("x" * length), openai_chunk(finish="stop"), "[DONE]")
    with Exact([streamed(body)]) as server:
        sent = request(stream=True, sampling={"max_tokens": max_tokens})
        if good:
            assert len(ask(endpoint(server.base), sent)[1].text) == length
        else:
            assert "70,656 characters" in refuse(endpoint(server.base), sent).message


@pytest.mark.parametrize(
    ("sampling", "chars"),
    [
        (Sampling(max_tokens=2048), 2**16 + 256 * 2048),
        (Sampling(max_tokens=20, extra={"max_completion_tokens": 3000}), 2**16 + 256 * 3000),
        (Sampling(extra={"maxOutputTokens": 10}), 2**16 + 2560),
        (Sampling(), 2**24),
        (Sampling(max_tokens=10**9), 2**24),
    ],
)
def test_the_limit_follows_from_what_was_asked(sampling: Sampling, chars: int):
    assert answer.max_chars(sampling) == chars


def test_a_line_of_json_without_end(monkeypatch: pytest.MonkeyPatch):
    from holynb.engines import sagemaker

    monkeypatch.setattr(sagemaker, "MAX_LINE_BYTES", 1000)
    reader = sagemaker.EventStream("text")
    with pytest.raises(Fault, match="a line of more than 1,000 bytes"):
        for _ in range(20):
            reader.feed(frames(b'{"text": "' + b"x" * 100, size=200))


def nested(wire: Golden, deep: bytes) -> bytes:
    if wire.wire == "bedrock":
        return frame(deep, event_type="contentBlockDelta")
    return (frame if wire.wire == "sagemaker" else bytes)(b"data: " + deep + b"\n\n")


# -- nested without end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [500_000, 1_000, 600, 300])
@pytest.mark.parametrize(
    "shape", ['{"error": %s}', '{"choices": %s, "type": %s}', '{"error": {"code": %s, "message": %s, "details": [{"reason": %s}]}}', "%s"]
)
def test_json_nested_without_end_is_malformed_in_every_reader(wire: Golden, either_parser: None, depth: int, shape: str):
    deep = (shape.replace("%s", "[" * depth + "]" * depth)).encode()
    responses = [
        reply(deep, content_type="application/json"),
        reply(deep, 400, content_type="application/json", x_amzn_errortype="ModelError"),
        stream_head(wire.kind) + chunk(nested(wire, deep)) + END,
    ]
    for response in responses:
        with Exact([response]) as server:
            fault = refuse(at(server, wire))
        assert fault.kind in ("server", "bad_request", "truncated")
        assert len(fault.message) < 600
    with Exact(
        [
            stream_head("application/vnd.amazon.eventstream")
            + chunk(frame(deep, message_type="exception", exception_type="ModelError"))
            + END
        ]
    ) as server:
        if wire.wire in ("sagemaker", "bedrock"):
            assert refuse(at(server, wire)).kind == "bad_request"


def test_a_list_of_models_and_a_pool_may_lie_too(either_parser: None):
    deep = b"[" * 500_000
    for body in (deep, b"<html>", b"\xff\xfe"):
        with Exact([reply(body)]) as server, pytest.raises(Fault, match="not JSON"):
            asyncio.run(servers.models(endpoint(server.base)))
    with pytest.raises(Fault, match="not JSON"):
        poolwire.StreamFold().feed(b"data: " + deep)
    assert poolwire.refusal(deep, 500).kind == "server"


def test_a_deep_value_is_left_out_of_a_message(either_parser: None):
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert codec.excerpt(deep) == b""
    assert codec.excerpt({"a": "\ud800"}) == b'{"a":"\\ud800"}'


# -- numbers and letters ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("count", ["1" + "0" * 30, "9" * 5000, "NaN", "-1", "1e999", "true", '"7"', "9223372036854775808"])
def test_counts_that_are_none_leave_the_answer_alone(either_parser: None, count: str):
    body = json.dumps(OPENAI.whole).replace('"prompt_tokens": 20', f'"prompt_tokens": {count}').encode()
    with Exact([reply(body, content_type="application/json")]) as server:
        run = holynb.infer(["one"], "openai/gpt-4.1-mini", api_base=server.base, retries=0)
        try:
            run.wait(30)
        except holynb.InferError:
            assert len(count) == 5000, "a number that Python does not read"
        frame = run.frame()
    assert frame["tokens_in"].isna().all()
    assert frame["status"][0] in ("ok", "error")


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("status", [200, 429])
def test_half_characters_anywhere_can_be_kept(status: int):
    half = "\\ud83d"
    ok = json.dumps(OPENAI.whole).replace('"model": "', f'"model": "{half}').replace('"stop"', f'"st{half}op"')
    refused = f'{{"error": {{"message": "no {half}", "type": "a{half}", "code": "{half}", "param": "{half}"}}}}'
    with Exact([reply((ok if status == 200 else refused).encode(), status, content_type="application/json")]) as server:
        run = holynb.infer(["one"], "openai/gpt-4.1-mini", api_base=server.base, retries=0, deadline=1)
        try:
            run.wait(30)
        except holynb.InferError:
            assert status == 429
        frame = run.frame()
    frame.to_csv().encode()
    repr(list(run.journal.events_since(0))).encode("utf-8", "strict")


@pytest.mark.parametrize("field", ["message", "code", "type", "param"])
@pytest.mark.parametrize("value", [10**400, [[1]], {"a": None}, 1.5, float("nan"), True])
def test_fields_of_another_type_are_no_fault_of_ours(field: str, value: Any):
    body = json.dumps({"error": {"message": "no", "code": "c", "type": "t", field: value}}).encode()
    assert openai.classify(400, {}, body).kind == "bad_request"
    with pytest.raises(Fault):
        openai.Chat().feed(sse(json.loads(body)))


def test_an_end_that_follows_no_limit_is_still_an_end():
    with Exact([streamed(sse(openai_chunk("well"), openai_chunk(finish="stop"), "[DONE]"))]) as server:
        assert ask(endpoint(server.base), request(stream=True, sampling={"max_tokens": 1}))[1].text == "well"
