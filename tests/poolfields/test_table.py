"""The list of a pool's fields: what is not done is refused by name, at the server and before a cell sends anything."""

from __future__ import annotations

from typing import Any

import pytest

from holynb import poolfields
from holynb.config import Options
from holynb.errors import BadOption
from holynb.poolfields import FieldError, table
from holynb.run import plan, request_fields
from holynb.types import Route

NAN, HUGE = float("nan"), 10**400


def refused(body: dict[str, Any], *, chat: bool = True) -> str:
    """The field that a body is refused for; "" where it passes."""
    try:
        poolfields.check(body, chat=chat)
    except FieldError as exc:
        assert exc.param.split(".")[0] in str(exc)
        return exc.param
    return ""


@pytest.mark.parametrize(
    "name", ["temprature", "chat_template", "bad_words", "prompt_logprobs", "best_of", "suffix", "reasoning_effort", "x"]
)
@pytest.mark.parametrize("chat", [True, False])
def test_what_would_change_the_answer_and_is_not_done_is_refused(name: str, chat: bool) -> None:
    assert refused({name: ["something"]}, chat=chat) == name


def test_a_misspelt_field_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(FieldError, match="Did you mean temperature"):
        poolfields.check({"temprature": 1}, chat=True)


@pytest.mark.parametrize("chat", [True, False])
def test_null_is_no_value(chat: bool) -> None:
    assert not refused(dict.fromkeys([*table.FIELDS[chat], *table.NEUTRAL]), chat=chat)


NEUTRAL: dict[str, list[Any]] = {
    "n": [1],
    "repetition_penalty": [1, 1.0],
    "presence_penalty": [0, 0.0],
    "min_p": [0],
    "min_tokens": [0],
    "logit_bias": [{}],
    "stop": [[]],
    "stop_token_ids": [[]],
    "tools": [[]],
    "store": [False],
    "metadata": [{"a": "b"}],
    "service_tier": ["auto", "default"],
    "user": ["me", ""],
    "best_of": [1],
    "suffix": [""],
    "typical_p": [1, 1.0],
    "length_penalty": [1.0],
    "response_format": [{"type": "text"}],
    "skip_special_tokens": [True],
    "continue_final_message": [False],
    "parallel_tool_calls": [True, False],
}


@pytest.mark.parametrize("chat", [True, False])
def test_neutral_values_pass(chat: bool) -> None:
    bad = [(name, v) for name, values in NEUTRAL.items() for v in values if refused({name: v}, chat=chat)]
    assert not bad
    assert not refused({"logprobs": False}, chat=chat)


WRONG: dict[str, list[Any]] = {
    "temperature": [-0.1, 5.1, "hot", True, NAN, HUGE, [1]],
    "top_p": [-0.1, 1.1, "x", False],
    "top_k": [-2, 1.5, "x"],
    "min_p": [-0.1, 1.1],
    "n": [0, -1, 1.5, "2", 129, True],
    "seed": [1.5, "x", 2**63, -(2**63) - 1, False],
    "stop": [[""], "", [1], 7, ["x"] * 17, "x" * 1001, {}],
    "stop_token_ids": [7, [1.5], [-1], ["2"], [True], list(range(1025))],
    "min_tokens": [-1, 1.5],
    "repetition_penalty": [0, -1, "x", float("inf"), NAN],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1, "x"],
    "logit_bias": [[1], {"a": 1}, {"1": 101}, {"1": "x"}, {"-1": 1}, {"1": True}, {"1": None}],
    "allowed_token_ids": [[], [-1]],
    "stream": ["yes", 1],
    "stream_options": [{}, []],
    "ignore_eos": ["x"],
    "truncate_prompt_tokens": [0, -1],
    "guided_json": [7, ["x"]],
    "guided_regex": [{1: "Python"}, 5],
    "guided_choice": ["yes", [1], [], [""]],
    "guided_grammar": [7],
    "structured_outputs": ["x", {}, {"regex": {1: "Python"}}, {"choice": []}, {"json": {}, "regex": "x"}, {"structural_tag": "x"}],
    "response_format": ["x", {}, {"type": "sound"}, {"type": ["text"]}, {"type": "json_schema"}, {"type": "json_object", "schema": 123}],
    "model": [7],
    "user": [7],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("chat", [True, False])
def test_wrong_values_name_their_field(name: str, chat: bool) -> None:
    passed = [v for v in WRONG[name] if refused({name: v}, chat=chat).split(".")[0] != name]
    assert not passed


def test_fields_of_one_path_alone() -> None:
    for name, value in (("logprobs", 3), ("top_logprobs", 2), ("echo", True), ("max_tokens", 0), ("max_tokens", "x"), ("prompt", "x")):
        assert refused({name: value}) == name
    for name, value in (("logprobs", True), ("logprobs", 21), ("logprobs", -1), ("max_tokens", 0), ("max_tokens", -1), ("messages", [1])):
        assert refused({name: value}, chat=False) == name
    assert not refused({"logprobs": True, "top_logprobs": 20})
    assert refused({"logprobs": True, "top_logprobs": 21}) == "top_logprobs"
    for body in ({"logprobs": 0}, {"logprobs": 20}, {"echo": True, "max_tokens": 0}):
        assert not refused(body, chat=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "no"}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"other": True}}, "stream_options.other"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_choice"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
        ({"guided_regex": "a", "min_tokens": 2}, "min_tokens"),
        ({"guided_regex": "a", "allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
    ],
)
def test_what_does_not_go_together(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


def test_tools_that_may_not_be_called_pass() -> None:
    assert not refused({"tools": [{"type": "function"}], "tool_choice": "none"})


@pytest.mark.parametrize(
    ("extra", "schema", "words"),
    [
        ({"n": 2}, None, "--samples 2"),
        ({"temprature": 0}, None, "Did you mean temperature"),
        ({"repetition_penalty": 0}, None, "repetition_penalty must be"),
        ({"tool_choice": "required"}, None, "tool_choice is not supported"),
        ({"stream": True}, None, "--stream"),
        ({"messages": [1]}, None, "the cell's text"),
        ({"logprobs": True}, None, "--port"),
        ({"guided_choice": ["yes"]}, {"type": "object"}, "--schema"),
    ],
)
def test_a_cell_is_refused_before_anything_is_sent(extra: dict[str, Any], schema: Any, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        plan.make(["hi"], "pool/nobody", Options(p=extra, schema=schema))


def test_what_the_pool_does_passes_in_a_cell() -> None:
    extra = {"repetition_penalty": 1.1, "min_p": 0.05, "guided_choice": ("yes", "no"), "logit_bias": {5: -100}, "n": 1, "logprobs": False}
    assert plan.make(["hi"], "pool/nobody", Options(p=extra)).rows.requests[0].sampling.extra == extra  # type: ignore[union-attr]


def test_several_answers_to_one_row_are_refused_on_every_route() -> None:
    """Two would be paid, and one kept."""
    with pytest.raises(BadOption, match="--samples 3"):
        request_fields.check_extra({"n": 3}, Route("openai", "gpt-4.1-mini"), schema=False)
    request_fields.check_extra({"n": 1, "anything": "else"}, Route("openai", "gpt-4.1-mini"), schema=False)


def test_a_vllm_pool_has_fields_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        facts = {"engine": "vllm"}  # noqa: RUF012 - as a record has it

    monkeypatch.setattr(request_fields.pools, "find", lambda name: Found())
    request_fields.check_extra({"prompt_logprobs": 1}, Route("pool", "big"), schema=False)
