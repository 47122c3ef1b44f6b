"""What a model thinks comes back apart from what it says: on every wire, whole and streamed, with keys masked as in the text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from servers.asking import KEY, ask, connect, endpoint, request
from servers.exact import Exact, reply, sse, streamed
from servers.golden import anthropic_events, frames, gemini_part, openai_chunk

from holynb.engines import answer, anthropic, choices, gemini, openai, sagemaker
from holynb.engines.poolwire import StreamFold
from holynb.errors import Fault
from holynb.types import Completion, Delta, Done, Endpoint, Timeouts

THOUGHT, TEXT = "차를 고른다 🍵 <i>hm</i>", "green tea"


def message(**fields: Any) -> Completion:
    return openai.read({"choices": [{"message": {"role": "assistant", **fields}, "finish_reason": "stop"}]})


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": fields}]}


def part(text: str, **more: Any) -> dict[str, Any]:
    """A part of Gemini's that is thought."""
    chunk = gemini_part(text, **more)
    chunk["candidates"][0]["content"]["parts"][0]["thought"] = True
    return chunk


def started(block: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grown(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}


def anthropic_stream(*pieces: str) -> bytes:
    return anthropic_events(
        started({"type": "thinking", "thinking": "", "signature": ""}),
        *(grown(type="thinking_delta", thinking=p) for p in pieces),
        grown(type="signature_delta", signature="EqQBCg"),
        {"type": "content_block_stop", "index": 0},
        started({"type": "text", "text": ""}, 1),
        grown(1, type="text_delta", text=TEXT),
        STOPPED,
        {"type": "message_stop"},
    )


def openai_stream(*pieces: str, field: str = "reasoning_content") -> bytes:
    thoughts = (delta(content="" if i else None, **{field: p}) for i, p in enumerate(pieces))
    return sse(*thoughts, openai_chunk(TEXT, id="c"), openai_chunk(finish="stop", id="c"), "[DONE]")


def gemini_stream(*pieces: str) -> bytes:
    return sse(*(part(p) for p in pieces), gemini_part(TEXT, "STOP"))


STREAMS = {
    "openai": (openai.Chat, openai_stream),
    "anthropic": (anthropic.Messages, anthropic_stream),
    "gemini": (gemini.Generated, gemini_stream),
    "sagemaker": (sagemaker.EventStream, lambda *pieces: frames(openai_stream(*pieces))),
}


# -- whole ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": THOUGHT},  # DeepSeek, and most servers after it
        {"reasoning": THOUGHT},  # vLLM, Groq, Ollama
        {"reasoning_content": THOUGHT, "reasoning": THOUGHT},  # vLLM between its two names
        {"reasoning": THOUGHT, "reasoning_details": [{"type": "reasoning.text", "text": THOUGHT, "format": "unknown", "index": 0}]},
        {"reasoning": None, "reasoning_details": [{"type": "reasoning.summary", "summary": THOUGHT}]},  # OpenRouter
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "gAAA"}, {"type": "reasoning.text", "text": THOUGHT}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": TEXT}]},  # Mistral
        {"content": [{"type": "reasoning", "text": THOUGHT}, {"type": "output_text", "text": TEXT}]},
    ],
    ids=json.dumps,
)
def test_a_message_with_thoughts(fields: dict[str, Any]):
    read = message(**{"content": TEXT, **fields})
    assert (read.text, read.reasoning, read.thinking) == (TEXT, THOUGHT, True)


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, False),
        ({"reasoning_content": None}, False),
        ({"reasoning_content": ""}, False),
        ({"reasoning_details": []}, False),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "gAAA"}]}, True),
        ({"reasoning_content": "\n\n"}, True),
        ({"reasoning": {"effort": 3}}, True),
        ({"reasoning": 7}, True),
    ],
)
def test_a_message_that_does_not_say_what_it_thought(fields: dict[str, Any], thinking: bool):
    read = message(content=TEXT, **fields)
    assert (read.text, read.reasoning, read.thinking) == (TEXT, None, thinking)


