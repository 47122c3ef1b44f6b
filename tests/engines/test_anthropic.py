"""The Anthropic wire: what goes out, how tokens are counted, and the official SDK as oracle."""

from __future__ import annotations

from typing import Any, get_args

import anthropic as sdk
import pytest
from anthropic.types import message_create_params
from pydantic import TypeAdapter
from servers import golden
from servers.asking import KEY, ask, endpoint, hear, refuse, request, run
from servers.exact import Asked, Exact, reply, streamed

from holynb.engines import anthropic, hosted
from holynb.engines import finish as finishes
from holynb.errors import Fault
from holynb.types import Limits, Usage


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "_traits_by_model", {})


def test_the_request_is_what_the_sdk_would_take():
    turns = [("system", "Be brief."), ("user", "a"), ("user", "b"), ("assistant", "c"), ("system", "In Korean."), ("user", "d")]
    schema = {"type": "object", "properties": {}}
    sampling = {"max_tokens": 64, "stop": ("END",), "seed": 7, "temperature": 0.5, "top_p": 0.9, "extra": {"metadata": {"user_id": "u"}}}
    body = anthropic.body(request(messages=turns, stream=True, sampling=sampling, schema=schema))
    assert body == {
        "model": "gpt-4.1-mini",
        "max_tokens": 64,
        "system": "Be brief.\n\nIn Korean.",
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "messages": [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "metadata": {"user_id": "u"},
        "stream": True,
    }
    known = {
        k: v for k, v in body.items() if k not in ("temperature", "top_p")
    }  # this SDK has dropped them; the servers of older models have not
    TypeAdapter(message_create_params.MessageCreateParamsStreaming).validate_python(known)
    assert set(known) <= set(message_create_params.MessageCreateParamsStreaming.__annotations__)


def test_max_tokens_is_always_there():
    assert anthropic.body(request())["max_tokens"] == 2048


@pytest.mark.parametrize("suffix", ["", "/v1"])
def test_address_and_headers(suffix: str):
    with Exact([reply(golden.ANTHROPIC.whole)]) as server:
        ask(endpoint(server.base + suffix, "anthropic"))
        sent = server.asked[0]
    assert sent.path == "/v1/messages"
    assert (sent.headers["x-api-key"], sent.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in sent.headers


def test_the_sdk_asks_the_same_and_reads_the_same():
    with Exact([reply(golden.ANTHROPIC.whole)]) as server:
        client = sdk.Anthropic(api_key=KEY, base_url=server.base, max_retries=0)
        theirs = client.messages.create(
            model="gpt-4.1-mini", max_tokens=9, system="Be brief.", messages=[{"role": "user", "content": "안녕?"}]
        )
        client.close()
        ours = ask(
            endpoint(server.base, "anthropic"), request(messages=[("system", "Be brief."), ("user", "안녕?")], sampling={"max_tokens": 9})
        )[1]
        first, second = server.asked
    assert (first.path, first.json) == (second.path, second.json)
    assert ours.text == theirs.content[-1].text  # type: ignore[union-attr]
    assert ours.usage.tokens_in == theirs.usage.input_tokens + (theirs.usage.cache_read_input_tokens or 0) + (
        theirs.usage.cache_creation_input_tokens or 0
    )


def test_the_sdk_reads_the_golden_stream():
    with Exact(golden.ANTHROPIC.streamed()) as server:
        client = sdk.Anthropic(api_key=KEY, base_url=server.base, max_retries=0)
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as stream:
            assert "".join(stream.text_stream) == golden.TEXT
            assert stream.get_final_message().usage.output_tokens == 7
        client.close()


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"input_tokens": 5, "output_tokens": 2}, Usage(5, 2)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 2,
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 7},
            },
            Usage(14, 2, None, 9, tokens_cache_write_1h=7),
        ),
        ({"input_tokens": 5, "output_tokens": 2, "cache_creation": [7]}, Usage(5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 0, "cache_creation_input_tokens": None}, Usage(5, 2, 0)),
        ({"output_tokens": 2}, Usage(None, 2)),
        ({}, Usage()),
        (None, Usage()),
    ],
)
def test_counts(reported: Any, expected: Usage):
    assert anthropic.usage(reported) == expected


