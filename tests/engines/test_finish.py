"""An answer is an answer, on every wire, whole and streamed: why it ended, what is its text, and what is none of it.

Looked at for siblings: OpenAI's reader (with Azure, DeepSeek, OpenRouter, HolySheep, vLLM, Ray), Anthropic's blocks, Gemini's candidates,
SageMaker's frames, TGI's tokens and texts found by a path, the pool's lines (vLLM's words behind it); the simulator has words of ours alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servers.asking import ask, endpoint, request
from servers.exact import END, Exact, chunk, reply, sse, stream_head, streamed
from servers.golden import (
    anthropic_events,
    bedrock_delta,
    bedrock_frame,
    frame,
    frames,
    gemini_part,
    openai_chunk,
    response,
    response_delta,
    response_events,
    response_message,
)

from holynb.engines import anthropic, azure, bedrock, finish, gemini, openai, responses, sagemaker
from holynb.engines.poolwire import StreamFold
from holynb.errors import Fault
from holynb.types import Completion, Endpoint

Piece = tuple[str | None, Any]


def openai_stream(*pieces: Piece) -> bytes:
    return sse(*(openai_chunk(text, word) for text, word in pieces), "[DONE]")


def anthropic_stream(*pieces: Piece) -> bytes:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}}]
    for text, word in pieces:
        if text is not None:
            events.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        if word is not None:
            events.append({"type": "message_delta", "delta": {"stop_reason": word}, "usage": {"output_tokens": 2}})
    return anthropic_events(*events, {"type": "message_stop"})


def gemini_stream(*pieces: Piece) -> bytes:
    return sse(*(gemini_part(text, word) for text, word in pieces))


def tgi_stream(*pieces: Piece) -> bytes:
    return frames(
        b"".join(
            b"data:"
            + json.dumps({"token": {"text": text or ""}, **({"details": {"finish_reason": word}} if word else {})}).encode()
            + b"\n\n"
            for text, word in pieces
        )
    )


def bedrock_stream(*pieces: Piece) -> bytes:
    events = [bedrock_frame("messageStart", {"role": "assistant"})]
    for text, word in pieces:
        events += [] if text is None else [bedrock_delta({"text": text})]
        events += [] if word is None else [bedrock_frame("messageStop", {"stopReason": word})]
    return b"".join([*events, bedrock_frame("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2}})])


def openai_whole(text: Any, word: Any) -> Any:
    return {"model": "m", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": word}]}


def responses_stream(*pieces: tuple[str | None, Any]) -> bytes:
    ended = response(pieces[-1][1])
    return response_events(*(response_delta(t) for t, _ in pieces if t), {"type": "response.completed", "response": ended})


def responses_whole(text: str, word: Any) -> dict[str, Any]:
    return response(word, response_message(text))


def fed(reader: Any, data: bytes) -> Completion:
    reader.feed(data)
    answer = reader.end()
    assert isinstance(answer, Completion)
    return answer


def pooled(data: bytes) -> Completion:
    reader = StreamFold()
    for line in data.split(b"\n"):
        reader.feed(line)
    return reader.completion()


@dataclass(frozen=True)
class Spoken:
    """One wire: how its servers say an answer, whole and streamed, and how it is read. `stop`: its own word for a normal end."""

    name: str
    stream: Any
    fold: Any
    whole: Any = None
    read: Any = None
    stop: str = "stop"

    def __str__(self) -> str:
        return self.name

    def both(self, text: str, word: Any) -> list[Completion]:
        """The same answer in two pieces, and whole."""
        streamed_ = self.fold(self.stream((text[:1] or None, None), (text[1:] or None, word)))
        return [streamed_, *([self.read(self.whole(text, word))] if self.read else [])]


WIRES = (
    Spoken("openai", openai_stream, lambda data: fed(openai.Chat(), data), openai_whole, openai.read),
    Spoken("responses", responses_stream, lambda data: fed(responses.ResponseEvents(), data), responses_whole, responses.read, "completed"),
    Spoken("azure", openai_stream, lambda data: fed(azure.WIRE.answer(), data), openai_whole, azure.WIRE.read),
    Spoken(
        "anthropic",
        anthropic_stream,
        lambda data: fed(anthropic.Messages(), data),
        lambda text, word: {"model": "m", "content": [{"type": "text", "text": text}], "stop_reason": word},
        anthropic.read,
        "end_turn",
    ),
    Spoken("gemini", gemini_stream, lambda data: fed(gemini.Generated(), data), gemini_part, gemini.read, "STOP"),
    Spoken(
        "sagemaker",
        lambda *pieces: frames(openai_stream(*pieces)),
        lambda data: fed(sagemaker.EventStream(), data),
        openai_whole,
        lambda value: sagemaker.read(None, value),
    ),
    Spoken(
        "tgi",
        tgi_stream,
        lambda data: fed(sagemaker.EventStream(), data),
        lambda text, word: [{"generated_text": text, "details": {"finish_reason": word}}],
        lambda value: sagemaker.read(None, value),
        "eos_token",
    ),
    Spoken(
        "bedrock",
        bedrock_stream,
        lambda data: fed(bedrock.Converse(), data),
        lambda text, word: {"output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": word},
        bedrock.read,
        "end_turn",
    ),
    Spoken("pool", openai_stream, pooled),
)


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Spoken:
    return request.param  # type: ignore[no-any-return]


# -- words ---------------------------------------------------------------------------------------------------------------


def test_a_word_that_nobody_defines_ends_the_answer_and_is_told(wire: Spoken):
    words: list[Any] = ["banana", "Gone fishing", "stopp", "x" * 5000, 17, {"type": "banana"}]
    for word, answer in [(w, a) for w in words for a in wire.both("tea", w)]:
        assert (answer.text, answer.finish_reason) == ("tea", "other")
        told = "banana" if isinstance(word, dict) else str(word)[:60]
        assert f'"{told}"' in (answer.note or "")


NOTHING: tuple[Any, ...] = (
    None,
    "",
    "null",
    "None",
    "NONE",
    " null ",
    "FINISH_REASON_UNSPECIFIED",
    "FinishReason.FINISH_REASON_UNSPECIFIED",
)


def test_a_word_for_nothing_is_no_reason(wire: Spoken):
    for word in NOTHING:
        with pytest.raises(Fault) as caught:
            wire.fold(wire.stream(("t", None), ("ea", word)))
        assert (caught.value.kind, caught.value.retry) == ("truncated", True)
        if wire.read:  # a whole body is whole
            answer = wire.read(wire.whole("tea", word))
            assert (answer.text, answer.finish_reason, answer.note) == ("tea", "unknown", None)
        # On every piece, as Ollama sends it, and a real one at the end.
        assert wire.fold(wire.stream(("t", word), ("ea", wire.stop))).finish_reason == "stop"


SPELLINGS = (
    ("STOP", "stop"),
    ("FinishReason.STOP", "stop"),
    ("FINISH_REASON_STOP", "stop"),
    ("FinishReasonStop", "stop"),
    ("endTurn", "stop"),
    ("end_turn", "stop"),
    ("eos_token", "stop"),
    ("COMPLETE", "stop"),
    ("stop-sequence", "stop"),
    ("MAX_TOKENS", "length"),
    ("max_output_tokens", "length"),
    ("Length", "length"),
    ("model_context_window_exceeded", "length"),
    ("model_length", "length"),
    ("tool-calls", "tool"),
    ("pause_turn", "pause_turn"),
    ("OTHER", "other"),
)


def test_words_of_one_wire_are_read_on_every_other(wire: Spoken):
    for word, reason in SPELLINGS:
        assert {a.finish_reason for a in wire.both("tea", word)} == {reason}, word


NO_ANSWER = (
    ("content_filter", "content_filter", "rephrase"),
    ("SAFETY", "content_filter", "safetySettings"),
    ("RECITATION", "content_filter", "--temperature"),
    ("refusal", "content_filter", "another model"),
    ("LANGUAGE", "content_filter", "another model"),
    ("guardrail_intervened", "content_filter", "rephrase"),
    ("sensitive", "content_filter", "rephrase"),
    ("MALFORMED_FUNCTION_CALL", "server", ""),
    ("insufficient_system_resource", "server", ""),
    ("abort", "server", ""),
    ("error", "server", ""),
)


@pytest.mark.parametrize("text", ["", "tea"])
def test_a_filter_or_a_failure_is_no_answer_and_says_why(wire: Spoken, text: str):
    for word, kind, change in NO_ANSWER:
        if wire.name == "pool":
            kind, change = "server", ""  # a filter behind a pool is its server's failure
        with pytest.raises(Fault) as caught:
            wire.fold(wire.stream((text, word)))
        faults = [caught.value]
        if wire.read:
            with pytest.raises(Fault) as caught:
                wire.read(wire.whole(text, word))
            faults.append(caught.value)
        for fault in faults:
            assert (fault.kind, fault.status) == (kind, None)
            assert change in fault.message
            assert word in fault.message or word in ("content_filter", "error")


def test_one_spelling_has_one_meaning_whichever_wire_it_came_over():
    tables = (finish.OPENAI, finish.RESPONSES, finish.ANTHROPIC, finish.GEMINI, finish.TGI, finish.BEDROCK, finish.SERVERS)
    assert [w for t in tables for w, reason in t.items() if finish.finish(w).reason != reason] == []  # type: ignore[union-attr]


@given(
    st.one_of(st.text(max_size=200), st.integers(), st.booleans(), st.none(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
)
@example("FinishReason.")
@example({"type": None})
def test_any_value_is_a_reason_of_ours_or_none(word: Any):
    ended = finish.finish(word)
    if ended is not None:
        assert ended.reason in {"stop", "length", "tool", "content_filter", "error", "pause_turn", "other"}
        assert len(ended.word) <= finish.MAX_CHARS


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("stop", "stop"), "stop"),
        (("length", "stop"), "length"),  # a gateway closes every stream with stop
        (("stop", "length"), "length"),
        (("tool_calls", "stop"), "tool"),
        (("normal", "normal", "stop"), "stop"),  # Baidu's word on every piece
        (("stop", "banana"), "stop"),
    ],
)
def test_of_several_reasons_the_worst_counts(words: Sequence[str], reason: str):
    pieces = [(text, word) for text, word in zip("tea", [*words, *words][:3], strict=False)][: len(words)]
    for one in (w for w in WIRES if w.name in ("openai", "anthropic", "gemini")):
        answer = one.fold(one.stream(*pieces))
        assert (answer.text, answer.finish_reason) == ("tea"[: len(words)], reason)


def test_a_late_filter_counts(wire: Spoken):
    if wire.name in ("responses", "tgi", "pool"):
        pytest.skip("one end each")
    with pytest.raises(Fault, match="content filter"):
        wire.fold(wire.stream(("tea", wire.stop), (None, "content_filter")))


# -- servers that never give one -----------------------------------------------------------------------------------------


def at(server: Exact, name: str, **options: Any) -> Endpoint:
    return endpoint(server.base + ("/v1" if name != "gemini" else ""), name, options=options)


@pytest.mark.parametrize(("name", "stream"), [("openai", openai_stream), ("azure", openai_stream), ("anthropic", anthropic_stream)])
def test_a_server_that_never_gives_a_reason_is_named_in_the_table(name: str, stream: Any):
    with Exact([streamed(stream(("te", None), ("a", None)))]) as server:
        with pytest.raises(Fault, match=r"without a finish reason.*finish_reason = false") as caught:
            ask(at(server, name), request(stream=True))
        assert caught.value.kind == "truncated"
        deltas, answer = ask(at(server, name, finish_reason=False), request(stream=True))
    assert ("".join(deltas), answer.text, answer.finish_reason) == ("tea", "tea", "unknown")


def test_without_its_mark_at_the_end_such_a_stream_is_cut_all_the_same():
    with Exact([streamed(sse(openai_chunk("te")))]) as server, pytest.raises(Fault) as caught:
        ask(at(server, "openai", finish_reason=False), request(stream=True))
    assert caught.value.kind == "truncated"


# -- what is text, and what is none --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nothing",
    [
        b"data:\n\n",
        b"data: \n\n",
        b"data:  \t\n\n",
        b"data:\ndata:\n\n",
        b"event: ping\ndata:\n\n",
        b": hello\n\n",
        b"data: null\n\n",
        b'data: ""\n\n',
        b"event: ping\ndata: still here\n\n",
        b'event: keep-alive\ndata: {"type": "ping"}\n\n',
    ],
)
def test_an_event_with_nothing_is_a_sign_of_life(wire: Spoken, nothing: bytes):
    if wire.name == "pool" and nothing.startswith(b"event: ping\ndata: "):
        return  # a pool names no events
    if wire.name == "bedrock":
        empty = [frame(b"", event_type="contentBlockDelta"), frame(b"null", event_type="metadata"), bedrock_frame("ping", {})]
        assert wire.fold(b"".join([*empty, bedrock_stream(("tea", "end_turn")), *empty])).text == "tea"
        return
    if wire.name in ("sagemaker", "tgi"):
        events = b"".join(nothing + e + b"\n\n" for e in openai_stream(("t", None), ("ea", "stop")).split(b"\n\n") if e) + nothing
        assert wire.fold(frames(events)).text == "tea"
        return
    events = b"".join(nothing + e + b"\n\n" for e in wire.stream(("t", None), ("ea", wire.stop)).split(b"\n\n") if e) + nothing
    answer = wire.fold(events)
    assert (answer.text, answer.finish_reason) == ("tea", "stop")


def test_signs_of_life_yield_no_piece():
    reader = openai.Chat()
    assert reader.feed(b"data:\n\n") is None
    assert reader.feed(sse(openai_chunk("t"))) == "t"
    assert reader.feed(b"data: \n\ndata: [DONE] \n\n") is None
    assert reader.done


def other(text: str, word: str | None = None, index: int = 1) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": word}


@pytest.mark.parametrize(
    "events",
    [
        [
            {"choices": [other("x")]},
            {"choices": [other("te", None, 0)]},
            {"choices": [other("y", "length")]},
            {"choices": [other("a", "stop", 0)]},
        ],
        [{"choices": [other("x"), other("te", None, 0)]}, {"choices": [other("y", "content_filter"), other("a", "stop", 0)]}],
        [{"choices": [{**other("tea", "stop"), "index": "0"}]}, {"choices": [{**other("x", "stop"), "index": "1"}]}],
        [{"choices": [{"delta": {"content": "tea"}, "finish_reason": "stop"}, {"delta": {"content": "x"}}]}],
    ],
)
@pytest.mark.parametrize("reader", [openai.Chat, sagemaker.EventStream])
def test_a_second_choice_is_not_mixed_into_the_first(events: Sequence[Any], reader: Any):
    data = sse(*events, "[DONE]")
    answer = fed(reader(), data if reader is openai.Chat else frames(data))
    assert (answer.text, answer.finish_reason) == ("tea", "stop")


def test_a_second_choice_of_a_pool_is_not_mixed_in():
    events = [
        {"choices": [other("x")]},
        {"choices": [other("te", None, 0)]},
        {"choices": [other("y", "length")]},
        {"choices": [other("a", "stop", 0)]},
    ]
    answer = pooled(sse(*events, "[DONE]"))
    assert (answer.text, answer.finish_reason) == ("tea", "stop")


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None},
        {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        {"choices": [{"index": 0}]},
        {"choices": [], "error": None, "usage": None},
    ],
)
def test_what_a_pool_leaves_out_is_none(odd: dict[str, Any]):
    """vLLM's chunks come through a pool as they are."""
    events = [odd, {"choices": [{"index": 0, "delta": {"content": "tea"}, "finish_reason": "length"}]}, odd, openai_chunk(finish="stop")]
    answer = pooled(sse(*events, "[DONE]"))
    assert (answer.text, answer.finish_reason) == ("tea", "length")
    with pytest.raises(Fault, match="does not belong to an answer"):
        pooled(sse([odd]))


