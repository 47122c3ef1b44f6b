"""`--think`: what each wire sends for each level, what a model cannot do, and what a refusal teaches."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb import poolfields
from holynb.config import models
from holynb.engines import anthropic, azure, bedrock, gemini, openai, poolwire, responses, sagemaker, thinking, vertex
from holynb.errors import Fault
from holynb.types import THINK_LEVELS, Message, Request, Route, Sampling


def pool_body(request: Request, traits: thinking.Traits, *, vllm: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(poolwire.body(request, "some", vllm=vllm))
    return {name: value for name, value in body.items() if not name.startswith("stream")}


BODIES: dict[str, Any] = {
    "openai": openai.body,
    "azure": azure.WIRE.body,
    "responses": responses.body,
    "anthropic": anthropic.body,
    "gemini": gemini.body,
    "bedrock": bedrock.body,
    "pool": pool_body,
    "vllm": partial(pool_body, vllm=True),
    "sagemaker": partial(sagemaker.body, None),
    "vertex": vertex.WIRE.body,
}
MESSAGES = (Message("user", "hi"),)


def asked(route: str, think: Any, **sampling: Any) -> Request:
    return Request(0, MESSAGES, Route.parse(route), Sampling(max_tokens=sampling.pop("max_tokens", 8192), think=think, **sampling))


def sent(route: str, think: Any, wire: str = "openai", traits: thinking.Traits = frozenset(), **sampling: Any) -> Any:
    """The request's JSON without what every request has."""
    body = BODIES[wire](asked(route, think, **sampling), traits)
    return {
        k: v for k, v in body.items() if k not in ("model", "messages", "contents", "max_tokens", "input", "store", "max_output_tokens")
    }


def gem(**thinking_config: Any) -> dict[str, Any]:
    return {"generationConfig": {"maxOutputTokens": 8192, "thinkingConfig": thinking_config}}


def adaptive(effort: str) -> dict[str, Any]:
    return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}


def enabled(tokens: int) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": tokens, "display": "summarized"}}


def effort(word: str, **more: Any) -> dict[str, Any]:
    return {"reasoning_effort": word, **more}


OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}
DS = {"thinking": {"type": "enabled"}}

