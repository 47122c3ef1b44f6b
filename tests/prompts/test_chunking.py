"""Pieces of long texts: none too long, nothing lost, in order; and a plan that makes one answer of many."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.errors import BadOption
from holynb.prompts import chunking, tokens
from holynb.types import Message, Prompt, Sampling

WORDS = ["alpha", "beta", "gamma", "delta", "한국어", "문장", "パーツ", "分割", "naïve", "😀", "https://x.example/a?b=c", "3.14", "e.g."]


def prompt(text: str, system: str | None = None) -> Prompt:
    head = (Message("system", system),) if system else ()
    return Prompt((*head, Message("user", text)), Sampling(max_tokens=9), "analysis")


def book(pages: int, seed: int = 1) -> tuple[str, list[str]]:
    """A long text of paragraphs, with one fact planted on every page."""
    rng = random.Random(seed)
    facts = [f"The number of room {page} is {rng.randrange(10**6)}." for page in range(pages)]
    out = []
    for fact in facts:
        sentences = [" ".join(rng.choices(WORDS, k=rng.randrange(5, 25))).capitalize() + "." for _ in range(20)]
        sentences.insert(rng.randrange(20), fact)
        out.append("\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)))
    return "\n\n".join(out), facts


# -- pieces --------------------------------------------------------------------------------------------------------------
texts = st.one_of(
    st.text(max_size=3000),
    st.lists(st.sampled_from([*WORDS, ". ", "! ", "\n", "\n\n", " ", "。", "\r\n\r\n", "\t"]), max_size=800).map(" ".join),
    st.text(alphabet="a\u0301\u200d👨👩🏽é", max_size=1500),
    st.integers(0, 20_000).map(lambda n: "x" * n),
)


@given(texts, st.integers(chunking.MIN_PIECE_TOKENS, 400), st.floats(0, 0.5))
def test_nothing_is_lost_no_piece_is_too_long_and_order_is_kept(text, most, share):
    pieces = chunking.split(text, most, overlap=int(most * share))
    done = 0
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert tokens.count_high(piece.text) <= most
        new = piece.start + piece.overlap
        assert new >= done
        assert not text[done:new].strip()
        assert piece.end > new
        done = piece.end
    assert not text[done:].strip()
    assert pieces or not text.strip()


def test_a_heading_is_no_piece_of_its_own():
    """The only paragraph's end is near the beginning: a cut between sentences, further on, fills the piece."""
    text = "Chapter one\n\n" + "The parcel came late and nobody was at home. " * 60
    pieces = chunking.split(text, 200)
    assert len(pieces) < 8
    assert all(tokens.count_high(p.text) > 100 for p in pieces[:-1])
    assert all(p.text.rstrip().endswith("home.") for p in pieces)


