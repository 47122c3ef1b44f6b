"""The end of a prompt's beginning, marked on each wire: with the official SDKs' types as oracle, and the text of the prompt as it was."""

from __future__ import annotations

from typing import Any

import anthropic as claude_sdk
import botocore.session
import botocore.validate
import pytest
from anthropic.types import message_create_params
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter
from servers.asking import request

from holynb.cache_mark import CacheMark
from holynb.engines import anthropic, bedrock, openai, responses
from holynb.engines.cache_marks import learned
from holynb.errors import Fault
from holynb.types import Message, Request, Route

assert claude_sdk

HEAD, REST = "All of the rules.\n\nQuestion:", " why?"
TURNS = (("system", "Be brief."), ("user", HEAD + REST))
AT_HEAD, AT_SYSTEM = CacheMark(1, len(HEAD), "k"), CacheMark(0, len("Be brief."), "k")


def sent(route: str, mark: CacheMark | None, messages: Any = TURNS, **options: Any) -> Request:
    turns = tuple(Message(role, text) for role, text in messages)
    return Request(0, turns, Route.parse(route), cache=mark, **options)


def test_anthropic_marks_the_block_that_ends_there():
    control = {"cache_control": {"type": "ephemeral"}}
    body = anthropic.body(sent("anthropic/claude-sonnet-4-6", AT_HEAD))
    assert body["system"] == "Be brief."
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": HEAD, **control}, {"type": "text", "text": REST}]}]
    TypeAdapter(message_create_params.MessageCreateParamsNonStreaming).validate_python(body)
    hour = anthropic.body(sent("anthropic/claude-sonnet-4-6", CacheMark(0, 9, "k", hour=True)))
    assert hour["system"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert hour["messages"] == [{"role": "user", "content": HEAD + REST}]
    TypeAdapter(message_create_params.MessageCreateParamsNonStreaming).validate_python(hour)


@pytest.mark.parametrize(("mark", "place"), [(AT_HEAD, "content"), (AT_SYSTEM, "system")])
def test_bedrock_has_a_cache_point_there(mark: CacheMark, place: str):
    body = bedrock.body(sent("bedrock/us.anthropic.claude-sonnet-4-6", mark))
    point = {"cachePoint": {"type": "default"}}
    where = body["system"] if place == "system" else body["messages"][0]["content"]
    assert where == ([{"text": "Be brief."}, point] if place == "system" else [{"text": HEAD}, point, {"text": REST}])
    shape = botocore.session.Session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    assert not botocore.validate.ParamValidator().validate({**body, "modelId": "m"}, shape).has_errors()
    unsaid = bedrock.body(sent("bedrock/us.anthropic.claude-sonnet-4-6", mark), frozenset({"no system"}))
    assert "cachePoint" not in str(unsaid)


def test_openai_s_newer_models_write_what_is_marked_and_nothing_else():
    body = openai.body(sent("openai/gpt-6-luna", AT_HEAD))
    assert body["prompt_cache_key"] == "k"
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    first = {"type": "text", "text": HEAD, "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert body["messages"][1] == {"role": "user", "content": [first, {"type": "text", "text": REST}]}
    TypeAdapter(chat_params.CompletionCreateParamsNonStreaming).validate_python(body)
    spared = openai.body(sent("openai/gpt-6-luna", CacheMark(-1)))
    assert spared["prompt_cache_options"] == {"mode": "explicit"}
    assert spared["messages"][1]["content"] == HEAD + REST
    assert "prompt_cache_key" not in spared


@pytest.mark.parametrize("route", ["openai/gpt-5.4", "azure/my-deployment"])
def test_openai_s_older_models_are_told_what_belongs_together(route: str):
    plain, body = openai.body(sent(route, None)), openai.body(sent(route, AT_HEAD))
    assert body == plain | {"prompt_cache_key": "k"}


def test_responses_take_a_mark_in_their_input_alone():
    body = responses.body(sent("openai/gpt-6-luna", AT_HEAD))
    first = {"type": "input_text", "text": HEAD, "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert body["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [first, {"type": "input_text", "text": REST}]},
    ]
    assert "instructions" not in body
    TypeAdapter(response_create_params.ResponseCreateParamsNonStreaming).validate_python(body)
    assert responses.body(sent("openai/o3-pro", AT_HEAD))["instructions"] == "Be brief."


def test_openrouter_passes_anthropic_s_mark_on():
    body = openai.body(sent("openrouter/anthropic/claude-sonnet-4.6", AT_HEAD))
    assert body["messages"][1]["content"][0] == {"type": "text", "text": HEAD, "cache_control": {"type": "ephemeral"}}
    assert "prompt_cache_key" not in body
    assert openai.body(sent("openrouter/qwen/qwen3-32b", AT_HEAD)) == openai.body(sent("openrouter/qwen/qwen3-32b", None))


@pytest.mark.parametrize("wire", [anthropic, bedrock, openai])
def test_a_piece_that_would_be_blank_is_not_cut_off(wire: Any):
    blank = (("system", "Be brief."), ("user", HEAD + "  \n"))
    for route in ("anthropic/claude-sonnet-4-6", "openai/gpt-6-luna"):
        body = wire.body(sent(route, AT_HEAD, blank))
        assert HEAD + "  \n" in str(body).replace("\\n", "\n")


roles = st.sampled_from(["user", "user", "assistant"])


@given(st.lists(st.tuples(roles, st.text("ab \n", min_size=1).filter(str.strip)), min_size=1, max_size=6), st.booleans(), st.data())
def test_wherever_the_mark_falls_the_prompt_is_the_same(turns: list[tuple[str, str]], system: bool, data: st.DataObject):
    messages = [*([("system", "rules of it")] if system else []), *turns]
    turn = data.draw(st.integers(0, len(messages) - 1))
    mark = CacheMark(turn, data.draw(st.integers(1, len(messages[turn][1]))), "k")
    for wire, route in (
        (anthropic, "anthropic/claude-sonnet-4-6"),
        (bedrock, "bedrock/us.anthropic.claude-sonnet-4-6"),
        (openai, "openai/gpt-6-luna"),
    ):
        marked, plain = wire.body(sent(route, mark, messages)), wire.body(sent(route, None, messages))
        assert said(marked) == said(plain)
        heads = before(marked)
        joined = "\n\n".join(text for role, text in [*messages[:turn], (messages[turn][0], messages[turn][1][: mark.chars])])
        assert heads is None or heads.replace("\n\n", "") == joined.replace("\n\n", ""), "the mark stands where it should"


def texts(content: Any) -> list[Any]:
    return [content] if isinstance(content, str) else [b if "cachePoint" in b else b["text"] for b in content]


def said(body: dict[str, Any]) -> list[str]:
    places = [*([body["system"]] if "system" in body else []), *(m["content"] for m in body["messages"])]
    return ["".join(t for t in texts(place) if isinstance(t, str)) for place in places]


def before(body: dict[str, Any]) -> str | None:
    """All text before the mark; None where there is none."""
    out = ""
    for content in [*([body["system"]] if "system" in body else []), *(m["content"] for m in body["messages"])]:
        for block in [{"text": content}] if isinstance(content, str) else content:
            if "cachePoint" in block:
                return out
            out += block["text"]
            if "cache_control" in block or "prompt_cache_breakpoint" in block:
                return out
    return None


@pytest.mark.parametrize(
    ("message", "teaches"),
    [
        ("cache_control: Extra inputs are not permitted", True),
        ("Unrecognized request argument supplied: prompt_cache_key", True),
        ("Unknown parameter: 'messages[1].content[0].prompt_cache_breakpoint'.", True),
        ("You invoked an unsupported model or your request did not allow prompt caching.", True),
        ("The content field in the Message object at messages.0 has a cachePoint block that is not supported", True),
        ("max_tokens: must be at least 1", False),
    ],
)
def test_a_server_that_refuses_the_mark_is_not_sent_it_again(message: str, teaches: bool):
    fault, asked = Fault("bad_request", message, status=400), sent("anthropic/claude-sonnet-4-6", AT_HEAD)
    traits = learned(frozenset(), fault, asked)
    assert bool(traits) is teaches
    assert learned(frozenset(), fault, sent("anthropic/claude-sonnet-4-6", None)) == frozenset()
    if teaches:
        assert anthropic.body(asked, traits) == anthropic.body(sent("anthropic/claude-sonnet-4-6", None))
        assert openai.body(asked, traits) == openai.body(sent("anthropic/claude-sonnet-4-6", None))


def test_the_identity_of_a_request_knows_no_mark():
    assert sent("anthropic/claude-sonnet-4-6", AT_HEAD).key("") == sent("anthropic/claude-sonnet-4-6", None).key("")
    assert request(cache=AT_HEAD).key("x") == request().key("x")