#: Route, wire → what is sent for off, low, medium, high, max and 4000.
TABLE: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("openai/gpt-6-luna", "openai"): [effort(w) for w in ("none", "low", "medium", "high", "max", "medium")],
    ("openai/gpt-6.1-sol", "openai"): [effort(w) for w in ("low", "low", "medium", "high", "max", "medium")],
    ("openai/gpt-4.1", "openai"): [{}] * 6,
    ("azure/gpt-6-luna", "azure"): [effort(w) for w in ("none", "low", "medium", "high", "max", "medium")],
    ("azure/my-deployment", "azure"): [effort(w) for w in ("none", "low", "medium", "high", "high", "medium")],
    ("gateway/some-model", "openai"): [effort(w) for w in ("none", "low", "medium", "high", "high", "medium")],
    ("xai/grok-4.3", "openai"): [effort(w) for w in ("none", "low", "medium", "high", "high", "medium")],
    ("sglang/Qwen/Qwen3-8B", "openai"): [
        OFF,
        *(effort(w, **ON) for w in ("low", "medium", "high", "high")),
        {"chat_template_kwargs": {"enable_thinking": True, "thinking_budget": 4000}},
    ],
    ("vertex/gemini-2.5-pro", "vertex"): [
        gem(thinkingBudget=128),
        *(gem(thinkingBudget=n, includeThoughts=True) for n in (1024, 4096, 6553, 7782, 4000)),
    ],
    ("vertex/gemini-3.5-flash-lite", "vertex"): [
        gem(thinkingLevel="minimal"),
        *(gem(thinkingLevel=w, includeThoughts=True) for w in ("low", "medium", "high", "high", "medium")),
    ],
    ("deepseek/deepseek-flash", "openai"): [
        {"thinking": {"type": "disabled"}},
        *(effort(w, **DS) for w in ("low", "high", "high", "max", "high")),
    ],
    ("openrouter/anthropic/claude-sonnet-5.5", "openai"): [
        *({"reasoning": {"effort": w}} for w in ("none", "low", "medium", "high", "max")),
        {"reasoning": {"max_tokens": 4000}},
    ],
    ("vllm/Qwen/Qwen3-8B", "openai"): [
        OFF,
        *(effort(w, **ON) for w in ("low", "medium", "high", "high")),
        {**ON, "thinking_token_budget": 4000},
    ],
    ("pool/Qwen/Qwen3-0.6B", "pool"): [
        OFF,
        *(effort(w) for w in ("low", "medium", "high", "max")),
        {"thinking_budget": 4000},
    ],
    ("pool/Qwen/Qwen3-8B", "vllm"): [
        OFF,
        *(effort(w, **ON) for w in ("low", "medium", "high", "high")),
        {**ON, "thinking_token_budget": 4000},
    ],
    ("sagemaker/my-endpoint", "sagemaker"): [
        OFF,
        *(effort(w, **ON) for w in ("low", "medium", "high", "high")),
        {**ON, "thinking_token_budget": 4000},
    ],
    ("openai/gpt-5.6-pro", "responses"): [
        {"reasoning": {"effort": "none"}},
        *({"reasoning": {"effort": w, "summary": "auto"}} for w in ("low", "medium", "high", "high", "medium")),
    ],
    ("openai/gpt-6-luna", "responses"): [
        {"reasoning": {"effort": "none"}},
        *({"reasoning": {"effort": w, "summary": "auto"}} for w in ("low", "medium", "high", "max", "medium")),
    ],
    ("ray/openai/gpt-oss-20b", "openai"): [
        *(effort(w) for w in ("low", "low", "medium", "high", "high")),
        {"thinking_token_budget": 4000},
    ],
    ("anthropic/claude-sonnet-5-5", "anthropic"): [
        {"thinking": {"type": "between_tools"}},
        *(adaptive(w) for w in ("low", "medium", "high", "max", "medium")),
    ],
    ("anthropic/claude-opus-5-5", "anthropic"): [
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        *(adaptive(w) for w in ("low", "medium", "high", "max", "medium")),
    ],
    ("anthropic/claude-opus-4-6", "anthropic"): [
        {"thinking": {"type": "disabled"}},
        *(adaptive(w) for w in ("low", "medium", "high", "max", "medium")),
    ],
    ("anthropic/claude-haiku-4-5", "anthropic"): [
        {"thinking": {"type": "disabled"}},
        *(enabled(n) for n in (1024, 4096, 6553, 7782, 4000)),
    ],
    ("gemini/gemini-3.8-flash", "gemini"): [
        gem(thinkingLevel="low"),
        *(gem(thinkingLevel=w, includeThoughts=True) for w in ("low", "medium", "high", "high", "medium")),
    ],
    ("gemini/gemini-2.5-flash", "gemini"): [
        gem(thinkingBudget=0),
        *(gem(thinkingBudget=n, includeThoughts=True) for n in (1024, 4096, 6553, 7782, 4000)),
    ],
}
CONVERSE = {"inferenceConfig": {"maxTokens": 8192}}


def own(fields: dict[str, Any]) -> dict[str, Any]:
    """Converse with fields of the model's own."""
    return {**CONVERSE, "additionalModelRequestFields": fields}


def nova(effort: str) -> dict[str, Any]:
    return own({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}})


_CLAUDE = [own({"thinking": {"type": "disabled"}}), *(own(adaptive(w)) for w in ("low", "medium", "high", "max", "medium"))]
_OLDER_CLAUDE = [own({"thinking": {"type": "disabled"}}), *(own(enabled(n)) for n in (1024, 4096, 6553, 7782, 4000))]
_PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-6-v1"
TABLE |= {
    ("bedrock/global.anthropic.claude-opus-4-6-v1", "bedrock"): _CLAUDE,
    (f"bedrock/{_PROFILE}", "bedrock"): _CLAUDE,
    ("bedrock/us.anthropic.claude-sonnet-5-5", "bedrock"): [own({"thinking": {"type": "between_tools"}}), *_CLAUDE[1:]],
    ("bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock"): _OLDER_CLAUDE,
    ("bedrock/us.amazon.nova-2-lite-v1:0", "bedrock"): [
        own({"reasoningConfig": {"type": "disabled"}}),
        *(nova(w) for w in ("low", "medium", "medium", "medium", "medium")),
    ],
    ("bedrock/openai.gpt-oss-120b-1:0", "bedrock"): [own(effort(w)) for w in ("low", "low", "medium", "high", "high", "medium")],
    ("bedrock/some.model-v1:0", "bedrock"): [
        {**CONVERSE, "outputConfig": {"effort": w}} for w in ("low", "low", "medium", "high", "max", "medium")
    ],
}
LEVELS = ("off", "low", "medium", "high", "max", 4000)