def test_thoughts_nested_without_end_are_left():
    deep: Any = "x"
    for _ in range(500):
        deep = [{"content": deep}]
    assert choices.thoughts({"reasoning": deep}) == ""


def test_blocks_of_thinking():
    thinking = {"type": "thinking", "thinking": "first", "signature": "x"}
    redacted, omitted, second = (
        {"type": "redacted_thinking", "data": "Eq"},
        {**thinking, "thinking": ""},
        {**thinking, "thinking": "second"},
    )
    said = {"type": "text", "text": TEXT}

    def read(*blocks: Any) -> tuple[str | None, bool]:
        whole = anthropic.read({"content": [*blocks, said], "stop_reason": "end_turn"})
        events = [e for i, b in enumerate([*blocks, said]) for e in _block(i, b)]
        reader = anthropic.Messages()
        reader.feed(anthropic_events(*events, STOPPED, {"type": "message_stop"}))
        came = reader.end()
        assert (came.text, came.reasoning, came.thinking) == (whole.text, whole.reasoning, whole.thinking)
        return whole.reasoning, whole.thinking

    assert read() == (None, False)
    assert read(thinking) == ("first", True)
    assert read(redacted) == (None, True)
    assert read(omitted) == (None, True)
    assert read(thinking, redacted, omitted, second) == ("first\n\nsecond", True)


def _block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [started({"type": "text", "text": ""}, index), grown(index, type="text_delta", text=block["text"])]
    if block["type"] == "redacted_thinking":
        return [started(block, index)]
    words = block["thinking"]
    pieces = [grown(index, type="thinking_delta", thinking=w) for w in (words[:2], words[2:]) if w]
    return [started({**block, "thinking": ""}, index), *pieces, grown(index, type="signature_delta", signature="x")]


def test_parts_that_are_thought():
    value = gemini_part(TEXT, "STOP")
    value["candidates"][0]["content"]["parts"].insert(0, {"text": THOUGHT, "thought": True})
    read = gemini.read(value)
    assert (read.text, read.reasoning) == (TEXT, THOUGHT)


# -- streamed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", STREAMS)
def test_a_stream_says_what_is_thought_as_it_comes(wire: str):
    kind, stream = STREAMS[wire]
    reader, data = kind(), stream(THOUGHT[:3], THOUGHT[3:])
    fed = (reader.feed(data[i : i + 1]) for i in range(len(data)))
    came = [reader.take_thoughts() for text in fed if text is not None and reader.unseen]
    read = reader.end()
    assert came == [THOUGHT[:3], THOUGHT[3:]]
    assert (read.text, read.reasoning, read.thinking) == (TEXT, THOUGHT, True)


@pytest.mark.parametrize("wire", STREAMS)
def test_half_a_character_waits_for_its_other_half(wire: str):
    kind, stream = STREAMS[wire]
    reader = kind()
    reader.feed(stream("a\ud83c", "\udf75 b"))
    assert reader.take_thoughts() == "a🍵 b"
    assert reader.end().reasoning == "a🍵 b"
    reader = kind()
    reader.feed(stream("a\ud83c"))
    assert reader.end().reasoning == "a\ufffd"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_pool_thinks(field: str):
    fold, came = StreamFold(), []
    for line in openai_stream("차를 ", "고른다", field=field).split(b"\n"):
        fold.feed(line)
        came.append(fold.thought)
    read = fold.completion()
    assert [c for c in came if c] == ["차를 ", "고른다"]
    assert (read.text, read.reasoning, read.thinking) == (TEXT, "차를 고른다", True)


def test_a_piece_may_think_and_say():
    reader = openai.Chat()
    assert reader.feed(sse(delta(content="green", reasoning="hm", role="assistant"))) == "green"
    assert reader.feed(
        sse(delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "!"}]}, {"type": "text", "text": " tea"}]))
    )
    reader.feed(sse(openai_chunk(finish="stop", id="c"), "[DONE]"))
    read = reader.end()
    assert (read.text, read.reasoning) == (TEXT, "hm!")


