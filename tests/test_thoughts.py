"""What is thought, told from what is said: whatever stands in a text and wherever it is cut, the parts are the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.thoughts import TAGS, ChannelSplitter, HeadSplitter, Tags, TagSplitter, ThoughtSplitter

Make = Callable[[], ThoughtSplitter]
MAKERS: dict[str, Make] = {
    "tags": TagSplitter,
    "begun": lambda: TagSplitter(TAGS[:1], begun=True),
    "channels": ChannelSplitter,
    "head": HeadSplitter,
}

THINK = "<think>\nOne and one.\n</think>\n\nTwo."
ANALYSIS = "<|channel|>analysis<|message|>One and one.<|end|><|start|>assistant<|channel|>final<|message|>Two.<|return|>"

#: Text → what is thought of it and what is said, for each way to split.
SPLITS: list[tuple[str, str, str, str]] = [
    ("tags", THINK, "One and one.", "Two."),
    ("tags", "[THINK]One and one.[/THINK]Two.", "One and one.", "Two."),
    ("tags", " \n<think>a</think>b", "a", "b"),
    ("tags", "<think></think>\n\nb", "", "b"),
    ("tags", "<think>\n\n</think>\n\nb ", "", "b "),
    ("tags", "<think>a b\n\n c \n</think> b\n", "a b\n\n c", "b\n"),
    ("tags", "<think>a [/THINK] b</think>c", "a [/THINK] b", "c"),
    ("tags", "<think>a</think><think>b</think>c", "a\n\nb", "c"),
    ("tags", "<think>a</thin</think>c", "a</thin", "c"),
    ("tags", "<think>a < b </ c</think>d", "a < b </ c", "d"),
    # Never closed: all of it is thought.
    ("tags", "<think>One and", "One and", ""),
    ("tags", "<think>One and </thi", "One and </thi", ""),
    ("tags", "<think>", "", ""),
    # Not at the head: a text that speaks of tags.
    ("tags", "Write <think>a</think> first.", "", "Write <think>a</think> first."),
    ("tags", "  Two. ", "", "  Two. "),
    ("tags", "<thinking>a</thinking>", "", "<thinking>a</thinking>"),
    ("tags", "<thin", "", "<thin"),
    ("tags", "\n\n <t", "", "\n\n <t"),
    ("tags", " \n", "", " \n"),
    ("tags", "", "", ""),
    ("tags", "a</think>b", "", "a</think>b"),
    ("tags", "<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
    ("begun", "One and one.\n</think>\n\nTwo.", "One and one.", "Two."),
    ("begun", "\n</think>\n\n", "", ""),
    ("begun", "One and", "One and", ""),
    ("begun", "a </thi", "a </thi", ""),
    ("channels", ANALYSIS, "One and one.", "Two."),
    ("channels", "<|channel|>final<|message|>Two.", "", "Two."),
    ("channels", "<|channel|>analysis<|message|>One and", "One and", ""),
    ("channels", "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|> b <|end|>", "a\n\n b", ""),
    ("channels", "<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>", "{}", ""),
    ("channels", "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>x < y <|en", "", "x < y <|en"),
    ("channels", "Two <|end|>.", "", "Two <|end|>."),
    ("channels", "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Two.", "I look.", "Two."),
    ("channels", '<|channel|>final <|constrain|>json<|message|>{"a": 1}<|return|>', "", '{"a": 1}'),
    ("channels", "<|channel|>analysis<|end|><|start|>assistant<|channel|>final<|message|>Two.", "", "Two."),
    ("channels", ANALYSIS.replace("<|return|>", "<|end|>") + "<|start|>user<|message|>And three?<|end|>", "One and one.", "Two."),
    ("channels", "<|channel|>" + "x" * 600, "", "<|channel|>" + "x" * 600),
    ("channels", "  <|chan", "", "  <|chan"),
]
# Whichever of the two it is, is seen at the head.
SPLITS += [("head", *case) for how, *case in SPLITS if how in ("tags", "channels")]


def split(make: Make, pieces: Iterable[str]) -> tuple[str, str]:
    splitter = make()
    parts = [splitter.push(piece) for piece in pieces]
    parts.append(splitter.push("", last=True))
    return "".join(t for t, _ in parts), "".join(s for _, s in parts)


@pytest.mark.parametrize(("how", "text", "thought", "said"), SPLITS)
def test_what_is_thought_and_what_is_said(how: str, text: str, thought: str, said: str) -> None:
    """Whole, byte by byte, and cut in two anywhere."""
    assert split(MAKERS[how], [text]) == (thought, said)
    assert split(MAKERS[how], text) == (thought, said)
    assert all(split(MAKERS[how], [text[:i], text[i:]]) == (thought, said) for i in range(len(text)))


WORDS = [t for tags in TAGS for t in (tags.opening, tags.closing)] + ["<", "</", "[", "think", " ", "\n", "a", "é🙂", "\u2028"]
MARKS = ["<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "<|start|>", "assistant", "<|return|>", "<|", "|>", " ", "\n", "b"]


@pytest.mark.parametrize("how", list(MAKERS))
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_text_with_any_cuts_is_split_as_the_whole_text(how: str, data: st.DataObject) -> None:
    words = {"channels": MARKS, "head": WORDS + MARKS}.get(how, WORDS)
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=14)))
    if data.draw(st.booleans()):
        text = data.draw(st.sampled_from([THINK[:8], ANALYSIS[:30]])) + text
    whole = split(MAKERS[how], [text])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    assert split(MAKERS[how], [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == whole
    assert split(MAKERS[how], text) == whole


@pytest.mark.parametrize(
    ("how", "text", "thinking", "closings"),
    [
        ("tags", THINK, False, 1),
        ("tags", "<think>a", True, 0),
        ("tags", "Two.", False, 0),
        ("begun", "", True, 0),
        ("channels", ANALYSIS, False, 1),
        ("channels", ANALYSIS[:50], True, 0),
        ("channels", "<|channel|>final<|message|>Two.", False, 0),
    ],
)
def test_a_splitter_says_where_it_is(how: str, text: str, thinking: bool, closings: int) -> None:
    splitter = MAKERS[how]()
    splitter.push(text)
    assert (splitter.thinking, splitter.closings) == (thinking, closings)


def test_other_tags_are_split_as_well() -> None:
    assert split(lambda: TagSplitter((Tags("\ud800", "\ud801"),)), "\ud800a<think>\ud801b") == ("a<think>", "b")


@pytest.mark.parametrize(
    "text", ["<think>" + " " * 50_000, " " * 50_000, "<think>" + "<" * 50_000, "<|channel|>analysis<|message|>" + "< " * 25_000]
)
def test_a_long_text_of_blanks_or_beginnings_takes_no_longer_than_another(text: str) -> None:
    began = time.process_time()
    split(ChannelSplitter if text.startswith("<|") else TagSplitter, text)
    assert time.process_time() - began < 3, "each piece costs the same, however much has come"
