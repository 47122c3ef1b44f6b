"""Token counts as servers report them: what is billed as output, and what of it was thought. One table of shapes, each with its source.

Each row: the wire, the usage as it comes, what it should be read as, a price in dollars a million tokens, and the cost by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import golden
from servers.exact import sse

from holynb.engines import anthropic, counts, gemini, openai, responses
from holynb.engines.poolwire import StreamFold
from holynb.pricing.price_entries import Price, Rates
from holynb.types import Completion, Usage


class Shape(NamedTuple):
    source: str
    wire: str
    counts: Mapping[str, Any]
    usage: Usage
    rates: Mapping[str, str]
    cost: Decimal


def used(tokens_in: int, tokens_out: int, thought: int | None = None, cached: int | None = None, **more: int) -> Usage:
    return Usage(tokens_in, tokens_out, cached, tokens_reasoning=thought, **more)


def chat(prompt: int, completion: int, total: int, thought: int | None = None, cached: int | None = None, **more: Any) -> dict[str, Any]:
    """OpenAI's CompletionUsage."""
    value: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}
    if thought is not None:
        value["completion_tokens_details"] = {"reasoning_tokens": thought, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    if cached is not None:
        value["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": 0}
    return value


def generated(prompt: int, total: int, **more: Any) -> dict[str, Any]:
    """Gemini's usageMetadata."""
    return {"promptTokenCount": prompt, "totalTokenCount": total, **more}


M = Decimal(1_000_000)

SHAPES = [
    Shape(
        "OpenAI, openai-python types/completion_usage.py: reasoning is counted in the completion",
        "openai",
        chat(75, 1186, 1261, 1024, 0),
        used(75, 1186, 1024, 0),
        {"input": "1.25", "output": "10"},
        (75 * Decimal("1.25") + 1186 * 10) / M,
    ),
    Shape(
        "OpenAI, developers.openai.com/api/docs/guides/reasoning: everything went to thinking",
        "openai",
        chat(20, 512, 532, 512, 0),
        used(20, 512, 512, 0),
        {"input": "1.25", "output": "10"},
        (20 * Decimal("1.25") + 512 * 10) / M,
    ),
    Shape(
        "OpenAI, guides/prompt-caching: cached tokens are part of the prompt",
        "openai",
        chat(2006, 300, 2306, 0, 1920),
        used(2006, 300, 0, 1920),
        {"input": "2.50", "cached": "0.25", "output": "15"},
        ((2006 - 1920) * Decimal("2.50") + 1920 * Decimal("0.25") + 300 * 15) / M,
    ),
    Shape(
        "Azure OpenAI, learn.microsoft.com, reasoning models: as OpenAI",
        "openai",
        chat(20, 1843, 1863, 448),
        used(20, 1843, 448),
        {"input": "2", "output": "8"},
        (20 * Decimal(2) + 1843 * 8) / M,
    ),
    Shape(
        "An older server without details: what was thought is not known",
        "openai",
        chat(12, 40, 52),
        used(12, 40),
        {"input": "0.60", "output": "1.80"},
        (12 * Decimal("0.60") + 40 * Decimal("1.80")) / M,
    ),
    Shape(
        "xAI, Wei-Shaw/sub2api#5771, with the dollars that xAI billed (cost_in_usd_ticks 232856000): reasoning beside the completion",
        "openai",
        chat(10120, 1499, 14428, 2809, 128),
        used(10120, 4308, 2809, 128),
        {"input": "1.25", "cached": "0.20", "output": "2.50"},
        Decimal("0.0232856"),
    ),
    Shape(
        "xAI, vercel/ai#12425, grok-3-mini",
        "openai",
        chat(12, 2, 331, 317),
        used(12, 319, 317),
        {"input": "0.30", "output": "0.50"},
        (12 * Decimal("0.30") + 319 * Decimal("0.50")) / M,
    ),
    Shape(
        "xAI through Azure, BerriAI/litellm#39426: 98 tokens are billed, 1 of them is seen",
        "openai",
        chat(12, 1, 110, 97),
        used(12, 98, 97),
        {"input": "2", "output": "6"},
        Decimal("0.000024") + Decimal("0.000588"),
    ),
    Shape(
        "xAI without a total: more was thought than completed",
        "openai",
        {"prompt_tokens": 30, "completion_tokens": 237, "completion_tokens_details": {"reasoning_tokens": 1901}},
        used(30, 2138, 1901),
        {"input": "2", "output": "6"},
        (30 * Decimal(2) + 2138 * 6) / M,
    ),
    Shape(
        "DeepSeek, api-docs.deepseek.com/api/create-chat-completion: inside, its own names of the cache",
        "openai",
        chat(1500, 700, 2200, 620, prompt_cache_hit_tokens=1472, prompt_cache_miss_tokens=28),
        used(1500, 700, 620, 1472),
        {"input": "0.15", "cached": "0.003", "output": "0.60"},
        (28 * Decimal("0.15") + 1472 * Decimal("0.003") + 700 * Decimal("0.60")) / M,
    ),
    Shape(
        "OpenRouter, openrouter.ai/docs/use-cases/usage-accounting: inside, cache writes beside reads",
        "openai",
        {
            **chat(194, 120, 314, 80),
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
            "cost": 0.00095,
        },
        used(194, 120, 80, 0, tokens_cache_write=100),
        {"input": "2", "cached": "0.20", "cache_write": "2.50", "output": "10"},
        (94 * Decimal(2) + 100 * Decimal("2.50") + 120 * 10) / M,
    ),
    Shape(
        "SGLang, entrypoints/openai/protocol.py, UsageInfo: reasoning_tokens at the top",
        "openai",
        {"prompt_tokens": 9, "total_tokens": 109, "completion_tokens": 100, "prompt_tokens_details": None, "reasoning_tokens": 64},
        used(9, 100, 64),
        {"input": "0.10", "output": "0.40"},
        (9 * Decimal("0.10") + 100 * Decimal("0.40")) / M,
    ),
    Shape(
        "Perplexity, docs.perplexity.ai, sonar-deep-research: thoughts not even in the total",
        "openai",
        {"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "citation_tokens": 20016, "reasoning_tokens": 73997},
        used(33, 81160, 73997),
        {"input": "2", "output": "8"},
        (33 * Decimal(2) + 81160 * 8) / M,
    ),
    Shape(
        "Gemini's compatible endpoint, discuss.ai.google.dev/t/127400: the total alone has the thoughts, so that none is split",
        "openai",
        chat(9, 1, 103),
        used(9, 94),
        {"input": "0.50", "output": "3"},
        (9 * Decimal("0.50") + 94 * 3) / M,
    ),
    Shape(
        "A relay of Gemini, router-for-me/CLIProxyAPI#5733: nothing was completed, 60 were thought",
        "openai",
        chat(21, 0, 81, 60),
        used(21, 60, 60),
        {"input": "0.50", "output": "3"},
        (21 * Decimal("0.50") + 60 * 3) / M,
    ),
    Shape(
        "The pool (vLLM's UsageInfo)",
        "pool",
        chat(30, 60, 90, 41, 16),
        used(30, 60, 41, 16),
        {"input": "0.10", "output": "0.40"},
        ((30 - 16) * Decimal("0.10") + 16 * Decimal("0.10") + 60 * Decimal("0.40")) / M,
    ),
    Shape(
        "Anthropic, anthropic-sdk-python types/usage.py: output_tokens is all; the split since 2026",
        "anthropic",
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 6,
            "cache_read_input_tokens": 10,
            "output_tokens": 700,
            "output_tokens_details": {"thinking_tokens": 650},
        },
        used(20, 700, 650, 10, tokens_cache_write=6),
        {"input": "2", "cached": "0.20", "cache_write": "2.50", "output": "10"},
        (4 * Decimal(2) + 10 * Decimal("0.20") + 6 * Decimal("2.50") + 700 * 10) / M,
    ),
    Shape(
        "Anthropic before: thoughts inside output_tokens, and not split",
        "anthropic",
        {"input_tokens": 40, "output_tokens": 348, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
        used(40, 348, None, 0, tokens_cache_write=0),
        {"input": "3", "output": "15"},
        (40 * Decimal(3) + 348 * 15) / M,
    ),
    Shape(
        "Anthropic, prompt caching: written for an hour",
        "anthropic",
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 3000,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
            "output_tokens": 120,
            "output_tokens_details": {"thinking_tokens": 0},
        },
        used(3050, 120, 0, 0, tokens_cache_write=3000, tokens_cache_write_1h=2000),
        {"input": "2", "cached": "0.20", "cache_write": "2.50", "cache_write_1h": "4", "output": "10"},
        (50 * Decimal(2) + 1000 * Decimal("2.50") + 2000 * Decimal(4) + 120 * 10) / M,
    ),
    Shape(
        "Gemini, ai.google.dev/gemini-api/docs/thinking and python-genai types.py: thoughts beside the candidates",
        "gemini",
        generated(20, 623, candidatesTokenCount=198, thoughtsTokenCount=405),
        used(20, 603, 405),
        {"input": "1.50", "output": "9"},
        (20 * Decimal("1.50") + 603 * 9) / M,
    ),
    Shape(
        "Gemini, vercel/ai#6082",
        "gemini",
        generated(7477, 11476, candidatesTokenCount=2060, thoughtsTokenCount=1939),
        used(7477, 3999, 1939),
        {"input": "1.25", "output": "10"},
        (7477 * Decimal("1.25") + 3999 * 10) / M,
    ),
    Shape(
        "Gemini, router-for-me/CLIProxyAPI#5733: cut while it thought, no candidates",
        "gemini",
        generated(21, 81, thoughtsTokenCount=60),
        used(21, 60, 60),
        {"input": "1.50", "output": "9"},
        (21 * Decimal("1.50") + 60 * 9) / M,
    ),
    Shape(
        "Gemini with a cache and a tool's prompt",
        "gemini",
        generated(1000, 1357, toolUsePromptTokenCount=200, cachedContentTokenCount=800, candidatesTokenCount=57, thoughtsTokenCount=100),
        used(1200, 157, 100, 800),
        {"input": "1.50", "cached": "0.15", "output": "9"},
        (400 * Decimal("1.50") + 800 * Decimal("0.15") + 157 * 9) / M,
    ),
    Shape(
        "Gemini without thinking",
        "gemini",
        generated(7, 9, candidatesTokenCount=2),
        used(7, 2),
        {"input": "0.75", "output": "3.75"},
        (7 * Decimal("0.75") + 2 * Decimal("3.75")) / M,
    ),
    Shape(
        "OpenAI's Responses, developers.openai.com/api/docs/guides/reasoning: reasoning is counted in the output",
        "responses",
        {
            "input_tokens": 75,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1186,
            "output_tokens_details": {"reasoning_tokens": 1024},
            "total_tokens": 1261,
        },
        used(75, 1186, 1024, 0),
        {"input": "15", "output": "120"},
        (75 * Decimal(15) + 1186 * 120) / M,
    ),
    Shape(
        "OpenAI's Responses, openai-python 2.54, types/responses/response_usage.py: cache writes, too",
        "responses",
        {
            "input_tokens": 5000,
            "input_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 1000},
            "output_tokens": 100,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5100,
        },
        used(5000, 100, 0, 2000, tokens_cache_write=1000),
        {"input": "2", "cached": "0.2", "cache_write": "2.5", "output": "8"},
        (2000 * Decimal(2) + 2000 * Decimal("0.2") + 1000 * Decimal("2.5") + 100 * 8) / M,
    ),
]


def whole(wire: str, counted: Mapping[str, Any]) -> Completion:
    if wire == "anthropic":
        return anthropic.read({"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage": counted})
    if wire == "gemini":
        return gemini.read(golden.gemini_part("x", "STOP", usageMetadata=counted))
    if wire == "responses":
        return responses.read(golden.response("completed", golden.response_message("x"), usage=counted))
    return openai.read({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": counted})


def streamed(wire: str, counted: Mapping[str, Any]) -> Completion:
    if wire == "anthropic":
        begun = {"type": "message_start", "message": {"usage": {**counted, "output_tokens": 1, "output_tokens_details": None}}}
        text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
        ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": counted}
        reader: Any = anthropic.Messages()
        reader.feed(golden.anthropic_events(begun, text, ended, {"type": "message_stop"}))
        return reader.end()  # type: ignore[no-any-return]
    if wire == "gemini":
        reader = gemini.Generated()
        reader.feed(
            sse(golden.gemini_part("x", usageMetadata={"promptTokenCount": 1}), golden.gemini_part("", "STOP", usageMetadata=counted))
        )
        return reader.end()  # type: ignore[no-any-return]
    if wire == "responses":
        reader = responses.ResponseEvents()
        ended = {"type": "response.completed", "response": golden.response("completed", usage=counted)}
        reader.feed(golden.response_events(golden.response_delta("x"), ended))
        return reader.end()  # type: ignore[no-any-return]
    stream = sse(
        golden.openai_chunk("x"), golden.openai_chunk(finish="stop"), {**golden.openai_chunk(), "choices": [], "usage": counted}, "[DONE]"
    )
    if wire == "pool":
        fold = StreamFold()
        for line in stream.split(b"\n"):
            fold.feed(line)
        return fold.completion()
    reader = openai.Chat()
    reader.feed(stream)
    return reader.end()  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.source)
def test_what_is_billed_as_output_and_what_of_it_was_thought(shape: Shape):
    read = streamed(shape.wire, shape.counts).usage
    assert read == shape.usage
    if shape.wire != "pool":
        assert whole(shape.wire, shape.counts).usage == read
    price = Price("x", ("*",), Rates(**{name: Decimal(rate) for name, rate in shape.rates.items()}))
    assert price.cost(read) == shape.cost


def test_there_are_twenty_shapes_of_every_wire():
    assert len(SHAPES) >= 20
    assert {s.wire for s in SHAPES} == {"openai", "responses", "anthropic", "gemini", "pool"}


def test_cached_tokens_that_a_relay_leaves_out_of_the_prompt_are_no_output():
    assert counts.usage(chat(4, 7, 2011, None, 2000)).tokens_out == 7


tokens = st.integers(0, 10**6)


@given(tokens, tokens, tokens, st.booleans())
def test_thoughts_are_billed_once_wherever_they_are_counted(prompt: int, seen: int, thought: int, beside: bool):
    out = seen if beside else seen + thought
    read = counts.usage(chat(prompt, out, prompt + seen + thought, thought))
    assert (read.tokens_in, read.tokens_out, read.tokens_reasoning) == (prompt, seen + thought, thought)


junk = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens"]), junk), junk)
def test_counts_that_are_none_are_read_as_none(counted: dict[str, Any], details: Any):
    read = counts.usage({**counted, "completion_tokens_details": details, "prompt_tokens_details": details})
    for value in (read.tokens_in, read.tokens_out, read.tokens_reasoning):
        assert value is None or value >= 0