@pytest.mark.parametrize(
    ("reader", "keep_alive", "work"),
    [
        (openai.Chat, sse(delta(content="", reasoning_content="")), sse(delta(reasoning_content="hm"))),
        (openai.Chat, sse(delta(reasoning_details=[])), sse(delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]))),
        (openai.Chat, sse(delta(content=[])), sse(delta(content=[{"type": "reference", "reference_ids": [1]}]))),
        (anthropic.Messages, anthropic_events(grown(type="thinking_delta", thinking="")), anthropic_events(grown(type="signature_delta"))),
        (
            gemini.Generated,
            sse({"usageMetadata": {"promptTokenCount": 5}}),
            sse({"usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 90}}),
        ),
    ],
)
def test_thoughts_are_content_and_an_empty_keep_alive_is_none(reader: Any, keep_alive: bytes, work: bytes):
    read = reader()
    assert read.feed(keep_alive) is None
    assert read.feed(work) == ""
    assert read.feed(keep_alive) is None


@pytest.mark.parametrize("wire", STREAMS)
def test_thoughts_without_end_are_given_up(wire: str, monkeypatch: pytest.MonkeyPatch):
    """What is thought counts for the limit of the whole answer; that of the text is as it was."""
    monkeypatch.setattr(answer, "WHOLE_CHARS_AT_LEAST", 1000)
    kind, stream = STREAMS[wire]
    reader = kind()
    reader.max_chars = 500
    reader.feed(stream("x" * 900))
    assert len(reader.end().reasoning or "") == 900
    reader = kind()
    reader.max_chars = 500
    with pytest.raises(Fault, match="sent more than 1,000 characters"):
        reader.feed(stream("x" * 600, "x" * 600))


# -- over the network ----------------------------------------------------------------------------------------------------


def heard(where: Endpoint, **options: Any) -> tuple[list[Delta], Completion]:
    async def once() -> tuple[list[Delta], Completion]:
        engine = connect(where)
        items = [item async for item in engine.send(request(**options), Timeouts())]
        await engine.aclose()
        done = items.pop()
        assert isinstance(done, Done)
        return [i for i in items if isinstance(i, Delta)], done.completion

    return asyncio.run(once())


def test_deltas_carry_thoughts_and_how_many_tokens_they_were():
    first, second = part("hm", usageMetadata={"thoughtsTokenCount": 40}), {"usageMetadata": {"thoughtsTokenCount": 412}}
    stream = sse(first, second, gemini_part(TEXT, "STOP", usageMetadata={"candidatesTokenCount": 2, "thoughtsTokenCount": 412}))
    with Exact([streamed(stream)]) as server:
        deltas, read = heard(endpoint(server.base, "gemini"), stream=True)
    assert ("".join(d.text for d in deltas), "".join(d.reasoning for d in deltas)) == (TEXT, "hm")
    assert max(d.tokens_reasoning or 0 for d in deltas) == 412
    assert (read.reasoning, read.usage.tokens_reasoning, read.usage.tokens_out) == ("hm", 412, 414)


@pytest.mark.parametrize("size", [1, 5, 9])
def test_a_key_in_thoughts_is_masked_however_it_is_cut(size: int):
    words = f"the key is {KEY}, a secret"
    pieces = [words[i : i + size] for i in range(0, len(words), size)]
    with Exact([streamed(openai_stream(*pieces))]) as server:
        deltas, read = heard(endpoint(server.base), stream=True)
    assert "".join(d.reasoning for d in deltas) == read.reasoning == f"the key is {KEY[:3]}***, a secret"
    assert "".join(d.text for d in deltas) == TEXT


def test_a_key_in_whole_thoughts_is_masked():
    value = {"choices": [{"message": {"content": TEXT, "reasoning_content": f"it is {KEY}"}, "finish_reason": "stop"}]}
    with Exact([reply(value)]) as server:
        assert ask(endpoint(server.base))[1].reasoning == f"it is {KEY[:3]}***"