@pytest.mark.parametrize(("route", "wire"), TABLE, ids=lambda v: str(v).replace("/", "-"))
def test_each_wire_sends_each_level_in_its_own_field(route, wire):
    assert [sent(route, think, wire) for think in LEVELS] == TABLE[route, wire]
    assert sent(route, None, wire) in ({}, {"generationConfig": {"maxOutputTokens": 8192}}, CONVERSE)


@pytest.mark.parametrize(
    ("route", "wire", "think", "words"),
    [
        ("openai/gpt-4.1", "openai", "high", "openai/gpt-4.1 does not think: --think high is left out."),
        ("openai/gpt-4.1", "openai", "off", None),
        ("openai/gpt-6-luna", "openai", "high", None),
        ("openai/gpt-6.1-sol", "openai", "off", "openai/gpt-6.1-sol always thinks: --think off is sent as low, the lowest."),
        ("gemini/gemini-3.8-flash", "gemini", "max", None),
        (
            "deepseek/deepseek-flash",
            "openai",
            "medium",
            "deepseek/deepseek-flash takes low, high, max: --think medium is sent as high, the nearest.",
        ),
        (
            "openai/gpt-6-luna",
            "openai",
            12000,
            "openai/gpt-6-luna takes thinking levels, not a number of tokens: --think 12000 is sent as medium.",
        ),
        ("sim/echo", "sim", "high", "sim/echo has no setting for thinking: --think is left out."),
        ("sim/echo", "sim", "off", None),
    ],
)
def test_what_a_model_cannot_do_is_said_in_one_line(route, wire, think, words):
    assert thinking.note(asked(route, think), wire) == words


def test_a_number_of_tokens_leaves_room_for_the_answer():
    haiku = "anthropic/claude-haiku-4-5"
    assert sent(haiku, 8000, "anthropic", max_tokens=2000) == enabled(1900)
    assert "1,900 tokens instead of 8,000: --max-tokens 2000 holds both, thoughts and answer." in str(
        thinking.note(asked(haiku, 8000, max_tokens=2000), "anthropic")
    )
    assert sent(haiku, 100, "anthropic") == enabled(1024)
    assert "1,024 is its minimum" in str(thinking.note(asked(haiku, 100), "anthropic"))
    assert sent(haiku, "high", "anthropic", max_tokens=1024) == {"thinking": {"type": "disabled"}}
    assert "--max-tokens 1024 has no room for them" in str(thinking.note(asked(haiku, "high", max_tokens=1024), "anthropic"))


def test_sampling_that_a_thinking_model_refuses_is_left_out_with_a_note():
    flash = "deepseek/deepseek-flash"
    assert "temperature" not in sent(flash, "high", temperature=0.5)
    assert "temperature" not in sent(flash, None, temperature=0.5)  # it thinks by default
    assert sent(flash, "off", temperature=0.5)["temperature"] == 0.5
    assert "takes no temperature while it thinks" in str(thinking.note(asked(flash, None, temperature=0.5), "openai"))
    assert sent("openai/gpt-4.1", None, temperature=0.5) == {"temperature": 0.5}


def test_a_schema_and_thinking_share_output_config():
    request = asked("anthropic/claude-opus-4-6", "low")
    body = anthropic.body(Request(0, MESSAGES, request.route, request.sampling, schema={"type": "object"}))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}