def test_of_whole_choices_the_first_counts_wherever_it_stands():
    tea, x = openai_whole("tea", "stop")["choices"][0], {**openai_whole("x", "length")["choices"][0], "index": 1}
    assert openai.read({"choices": [x, tea]}).text == openai.read({"choices": [tea, x]}).text == "tea"
    assert openai.read({"choices": [{**tea, "index": 1}]}).text == "tea", "alone it is the first, whatever its number"


def test_a_second_candidate_is_not_mixed_into_the_first():
    second = {"content": {"parts": [{"text": "x"}]}, "index": 1, "finishReason": "MAX_TOKENS"}
    first = gemini_part("tea", "STOP")["candidates"][0]
    for candidates in ([second, first], [first, second]):
        assert gemini.read({"candidates": candidates}).text == "tea"
    answer = fed(gemini.Generated(), sse({"candidates": [second]}, {"candidates": [second, first]}))
    assert (answer.text, answer.finish_reason) == ("tea", "stop")


def test_text_after_the_reason_is_the_answers_until_the_stream_is_marked_as_ended():
    late = sse(openai_chunk("te", "stop"), openai_chunk("a", "stop"), "[DONE]", openai_chunk(" and more", "length"), "[DONE]")
    assert fed(openai.Chat(), late).text == "tea"
    first, rest = late.split(b"\n\n", 1)
    with Exact([stream_head(), chunk(first + b"\n\n"), 0.1, chunk(rest), END]) as server:
        deltas, answer = ask(at(server, "openai"), request(stream=True))
    assert ("".join(deltas), answer.text) == ("tea", "tea"), "what was shown is what is kept"
    assert pooled(late).text == "tea"


