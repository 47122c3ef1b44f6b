"""The Responses wire: what is sent, what is read, what it cannot say; the official SDK is the oracle of both."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from openai.types.responses import Response
from servers import golden
from servers.asking import KEY, ask, endpoint, hear, refuse, request, run
from servers.exact import Exact, reply, streamed
from servers.golden import OPENAI, RESPONSES, TEXT, openai_error, response, response_delta, response_events, response_message

import holynb
from holynb.engines import counts as counting
from holynb.engines import openai, responses
from holynb.errors import BadOption, Fault
from holynb.types import Completion, Usage

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ONLY = "This model is only supported in v1/responses and not in v1/chat/completions."


def read(*output: dict[str, Any], status: str | None = "completed", **more: Any) -> Completion:
    return responses.read(response(status, *output, **more))


def stream(*events: dict[str, Any]) -> Completion:
    reader = responses.ResponseEvents()
    reader.feed(response_events(*events))
    return reader.end()


def completed(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": response("completed", *output, **more)}


# -- out -----------------------------------------------------------------------------------------------------------------


def test_the_sdk_sends_the_same():
    turns = (("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "안녕?"))
    with Exact([reply(RESPONSES.whole)]) as server:
        client = OpenAI(api_key=KEY, base_url=f"{server.base}/v1", max_retries=0)
        theirs = client.responses.create(  # type: ignore[call-overload]
            model="gpt-4.1-mini",
            instructions="Be brief.",
            input=[{"role": role, "content": text} for role, text in turns[1:]],
            max_output_tokens=50,
            temperature=0.5,
            top_p=0.9,
            store=False,
            text={"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
        )
        client.close()
        sampling = {"max_tokens": 50, "temperature": 0.5, "top_p": 0.9}
        ours = ask(endpoint(f"{server.base}/v1", "responses"), request(messages=turns, sampling=sampling, schema=SCHEMA))[1]
        first, second = server.asked
    assert (first.path, first.json) == (second.path, second.json)
    assert first.headers["authorization"] == second.headers["authorization"]
    assert (ours.text, ours.usage.tokens_reasoning) == (theirs.output_text, theirs.usage.output_tokens_details.reasoning_tokens)


def test_the_sdk_reads_the_golden_bodies():
    assert Response.model_validate(RESPONSES.whole | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}).output_text == TEXT
    with Exact(RESPONSES.streamed()) as server:
        client = OpenAI(api_key=KEY, base_url=f"{server.base}/v1", max_retries=0)
        events = list(client.responses.create(model="m", input="x", stream=True))
        client.close()
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"


def test_nothing_is_kept_at_the_server_unless_it_is_asked_for():
    assert responses.body(request())["store"] is False
    assert responses.body(request(sampling={"extra": {"store": True}}))["store"] is True


def test_a_stream_says_so_and_asks_for_no_more():
    assert responses.body(request(stream=True)) == {
        "model": "gpt-4.1-mini",
        "input": [{"role": "user", "content": "안녕?"}],
        "store": False,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("messages", "extra", "prompt"),
    [
        ([("system", "s"), ("user", "u")], {}, {"instructions": "s", "input": ["user"]}),
        ([("system", "s"), ("system", "t"), ("user", "u")], {}, {"instructions": "s", "input": ["system", "user"]}),
        ([("user", "u"), ("system", "s"), ("user", "v")], {}, {"input": ["user", "system", "user"]}),
        ([("system", "s"), ("user", "u")], {"instructions": "mine"}, {"instructions": "mine", "input": ["system", "user"]}),
    ],
)
def test_no_turn_is_lost_or_moved(messages: Any, extra: dict[str, Any], prompt: dict[str, Any]):
    body = responses.body(request(messages=messages, sampling={"extra": extra}))
    assert {"instructions": body.get("instructions"), "input": [m["role"] for m in body["input"]]} == {"instructions": None, **prompt}


def test_a_field_beside_the_schema_does_not_cost_it():
    body = responses.body(request(schema=SCHEMA, sampling={"extra": {"text": {"verbosity": "low"}, "truncation": "auto"}}))
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["schema"] == SCHEMA
    assert body["truncation"] == "auto"


@pytest.mark.parametrize(
    ("think", "reasoning"),
    [(None, None), ("high", {"effort": "high", "summary": "auto"}), ("off", {"effort": "none"})],
)
@pytest.mark.parametrize("wire", ["responses", "azure-responses"])
def test_what_was_thought_is_asked_for_only_with_think(wire: str, think: Any, reasoning: Any):
    with Exact([reply(RESPONSES.whole)]) as server:
        ask(endpoint(server.base, wire), request(sampling={"think": think}, model="new"))
        assert server.asked[0].json.get("reasoning") == reasoning


def test_a_reasoning_field_of_ones_own_lies_over_it():
    body = responses.body(request(model="new", sampling={"think": "high", "extra": {"reasoning": {"summary": "detailed"}}}))
    assert body["reasoning"] == {"effort": "high", "summary": "detailed"}


def test_a_server_that_shows_no_summaries_is_asked_for_none_from_then_on():
    refused = openai_error(400, "Your organization must be verified to generate reasoning summaries.", "unsupported_value")

    async def two(engine: Any) -> None:
        with pytest.raises(Fault) as caught:
            await hear(engine, request(model="new", sampling={"think": "low"}))
        assert caught.value.retry
        await hear(engine, request(model="new", sampling={"think": "low"}))

    with Exact(lambda asked, n: [reply(RESPONSES.whole) if n else refused]) as server:
        run(two, endpoint(f"{server.base}/v1", "responses", model="new"))
        assert server.asked[1].json["reasoning"] == {"effort": "low"}


@pytest.mark.parametrize(("field", "value"), [("stop", ("x",)), ("seed", 7), ("seed", 0)])
def test_what_it_cannot_say_is_refused_and_nothing_is_sent(field: str, value: Any):
    with Exact([reply(RESPONSES.whole)]) as server:
        fault = refuse(endpoint(f"{server.base}/v1", "responses"), request(sampling={field: value}))
        assert server.asked == []
    assert (fault.kind, fault.retry, fault.stops) == ("bad_request", False, False)
    assert f"has no --{field}: run the cell without" in fault.message


@pytest.mark.parametrize("option", [{"stop": ["x"]}, {"seed": 7}])
def test_a_plan_says_it_before_the_first_row(option: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(BadOption, match=rf"--{next(iter(option))} cannot be sent to openai/o3-pro"):
        holynb.infer(["a"], "openai/o3-pro", **option)


@pytest.mark.parametrize(
    ("message", "param", "code", "trait"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature", None, "no temperature"),
        (
            "Your organization must be verified to generate reasoning summaries.",
            "reasoning.summary",
            "unsupported_value",
            "no thoughts",
        ),
        ("Unsupported value: 'x' is not supported with this model.", "text", "unsupported_value", None),
    ],
)
def test_what_a_model_refuses_is_left_out_from_then_on(message: str, param: str, code: str | None, trait: str | None):
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    fault = openai.classify(400, {}, json.dumps(body).encode())
    assert responses.adapt(frozenset(), fault) == ({trait} if trait else frozenset())


def test_a_trait_leaves_the_field_out_and_no_other():
    sent = request(sampling={"temperature": 1.0, "top_p": 0.5})
    assert "temperature" not in responses.body(sent, frozenset({"no temperature"}))
    assert responses.body(sent, frozenset({"no temperature"}))["top_p"] == 0.5


# -- in ------------------------------------------------------------------------------------------------------------------


def test_parts_are_joined_as_the_sdk_joins_them():
    items = response_message("a", "b"), {"id": "ws_1", "type": "web_search_call", "status": "completed"}, response_message("c")
    value = response("completed", *items, parallel_tool_calls=True, tool_choice="auto", tools=[])
    value["output"][1]["action"] = {"type": "search", "query": "q"}
    assert responses.read(value).text == Response.model_validate(value).output_text == "abc"


def test_a_refusal_is_one():
    item = {**response_message(), "content": [{"type": "refusal", "refusal": "I won't."}]}
    whole = read(item)
    piecewise = stream(response_delta("I ", "refusal"), response_delta("won't.", "refusal"), completed(item))
    assert [(a.text, a.finish_reason) for a in (whole, piecewise)] == [("I won't.", "refusal")] * 2


def test_an_answer_that_only_calls_a_tool_ended_by_it():
    call = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    added = {"type": "response.output_item.added", "item": call}
    arguments = {"type": "response.function_call_arguments.delta", "delta": "{}"}
    assert read(call).finish_reason == stream(added, arguments, completed(call)).finish_reason == "tool"
    assert read(call, response_message("and text")).finish_reason == "stop"


def test_what_was_thought():
    item = {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": t} for t in ("first", "then")]}
    added = {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}}
    deltas = [added, *(response_delta(t, "reasoning_summary_text") for t in ("fi", "rst")), added]
    events = [*deltas, response_delta("then", "reasoning_summary_text"), response_delta("x"), completed(item, response_message("x"))]
    for answer in (read(item, response_message("x")), stream(*events)):
        assert (answer.reasoning, answer.thinking, answer.text) == ("first\n\nthen", True, "x")
    raw = {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert read(raw, response_message("x")).reasoning == "hm"
    assert stream(response_delta("hm", "reasoning_text"), response_delta("x"), completed(raw)).reasoning == "hm"
    assert read(response_message("x")).reasoning is None
    assert not read(response_message("x")).thinking


def test_thinking_and_tools_are_progress_without_text():
    reader = responses.ResponseEvents()
    for event in (response_delta("hm", "reasoning_text"), {"type": "response.web_search_call.searching", "item_id": "ws"}):
        assert reader.feed(response_events(event)) == ""
    assert reader.feed(response_events({"type": "response.in_progress", "response": response("in_progress")})) is None


def test_the_tier_that_served_it():
    assert read(response_message("x"), service_tier="flex").tier == "flex"
    assert stream(response_delta("x"), completed(service_tier="priority")).tier == "priority"
    assert read(response_message("x"), service_tier=None).tier is None
    assert responses.body(request(tiers=("flex",)))["service_tier"] == "flex"
    created = {"type": "response.created", "response": response("in_progress", service_tier="auto")}
    assert stream(created, response_delta("x"), completed(service_tier="default")).tier == "default"


def test_a_cut_answer_has_its_length_as_reason_and_its_usage():
    details = {"incomplete_details": {"reason": "max_output_tokens"}, "usage": golden._RESPONSE_USED}
    whole = read(response_message("half"), status="incomplete", **details)
    ended = {"type": "response.incomplete", "response": response("incomplete", **details)}
    for answer in (whole, stream(response_delta("half"), ended)):
        assert (answer.text, answer.finish_reason, answer.usage) == ("half", "length", RESPONSES.usage)


def test_what_made_an_answer_incomplete_counts_before_that_it_is():
    filtered = {"incomplete_details": {"reason": "content_filter"}, "usage": golden._RESPONSE_USED}
    with pytest.raises(Fault) as whole:
        read(response_message("half"), status="incomplete", **filtered)
    with pytest.raises(Fault) as piecewise:
        stream(response_delta("half"), {"type": "response.incomplete", "response": response("incomplete", **filtered)})
    assert [(f.kind, f.usage) for f in (whole.value, piecewise.value)] == [("content_filter", RESPONSES.usage)] * 2


def test_an_incomplete_answer_that_does_not_say_why_was_cut():
    for details in (None, {}, {"reason": None}, "odd"):
        answer = read(response_message("half"), status="incomplete", incomplete_details=details)
        assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [
        ("server_error", "server", True),
        ("rate_limit_exceeded", "rate_limit", True),
        ("invalid_prompt", "bad_request", False),
        ("bio_policy", "bad_request", False),
        ("something_new", "server", True),
        (None, "server", True),
    ],
)
def test_a_failed_response_is_a_fault_that_costs(code: str | None, kind: str, retry: bool):
    value = response("failed", error={"code": code, "message": "It failed."}, usage=golden._RESPONSE_USED)
    with pytest.raises(Fault) as whole:
        responses.read(value)
    with pytest.raises(Fault) as piecewise:
        stream(response_delta("x"), {"type": "response.failed", "response": value})
    for fault in (whole.value, piecewise.value):
        assert (fault.kind, fault.retry, fault.usage) == (kind, retry, RESPONSES.usage)


def test_an_error_event_has_the_code_of_openai():
    error = {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down.", "param": None, "sequence_number": 3}
    with pytest.raises(Fault) as caught:
        stream(response_delta("x"), error)
    assert caught.value.kind == "rate_limit"


def test_what_works_on_in_the_background_is_no_answer():
    for status in ("queued", "in_progress"):
        with pytest.raises(Fault, match="leave out -p background"):
            read(status=status)


def test_a_gateways_only_event_is_the_answer():
    answer = stream(completed(response_message("whole")))
    assert (answer.text, answer.finish_reason) == ("whole", "stop")


def test_a_second_response_in_one_body_is_not_read():
    answer = stream(response_delta("a"), completed(), response_delta("b"), completed())
    assert answer.text == "a"


def test_another_protocol_is_told():
    for value in (OPENAI.whole, {}, [], None, {"output": "text"}):
        with pytest.raises(Fault, match="200, but"):
            responses.read(value)
    reader = responses.ResponseEvents()
    with pytest.raises(Fault, match="does not belong to a response"):
        reader.feed(OPENAI.stream)


WILD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("status", "error", "incomplete_details", "output", "usage", "model", "service_tier")


@given(st.sampled_from(FIELDS), WILD, st.booleans())
def test_any_field_may_be_anything(field: str, value: Any, whole: bool):
    changed = response("completed", response_message("x")) | {field: value}
    try:
        answer = responses.read(changed) if whole else stream(response_delta("x"), {"type": "response.completed", "response": changed})
    except Fault:
        return
    assert isinstance(answer.text, str)
    assert answer.tier is None or isinstance(answer.tier, str)


@given(st.lists(WILD, max_size=3), WILD)
def test_any_item_and_any_event_may_be_anything(items: list[Any], delta: Any):
    kinds = ("message", "reasoning", "function_call")
    output = [*items, *({"type": k, "content": items, "summary": items} for k in kinds), {"type": "message", "content": delta}]
    for use in (
        lambda: responses.read(response("completed", *output)),
        lambda: stream({"type": "response.output_text.delta", "delta": delta}, completed(*output)),
        lambda: stream({"type": "response.reasoning_text.delta", "delta": delta, "item": items}, completed(*output)),
        lambda: stream({"type": delta, "item": items, "response": delta}),
    ):
        with contextlib.suppress(Fault):
            assert isinstance(use().text, str)


@given(st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"]), WILD))
def test_counts_are_counts_or_none(counts: dict[str, Any]):
    usage = responses.usage(counts)
    assert all(
        n is None or (type(n) is int and 0 <= n < 2 * counting.MAX_COUNT) for n in (usage.tokens_in, usage.tokens_out, usage.tokens_cached)
    )


def test_usage_is_copied_and_nothing_is_added():
    assert responses.usage(golden._RESPONSE_USED) == Usage(20, 7, 16, 0, tokens_reasoning=3)
    assert responses.usage({"input_tokens": 1}) == Usage(1)


# -- which of the two protocols ------------------------------------------------------------------------------------------


def either(server: Exact, model: str) -> Any:
    return endpoint(f"{server.base}/v1", model=model)


def both(asked: Any, number: int) -> list[Any]:
    """A server whose model has no chat completions."""
    chat = openai_error(404, ONLY, None, "invalid_request_error")
    return [reply(RESPONSES.whole) if asked.path.endswith("/responses") else chat]


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, ONLY, None),
        (
            404,
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use v1/completions?",
            None,
        ),
        (
            400,
            "The chatCompletion operation does not work with the specified model, gpt-5-codex. Please choose different model and try again.",
            "OperationNotSupported",
        ),
    ],
)
@pytest.mark.parametrize("wire", ["openai", "azure"])
def test_a_server_that_says_so_is_asked_over_responses_from_then_on(wire: str, status: int, message: str, code: str | None):
    def script(asked: Any, number: int) -> list[Any]:
        refused = openai_error(status, message, code, "invalid_request_error")
        return [reply(RESPONSES.whole) if asked.path.endswith("/responses") else refused]

    async def three(engine: Any) -> list[Any]:
        with pytest.raises(Fault) as caught:
            await hear(engine, request(model="new"))
        assert (caught.value.retry, caught.value.stops, caught.value.wait) == (True, False, 0.0)
        return [(await hear(engine, request(model="new")))[1].completion.text for _ in range(2)]

    with Exact(script) as server:
        where = endpoint(server.base if wire == "azure" else f"{server.base}/v1", wire, model="new")
        assert run(three, where) == [TEXT, TEXT]
        paths = [a.path.rpartition("/v1/")[2] for a in server.asked]
        assert paths == ["chat/completions", "responses", "responses"]
        ask(where, request(model="new"))  # another run's engine knows it, too
        assert server.asked[-1].path.endswith("/v1/responses")


def test_a_run_of_such_a_model_answers_every_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Exact(both) as server:
        asked = holynb.infer(["a", "b", "c"], "openai/gpt-9-pro", api_base=f"{server.base}/v1", concurrency=1, stream=False)
        rows = asked.wait().rows()
        paths = [a.path for a in server.asked]
    assert [row.text for row in rows] == [TEXT] * 3
    assert paths == ["/v1/chat/completions"] + ["/v1/responses"] * 3


def test_a_missing_model_is_still_missing():
    with Exact([openai_error(404, "The model `x` does not exist", "model_not_found", "invalid_request_error")]) as server:
        fault = refuse(either(server, "x"))
    assert (fault.kind, fault.retry, fault.stops) == ("not_found", False, True)


def test_a_server_without_responses_is_told_what_to_set():
    with Exact([reply({"detail": "Not Found"}, 404)]) as server:
        fault = refuse(endpoint(f"{server.base}/v1", "responses", provider="mine"))
    assert '[provider.mine] wire = "openai"' in fault.message


def test_a_stream_of_such_a_model_is_streamed():
    with Exact([streamed(RESPONSES.stream)]) as server:
        deltas, answer = ask(endpoint(f"{server.base}/v1", "responses"), request(stream=True))
    assert ("".join(deltas), answer.reasoning) == (TEXT, "hm")


# -- a gateway that leaves pieces out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["", None, []])
@pytest.mark.parametrize("kind", ["output_text", "refusal"])
def test_an_empty_piece_costs_no_answer(nothing: Any, kind: str):
    answer = stream(response_delta(nothing, kind), completed(response_message(TEXT)))
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize("output", [[], None])
def test_items_that_came_count_where_the_last_event_leaves_them_out(output: Any):
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    done = [{"type": "response.output_item.done", "item": item} for item in (thought, response_message(TEXT))]
    answer = stream(*done, {"type": "response.completed", "response": response() | {"output": output}})
    assert (answer.text, answer.reasoning, answer.finish_reason) == (TEXT, "hm", "stop")


def test_thoughts_that_come_with_the_last_event_alone_are_kept():
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    answer = stream(response_delta("a"), completed(thought, response_message("a")))
    assert (answer.text, answer.reasoning) == ("a", "hm")
    told = stream(response_delta("hm", "reasoning_summary_text"), response_delta("a"), completed(thought, response_message("a")))
    assert (told.text, told.reasoning) == ("a", "hm")


@pytest.mark.parametrize("later", [None, {}, 5, []])
def test_what_a_stream_cost_outlasts_a_later_event_that_says_less(later: Any):
    counted = {"type": "response.in_progress", "response": response("in_progress", usage={"input_tokens": 5, "output_tokens": 9})}
    assert stream(counted, response_delta("a"), completed(usage=later)).usage == Usage(5, 9)