def test_p_is_stronger_than_think_and_stands_beside_it():
    assert sent("openai/gpt-6-luna", "low", extra={"reasoning_effort": "high"}) == effort("high")
    qwen = sent("vllm/Qwen/Qwen3-8B", "off", extra={"chat_template_kwargs": {"date": "today"}})
    assert qwen == {"chat_template_kwargs": {"enable_thinking": False, "date": "today"}}
    assert sent("openrouter/x/y", "low", extra={"reasoning": {"exclude": True}}) == {"reasoning": {"effort": "low", "exclude": True}}
    claude = sent("anthropic/claude-opus-4-6", "low", "anthropic", extra={"thinking": {"type": "disabled"}})
    assert claude["thinking"] == {"type": "disabled"}


def test_what_is_not_known_to_be_off_is_tried_the_wires_way():
    assert sent("anthropic/claude-sonnet-5", "off", "anthropic") == {"thinking": {"type": "disabled"}}
    assert sent("anthropic/claude-opus-4-8", "off", "anthropic") == {}, "it thinks only where it is asked to"
    assert thinking.note(asked("anthropic/claude-opus-4-8", "off"), "anthropic") is None


KNOWN = sorted({(e.provider, e.models[0].rstrip("*")) for e in models.shipped()})
ROUTES = [*(Route(*r) for r in KNOWN), *(Route(p, "anything") for p in ("openai", "anthropic", "gemini", "vllm", "mine", "openrouter"))]
WIRE_OF = {"anthropic": "anthropic", "gemini": "gemini"}
TRAITS = st.frozensets(
    st.sampled_from(["no think", "no on", "no off", "no budget", "no thoughts", "no temperature", "think=low,high", "think=none"])
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ROUTES),
    st.one_of(st.none(), st.sampled_from(THINK_LEVELS), st.integers(1, 10**8)),
    st.integers(1, 200_000),
    st.one_of(st.none(), st.floats(0, 2)),
    TRAITS,
)
def test_whatever_is_asked_a_request_can_be_written_and_its_budget_fits(route, think, max_tokens, temperature, traits):
    wire = WIRE_OF.get(route.provider, "openai")
    request = Request(0, MESSAGES, route, Sampling(max_tokens, temperature, think=think))
    body = BODIES[wire](request, traits)
    assert json.loads(json.dumps(body)) == body
    if think is None:
        assert not {"thinking", "reasoning", "reasoning_effort", "chat_template_kwargs"} & set(body)
        assert "thinkingConfig" not in body.get("generationConfig", {})
    budget = body.get("thinking", {}).get("budget_tokens")
    assert budget is None or 1024 <= budget < max_tokens
    gemini_config = body.get("generationConfig", {}).get("thinkingConfig", {})
    assert not {"thinkingLevel", "thinkingBudget"} <= set(gemini_config), "both together are refused"
    words = thinking.note(request, wire, traits)
    assert words is None or (str(route) in words and "\n" not in words)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ROUTES), st.one_of(st.sampled_from(THINK_LEVELS), st.integers(1, 10**6)), st.text(max_size=80))
def test_refusals_end_after_a_few(route, think, words):
    """Whatever a server says, each refusal teaches something new or nothing: a row is not sent for ever."""
    wire, traits = WIRE_OF.get(route.provider, "openai"), frozenset()
    fault = Fault("bad_request", f"{words} thinking display 'low' reasoning_effort temperature", status=400)
    request = Request(0, MESSAGES, route, Sampling(4096, 0.5, think=think))
    for _ in range(8):
        before, traits = traits, thinking.learned(traits, fault, request, wire)
        if traits == before:
            break
    assert traits == before


@pytest.mark.parametrize("think", LEVELS)
def test_a_pool_takes_what_is_sent(think):
    body = json.loads(poolwire.body(asked("pool/some", think), "some"))
    poolfields.check(body, chat=True)
    merged = pool_body(asked("pool/some", "off", extra={"chat_template_kwargs": {"date": "today"}}), frozenset())
    assert merged["chat_template_kwargs"] == {"enable_thinking": False, "date": "today"}