def test_a_second_message_in_one_body_is_another_answer():
    second = [{**openai_chunk(text, word), "id": "second"} for text, word in ((" x", None), (None, "length"))]
    answer = fed(openai.Chat(), sse(openai_chunk("tea"), openai_chunk(finish="stop"), *second, "[DONE]"))
    assert (answer.text, answer.finish_reason) == ("tea", "stop")
    for ends in (b"", b'event: message_stop\ndata: {"type": "message_stop"}\n\n'):
        first = anthropic_stream(("tea", "end_turn")).partition(b"event: message_stop")[0] + ends
        answer = fed(anthropic.Messages(), first + anthropic_stream((" x", "max_tokens")))
        assert (answer.text, answer.finish_reason) == ("tea", "stop")


def test_a_second_message_of_gemini_and_of_a_container_is_another_answer():
    second = {**gemini_part(" x", "MAX_TOKENS"), "responseId": "second"}
    assert fed(gemini.Generated(), sse(gemini_part("te", "STOP"), gemini_part("a", "STOP"), second)).text == "tea"
    answer = fed(sagemaker.EventStream(), tgi_stream(("tea", "eos_token")) + tgi_stream((" x", "length")))
    assert (answer.text, answer.finish_reason) == ("tea", "stop")


def test_an_answer_that_comes_whole_as_the_only_event_is_read_and_one_repeated_at_the_end_is_not():
    whole = openai_whole("tea", "stop")
    assert fed(openai.Chat(), sse(whole, "[DONE]")).text == "tea"
    assert fed(openai.Chat(), sse(openai_chunk("te"), openai_chunk("a"), whole, "[DONE]")).text == "tea"


