"""Thoughts that a server of somebody's own leaves in the text: told apart, whole and streamed, and no other text is touched."""

from __future__ import annotations

import json

import pytest

from holynb.engines import tags
from holynb.engines.openai import Chat, read
from holynb.types import Completion, Endpoint, Route

THINK = "<think>\nOne and one.\n</think>\n\nTwo."
HARMONY = "<|channel|>analysis<|message|>One and one.<|end|><|start|>assistant<|channel|>final<|message|>Two."

CASES = [
    (THINK, "One and one.", "Two."),
    ("[THINK]One and one.[/THINK]Two.", "One and one.", "Two."),
    (HARMONY, "One and one.", "Two."),
    ("<think>\n\n</think>\n\nTwo.", None, "Two."),
    ("<think>One and", "One and", ""),
    ("About <think>: it opens a thought.", None, "About <think>: it opens a thought."),
    ("\n Two. ", None, "\n Two. "),
    ("<thinking>", None, "<thinking>"),
    ("<", None, "<"),
    ("", None, ""),
]


def endpoint(provider: str, wire: str = "openai") -> Endpoint:
    return Endpoint(Route(provider, "m"), wire, "http://localhost:1/v1")


def streamed(text: str, provider: str, step: int = 1, **more: str) -> tuple[Completion, str, str]:
    """The answer of a stream of these characters, and what was shown of thoughts and text while it came."""
    reader = Chat()
    reader.tags = tags.splitter_for(endpoint(provider))
    thought = shown = ""
    deltas = [{"content": text[i : i + step]} for i in range(0, len(text), step)]
    for delta in [more, *deltas] if more else deltas:
        shown += reader.feed(f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()) or ""
        thought += reader.take_thoughts()
    reader.feed(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
    return reader.end(), thought, shown


def whole(text: str, provider: str, **more: str) -> Completion:
    value = {"choices": [{"message": {"content": text, **more}, "finish_reason": "stop"}]}
    return tags.apart(read(value), endpoint(provider))


@pytest.mark.parametrize(("text", "thought", "said"), CASES)
@pytest.mark.parametrize("provider", ["vllm", "ray", "mine"])
def test_thoughts_in_the_text_are_told_apart(text: str, thought: str | None, said: str, provider: str) -> None:
    answer = whole(text, provider)
    assert (answer.reasoning, answer.text) == (thought, said)
    assert answer.thinking == text.startswith(("<think>", "[THINK]", "<|channel|>"))
    for step in (1, 3, 1000):
        streamed_answer, _, shown = streamed(text, provider, step)
        assert (streamed_answer.reasoning, streamed_answer.text) == (thought, said)
        assert said.startswith(shown)


def test_they_are_shown_while_they_come() -> None:
    _, thought, shown = streamed(THINK, "vllm")
    assert (thought, shown) == ("One and one.", "Two.")


@pytest.mark.parametrize("provider", sorted(tags.SPLIT_THEMSELVES))
def test_servers_that_split_themselves_are_believed(provider: str) -> None:
    assert whole(THINK, provider).text == THINK
    assert streamed(THINK, provider)[0].text == THINK
    assert tags.splitter_for(endpoint("anthropic", "anthropic")) is None


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_answer_with_thoughts_of_its_own_keeps_its_text(field: str) -> None:
    """A text that begins with a tag speaks of it, where the server has told the thoughts apart already."""
    assert whole(THINK, "vllm", **{field: "a"}).text == THINK
    answer, _, shown = streamed(THINK, "vllm", **{field: "a"})
    assert (answer.text, answer.reasoning, shown) == (THINK, "a", THINK)


def test_an_answer_that_is_all_thought_is_empty_and_says_so() -> None:
    for answer in (whole("<think>", "vllm"), streamed("<think>", "vllm")[0]):
        assert (answer.text, answer.thinking, answer.reasoning) == ("", True, None)