@pytest.mark.parametrize("think", LEVELS)
def test_the_vendors_own_types_hold_what_is_sent(think):
    """Names and places are those of google-genai, anthropic and openai."""
    from google.genai import types

    for model in ("gemini-3.8-flash", "gemini-2.5-flash"):
        config = sent(f"gemini/{model}", think, "gemini")["generationConfig"]["thinkingConfig"]
        typed = types.ThinkingConfig.model_validate(config)
        assert typed.model_dump(exclude_none=True, by_alias=True, mode="json") == {
            k: v.upper() if k == "thinkingLevel" else v for k, v in config.items()
        }
    from anthropic.types import message_create_params
    from openai.types.chat import completion_create_params

    allowed = message_create_params.MessageCreateParamsBase.__annotations__
    for model in ("claude-sonnet-5-5", "claude-haiku-4-5", "claude-opus-4-6"):
        assert set(sent(f"anthropic/{model}", think, "anthropic")) <= set(allowed)
    assert set(sent("openai/gpt-6-luna", think)) <= set(completion_create_params.CompletionCreateParamsBase.__annotations__)


# -- refusals ------------------------------------------------------------------------------------------------------------
def taught(words: str, route: str, think: Any, wire: str = "openai", before: thinking.Traits = frozenset(), **sampling: Any) -> Any:
    request = asked(route, think, **sampling)
    traits = thinking.learned(before, Fault("bad_request", words, status=400), request, wire)
    return traits - before, sent(route, think, wire, traits, **sampling) if wire in BODIES else None


def test_a_value_that_a_model_does_not_take_is_followed_by_the_nearest_that_it_lists():
    # openai/openai-agents-python#2089
    words = "Unsupported value: 'none' is not supported with the 'o9' model. Supported values are: 'low', 'medium', and 'high'."
    traits, body = taught(words, "gateway/o9", "off")
    assert (traits, body) == ({"think=low,medium,high"}, effort("low"))


def test_a_field_that_a_server_does_not_know_is_left_out():
    traits, body = taught("Unrecognized request argument supplied: reasoning_effort", "gateway/m", "high")
    assert (traits, body) == ({"no think"}, {})


def test_a_server_without_levels_still_thinks_and_still_does_not():
    qwen, words = "vllm/Qwen/Qwen3-8B", "reasoning_effort: Extra inputs are not permitted"
    traits, body = taught(words, qwen, "high")
    assert (traits, body) == ({"no think"}, ON)
    assert sent(qwen, "off", traits=traits) == OFF
    assert "only turns thinking on." in str(thinking.note(asked(qwen, "high"), "openai", traits))
    more, body = taught("chat_template_kwargs is not supported", qwen, "high", before=traits)
    assert (more, body) == ({"no on"}, {})


def test_a_model_that_cannot_be_switched_off_thinks_as_little_as_it_can():
    # As Opus 5.5 says it, of a model whose entry is not known.
    words = '"thinking.type.disabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort".'
    traits, body = taught(words, "anthropic/claude-opus-9", "off", "anthropic")
    assert traits == {"no off"}
    assert body == {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}


def test_thoughts_that_are_not_given_are_not_asked_for_again():
    traits, body = taught("thinking.display: Extra inputs are not permitted", "anthropic/claude-opus-4-6", "low", "anthropic")
    assert traits == {"no thoughts"}
    assert body == {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}


def test_a_temperature_that_thinking_does_not_go_with_is_left_out():
    words = "`temperature` may only be set to 1 when thinking is enabled."
    traits, body = taught(words, "anthropic/claude-opus-4-6", "low", "anthropic", temperature=0.2)
    assert (traits, body) == ({"no temperature"}, adaptive("low"))


def test_a_budget_that_a_server_does_not_take_becomes_a_level():
    traits, body = taught("thinking_token_budget is set but reasoning_config is not configured.", "vllm/Qwen/Qwen3-8B", 4000)
    assert (traits, body) == ({"no budget"}, effort("medium", **ON))


@pytest.mark.parametrize("words", ["Invalid 'messages[0].content': too long", "n must be 1", "", "messages.0.content.0.type: unknown"])
def test_a_refusal_of_something_else_teaches_nothing_of_thinking(words):
    assert taught(words, "gateway/m", "high")[0] == frozenset()


def test_without_the_option_nothing_is_learned():
    fault = Fault("bad_request", "Unrecognized request argument supplied: reasoning_effort", status=400)
    assert thinking.learned(frozenset(), fault, asked("gateway/m", None), "openai") == frozenset()