def test_a_message_without_its_stop_event_is_whole_once_its_reason_is_there():
    data = anthropic_stream(("tea", "end_turn")).partition(b"event: message_stop")[0]
    assert fed(anthropic.Messages(), data).text == "tea"


@pytest.mark.parametrize("delta", [None, "x", [], 3])
def test_an_odd_message_delta_is_no_fault_of_ours(delta: Any):
    events = anthropic_events({"type": "message_delta", "delta": delta}, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    assert fed(anthropic.Messages(), anthropic_stream(("tea", None)).partition(b"event: message_stop")[0] + events).text == "tea"


def test_text_in_the_start_of_a_block_counts():
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "te"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    assert fed(anthropic.Messages(), anthropic_events(start, delta, end)).text == "tea"
    assert anthropic.read({"content": "tea", "stop_reason": "end_turn"}).text == "tea"
    assert anthropic.read({"content": None, "stop_reason": "end_turn"}).text == ""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("tea", "tea"),
        ([{"type": "text", "text": "te"}, {"type": "text", "text": "a"}], "tea"),
        ([{"text": "te"}, "a"], "tea"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "tea"}], "tea"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "tea"}], "tea"),
        ({"type": "text", "text": "tea"}, "tea"),
        (None, ""),
        ([], ""),
        ([None, 3, {"type": "image_url"}], ""),
    ],
)
def test_contents_in_parts(content: Any, text: str):
    assert openai.read(openai_whole(content, "stop")).text == text
    event = {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}
    assert (
        fed(
            openai.Chat(),
            sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}, event, {"choices": []}, openai_chunk(finish="stop")),
        ).text
        == text
    )