@given(texts, st.integers(chunking.MIN_PIECE_TOKENS, 300))
def test_an_overlap_repeats_the_end_of_the_piece_before(text, most):
    pieces = chunking.split(text, most, overlap=most // 4)
    for before, piece in itertools.pairwise(pieces):
        assert piece.overlap <= len(before.text) or not text[before.end : piece.start].strip()
        assert tokens.count_high(piece.text[: piece.overlap]) <= most // 4


def test_cuts_fall_between_paragraphs_then_lines_then_sentences_then_words():
    def ends(text: str) -> set[str]:
        return {piece.text[-1:] for piece in chunking.split(text, 100)[:-1]}

    sentence = "one two three four five six seven eight nine ten. "
    assert all(p.text.endswith("\n\n") for p in chunking.split((sentence * 4 + "\n\n") * 20, 100)[:-1])
    assert all(p.text.endswith(".\n") for p in chunking.split((sentence.strip() + "\n") * 40, 100)[:-1])
    assert all(p.text.endswith(". ") for p in chunking.split(sentence * 40, 100)[:-1])
    assert all(p.text.endswith("。") for p in chunking.split("これは一つの文です。" * 60, 100)[:-1])
    assert ends("word " * 400) == {" "}
    assert ends("x" * 4000) == {"x"}


def test_a_joined_character_stays_whole():
    family = "👨‍👩‍👧‍👦"
    pieces = chunking.split(family * 60, chunking.MIN_PIECE_TOKENS)
    assert len(pieces) > 5
    assert all(p.text.startswith(family) and p.text.endswith(family) for p in pieces)


@pytest.mark.parametrize(
    "text",
    ["a" * 2_000_000, "가" * 700_000, "word " * 400_000, "x\n" * 1_000_000, " " * 2_000_000, "This is one. " * 150_000],
    ids=["no space", "hangul", "words", "lines", "blank", "sentences"],
)
def test_two_megabytes_are_quick(text):
    start = time.monotonic()
    pieces = chunking.split(text, 3000, overlap=150)
    assert time.monotonic() - start < 30  # under a second on two quiet cores
    assert all(tokens.count_high(p.text) <= 3000 for p in pieces)
    assert "".join(p.text[p.overlap :] for p in pieces) == (text if text.strip() else "")


def test_another_count_is_obeyed():
    pieces = chunking.split("one two three " * 100, 64, count=lambda t: len(t.split()))
    assert [len(p.text.split()) for p in pieces[:-1]] == [64] * (len(pieces) - 1)


@pytest.mark.parametrize(("most", "overlap"), [(10, 0), (100, 51), (100, -1)])
def test_sizes_that_cannot_be(most, overlap):
    with pytest.raises(BadOption, match="at least 64 tokens"):
        chunking.split("x", most, overlap=overlap)


# -- plans ---------------------------------------------------------------------------------------------------------------
def test_a_prompt_that_fits_is_left_alone():
    assert chunking.plan(prompt("short"), 4000) is None


def test_two_hundred_pages_on_a_server_that_refuses_over_four_thousand_tokens():
    text, facts = book(200)
    long_prompt = prompt(f"List the number of every room.\n\n{text}\n\nAnswer as a table.", "You read carefully.")
    plan = chunking.plan(long_prompt, 4000)
    assert all(sum(tokens.count_high(m.content) for m in p.messages) <= 4000 for p in plan.parts)
    where = [next(i for i, p in enumerate(plan.parts) if fact in p.text) for fact in facts]
    assert where == sorted(where)
    assert set(where) == set(range(len(plan.parts)))
    for i, part in enumerate(plan.parts, 1):
        assert part.text.startswith("List the number of every room.\n\n")
        assert part.text.endswith("\n\nAnswer as a table.")
        assert f"[Part {i} of {len(plan.parts)}]\n" in part.text
        assert part.messages[0] == Message("system", "You read carefully.")
        assert (part.sampling, part.task_type) == (long_prompt.sampling, "analysis")


def test_answers_are_put_together_in_rounds_that_fit():
    text, _ = book(60)
    plan = chunking.plan(prompt(f"Summarise.\n\n{text}"), 1500)
    answers = [f"answer {i}. " * 30 for i in range(len(plan.parts))]
    rounds = 0
    while len(answers) > 1:
        combined = plan.reduce(answers)
        assert len(combined) <= max(1, len(answers) * 2 // 3)
        prompts = [p for p in combined if isinstance(p, Prompt)]
        assert all(tokens.count_high(p.text) <= 1500 for p in prompts)
        assert all(p.text.startswith("Summarise.\n\n") for p in prompts)
        assert all(
            f"answer {i}." in "".join(p if isinstance(p, str) else p.text for p in combined) for i in range(len(answers)) if rounds == 0
        )
        answers = [p if isinstance(p, str) else f"answer {i}. " * 30 for i, p in enumerate(combined)]
        rounds += 1
    assert 1 < rounds < 10


def test_an_answer_too_long_to_stand_beside_another_is_shortened():
    plan = chunking.plan(prompt("Sum up.\n\n" + "A sentence of the text. " * 2000), 1000)
    (last,) = plan.reduce(["It begins. " * 1000, "It ends."])
    assert tokens.count_high(last.text) <= 1000
    assert "It begins. …" in last.text
    assert "[Part 2]\nIt ends." in last.text


def test_one_answer_needs_nobody():
    plan = chunking.plan(prompt("word " * 5000), 1000)
    with pytest.raises(ValueError, match="nothing to put together"):
        plan.reduce(["only one"])


def test_a_conversation_keeps_its_other_turns():
    talk = Prompt(
        (
            Message("user", "hello"),
            Message("assistant", "yes?"),
            Message("user", "Read this:\n" + "word " * 3000),
            Message("assistant", "So:"),
        )
    )
    plan = chunking.plan(talk, 1000)
    assert len(plan.parts) > 2
    for part in plan.parts:
        assert [m.role for m in part.messages] == ["user", "assistant", "user", "assistant"]
        assert part.messages[0].content == "hello"
        assert part.messages[2].content.startswith("Read this:\n\n[Part ")


def test_a_question_that_leaves_no_room_is_refused():
    with pytest.raises(BadOption, match="leaves no room for the text"):
        chunking.plan(prompt("text " * 500, "rule " * 900), 1000)


# -- how long a piece may be ---------------------------------------------------------------------------------------------
def test_sizes():
    assert chunking.request_size("1_500", None, 100) == chunking.request_size("1,500", 99, 100) == 1500
    assert chunking.request_size("auto", None, 100) == chunking.DEFAULT_CONTEXT_TOKENS
    assert chunking.request_size("auto", 8192, 512) == 8192 - 512 - 163
    assert chunking.request_size("auto", 100, 512) == chunking.MIN_PIECE_TOKENS


@pytest.mark.parametrize("option", ["", "some", "0", "-5", "63", "1.5", "2k"])
def test_sizes_that_are_none(option):
    with pytest.raises(BadOption, match="--chunk takes auto, or a number of tokens from 64"):
        chunking.request_size(option, None, 100)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9011 tokens.", 8192),
        ("You passed 1015 input tokens and requested 20 output tokens. However, the model's context length is only 1024 tokens", 1024),
        ("prompt is too long: 205351 tokens > 200000 maximum", 200_000),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 4096),
        ("The input is over the limit of 4,000 tokens.", 4000),
        ("something else 12345", None),
        ("", None),
    ],
)
def test_limits_that_servers_name(message, limit):
    assert chunking.stated_context_limit(message) == limit