def test_every_stop_reason_of_the_vendors_client_has_a_meaning():
    words = get_args(sdk.types.StopReason)
    assert "end_turn" in words
    assert [w for w in words if w not in finishes.ANTHROPIC] == []


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_finish_reasons(reason: str, finish: str):
    assert anthropic.read({"content": [{"type": "text", "text": "x"}], "stop_reason": reason}).finish_reason == finish


def test_thinking_and_tools_are_signs_of_work_and_pings_are_none():
    fold = anthropic.Messages()
    assert fold.feed(golden.anthropic_events({"type": "ping"})) is None
    assert (
        fold.feed(
            golden.anthropic_events({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}})
        )
        == ""
    )
    assert (
        fold.feed(
            golden.anthropic_events({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}})
        )
        == ""
    )
    assert (
        fold.feed(golden.anthropic_events({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}})) == "a"
    )


@pytest.mark.parametrize(
    ("kind", "ours", "retry", "stops"),
    [
        ("overloaded_error", "server", True, False),
        ("rate_limit_error", "rate_limit", True, False),
        ("authentication_error", "auth", False, True),
        ("billing_error", "quota", False, True),
        ("invalid_request_error", "bad_request", False, False),
        ("api_error", "server", True, False),
    ],
)
def test_errors_inside_a_200_stream(kind: str, ours: str, retry: bool, stops: bool):
    events = golden.anthropic_events(
        {"type": "message_start", "message": golden._MESSAGE}, {"type": "error", "error": {"type": kind, "message": "x"}}
    )
    with Exact([streamed(events)]) as server:
        fault = refuse(endpoint(server.base, "anthropic"), request(stream=True))
    assert (fault.kind, fault.retry, fault.stops) == (ours, retry, stops)
    assert fault.usage == Usage(20, 1, 10, 6), "what message_start counted is paid for"


@pytest.mark.parametrize(
    ("status", "error", "kind", "stops"),
    [
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}, "quota", True),
        (429, {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}}, "quota", True),
        (403, {"type": "permission_error", "message": "Your API key does not have permission"}, "auth", True),
        (404, {"type": "not_found_error", "message": "model: claude-9"}, "not_found", True),
        (413, {"type": "request_too_large", "message": "Request exceeds the maximum size"}, "context_length", False),
        (500, {"type": "api_error", "message": "Internal server error"}, "server", False),
        (504, {"type": "timeout_error", "message": "Request timed out"}, "timeout", False),
    ],
)
def test_refusals(status: int, error: dict[str, Any], kind: str, stops: bool):
    with Exact([reply({"type": "error", "error": error}, status)]) as server:
        fault = refuse(endpoint(server.base, "anthropic"))
    assert (fault.kind, fault.stops) == (kind, stops)


def test_limits_come_with_the_answer():
    headers = {
        "anthropic_ratelimit_requests_limit": "50",
        "anthropic_ratelimit_requests_remaining": "49",
        "anthropic_ratelimit_requests_reset": "30",
    }
    with Exact([reply(golden.ANTHROPIC.whole, **headers)]) as server:
        done = run(lambda engine: hear(engine, request()), endpoint(server.base, "anthropic"))[1]
    assert done.limits == Limits(50, 49, 30.0)


def test_newer_models_take_no_temperature():
    def script(incoming: Asked, number: int) -> list[bytes]:
        if "temperature" in incoming.json:
            return [golden.anthropic_error(400, "invalid_request_error", "`temperature` is not supported for this model")]
        return [reply(golden.ANTHROPIC.whole)]

    async def twice(engine: Any) -> str:
        with pytest.raises(Fault) as caught:
            await hear(engine, request(sampling={"temperature": 0.2}))
        assert (caught.value.retry, caught.value.wait) == (True, 0.0)
        return str((await hear(engine, request(sampling={"temperature": 0.2})))[1].completion.text)

    with Exact(script) as server:
        assert run(twice, endpoint(server.base, "anthropic")) == golden.TEXT


def test_of_two_that_exclude_each_other_one_is_left_out():
    """Claude 4.5, as relays and Bedrock pass it on: aws-samples/bedrock-access-gateway#191."""
    message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    learned = anthropic.WIRE.adapt(frozenset(), Fault("bad_request", message, status=400))
    body = anthropic.body(request(sampling={"temperature": 0.5, "top_p": 0.5}), learned)
    assert ("temperature" in body, "top_p" in body) == (True, False)