@pytest.mark.parametrize("content", [42, 4.5, True])
def test_a_number_in_the_place_of_text_is_no_answer(content: Any):
    """What a gateway made a number of (007, 1.10) cannot be told any more."""
    for attempt in (
        lambda: openai.read(openai_whole(content, "stop")),
        lambda: openai.Chat().feed(sse({"choices": [{"index": 0, "delta": {"content": content}}]})),
    ):
        with pytest.raises(Fault, match="not text") as caught:
            attempt()
        assert caught.value.kind == "server"


def test_a_refusal_is_one_streamed_or_not():
    whole = {"choices": [{"index": 0, "message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}
    event = {"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": None}]}
    for answer in (openai.read(whole), fed(openai.Chat(), sse(event, openai_chunk(finish="stop")))):
        assert (answer.text, answer.finish_reason) == ("No.", "refusal")


@pytest.mark.parametrize("call", [{"tool_calls": [{"index": 0}]}, {"function_call": {"name": "f"}}])
@pytest.mark.parametrize("word", ["stop", "tool_calls"])
def test_nothing_but_the_call_of_a_tool_ended_by_it(call: dict[str, Any], word: str):
    """vLLM and OpenAI end with `stop` where the tool was asked for by name."""
    for content, reason in ((None, "tool"), ("", "tool"), ("tea", "tool" if word == "tool_calls" else "stop")):
        message = {"content": content, **call}
        whole = {"choices": [{"index": 0, "message": message, "finish_reason": word}]}
        pieces = [{"choices": [{"index": 0, "delta": {"content": content}}]}, {"choices": [{"index": 0, "delta": call}]}]
        answers = (openai.read(whole), fed(openai.Chat(), sse(*pieces, openai_chunk(finish=word))))
        assert {a.finish_reason for a in answers} == {reason}


def test_counts_of_nothing_leave_those_that_came():
    counts = {"prompt_tokens": 5, "completion_tokens": 7}
    answer = fed(openai.Chat(), sse({**openai_chunk("tea", "stop"), "usage": counts}, {"choices": [], "usage": {}}))
    assert (answer.usage.tokens_in, answer.usage.tokens_out) == (5, 7)
    last = gemini_part("", "STOP") | {"usageMetadata": {}}
    answer = fed(gemini.Generated(), sse(gemini_part("tea") | {"usageMetadata": {"promptTokenCount": 5}}, last))
    assert answer.usage.tokens_in == 5


# -- Gemini's and SageMaker's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [{}, {"candidates": []}, {"candidates": [{}]}, {"candidates": None}])
def test_a_blocked_prompt_says_so_whatever_its_candidates(candidates: Any):
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **candidates}
    for attempt in (lambda: gemini.read(blocked), lambda: gemini.Generated().feed(sse(blocked))):
        with pytest.raises(Fault, match=r"PROHIBITED_CONTENT.*rephrase") as caught:
            attempt()
        assert caught.value.kind == "content_filter"


@pytest.mark.parametrize("reason", [None, "", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"])
def test_a_reason_that_says_nothing_blocks_no_prompt(reason: str | None):
    assert gemini.read(gemini_part("tea", "STOP") | {"promptFeedback": {"blockReason": reason}}).text == "tea"


def test_what_gemini_says_beside_its_reason_is_told():
    value = gemini_part("", "RECITATION")
    value["candidates"][0]["finishMessage"] = "It is from a song."
    for attempt in (lambda: gemini.read(value), lambda: fed(gemini.Generated(), sse(value))):
        with pytest.raises(Fault, match=r"RECITATION: It is from a song\."):
            attempt()
    value = gemini_part("tea", "OTHER")
    value["candidates"][0]["finishMessage"] = "Who knows."
    assert gemini.read(value).note == 'the server\'s finish reason was "OTHER: Who knows."'


def test_a_function_call_is_a_tools_end():
    value = gemini_part(None, "STOP")
    value["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "f"}}]
    assert gemini.read(value).finish_reason == fed(gemini.Generated(), sse(value)).finish_reason == "tool"


def test_an_error_among_texts_found_by_a_path_is_one():
    reader = sagemaker.EventStream("text")
    reader.feed(frames(b'{"text": "half"}\n'))
    with pytest.raises(Fault, match="worker died"):
        reader.feed(frames(b'{"error": {"message": "worker died", "code": 500}}\n'))


# -- thinking ------------------------------------------------------------------------------------------------------------


def test_an_error_beside_a_choice_is_told():
    """OpenRouter, openrouter.ai/docs/api-reference/errors: the provider behind it failed in the middle."""
    choice = {"index": 0, "delta": {"content": ""}, "message": {"content": "half"}, "finish_reason": "error"}
    value = {"choices": [{**choice, "error": {"code": 502, "message": "Provider disconnected"}}]}
    for attempt in (lambda: openai.read(value), lambda: fed(openai.Chat(), sse(openai_chunk("half"), value, "[DONE]"))):
        with pytest.raises(Fault, match="502: Provider disconnected") as caught:
            attempt()
        assert (caught.value.kind, caught.value.retry, caught.value.status) == ("server", True, 502)


def test_that_tokens_went_to_thinking_is_known_on_every_wire():
    counted = {"prompt_tokens": 1, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 5}}
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    part = gemini_part("hm", "MAX_TOKENS")
    part["candidates"][0]["content"]["parts"][0]["thought"] = True
    cut = openai_chunk(finish="length")
    answers = [
        openai.read({**openai_whole("", "length"), "usage": counted}),
        openai.read({"choices": [{"message": {"content": "", "reasoning": "hm"}, "finish_reason": "length"}]}),
        fed(openai.Chat(), sse({**cut, "usage": counted})),
        fed(openai.Chat(), sse(thought, cut)),
        pooled(sse(thought, cut, "[DONE]")),
        anthropic.read({"content": [{"type": "redacted_thinking", "data": "x"}], "stop_reason": "max_tokens"}),
        fed(anthropic.Messages(), anthropic_events(block, {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}})),
        gemini.read(part),
        bedrock.read({"output": {"message": {"content": [{"reasoningContent": {"redactedContent": "eA=="}}]}}, "stopReason": "max_tokens"}),
        fed(bedrock.Converse(), bedrock_delta({"reasoningContent": {"text": "hm"}}) + bedrock_stream((None, "max_tokens"))),
        gemini.read({**gemini_part(None, "MAX_TOKENS"), "usageMetadata": {"thoughtsTokenCount": 5}}),
    ]
    assert [(a.text, a.finish_reason, a.thinking) for a in answers] == [("", "length", True)] * len(answers)
    assert not openai.read(openai_whole("tea", "stop")).thinking


def test_a_whole_answer_over_http_is_read_the_same():
    with Exact([reply(openai_whole("tea", "FinishReason.STOP"))]) as server:
        assert ask(at(server, "openai"))[1].finish_reason == "stop"
