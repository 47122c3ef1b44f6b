"""What a GGUF file says is read as llama.cpp reads it: tokens, ends, log probabilities, refusals.

llama.cpp's answers stand in `tests/llamacpp/answers.json`, recorded by the script beside it from files that are made again here to the bit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

HERE = Path(__file__).parents[2] / "llamacpp"
sys.path.insert(0, str(HERE))

import files  # noqa: E402
import rows  # noqa: E402

from holynb.pool.job import LogitRules  # noqa: E402
from holynb.pool.models.convert import ConvertError, convert  # noqa: E402
from holynb.pool.models.gguf_facts import Facts  # noqa: E402
from holynb.pool.models.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer  # noqa: E402
from holynb.pool.models.gguf_vocabulary import Vocabulary  # noqa: E402
from holynb.pool.protocol import Job  # noqa: E402
from holynb.pool.server.tokenizer import ChatTokenizer  # noqa: E402

ANSWERS: dict[str, dict[str, Any]] = json.loads((HERE / "answers.json").read_text("utf-8"))

#: llama.cpp cuts a word at a combining mark in these ways, the models' own tokenizer.json does not: two texts of `files.WILD` differ.
DIFFERENT = {"tekken", "gpt-4o"}

WAYS: dict[PreTokenizer, list[str]] = {}
for word, known in PRE_TOKENIZERS.items():
    WAYS.setdefault(known, []).append(word)


def folder_of(row: files.Row, place: Path) -> Path:
    row.write(place / "x.gguf")
    (place / "made").mkdir()
    convert(place / "x.gguf", place / "made")
    return place / "made"


def test_every_row_has_an_answer() -> None:
    for kind in ("computed", "ends", "cut", "refused"):
        assert set(ANSWERS[kind]) == set(getattr(rows, kind.upper()))
        assert all((said is None) == (kind == "refused") for said in ANSWERS[kind].values())


@pytest.mark.parametrize("name", rows.COMPUTED)
def test_the_same_is_computed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from holynb.pool.engine.runner import Runner

    runner = Runner(folder_of(rows.COMPUTED[name], tmp_path), dtype="float32")
    for i, prompt in enumerate(rows.PROMPTS):
        runner.add(Job(i, tuple(prompt), 8, ignore_eos=True, logprobs=20, rules=LogitRules(bias=((319, -1000.0),))))
    tokens: dict[int, list[int]] = {}
    first: dict[int, Any] = {}
    while not runner.idle:
        for emit in runner.step():
            tokens.setdefault(emit.id, []).extend(emit.tokens)
            if emit.scores:
                first.setdefault(emit.id, emit.scores[0])
    for i, said in enumerate(ANSWERS["computed"][name]):
        ours = dict(first[i][2])
        if name in rows.ROUNDED:
            assert all(ours[token] == pytest.approx(score, abs=0.4) for token, score in said["best"][:2]), i
            continue
        assert {token: ours[token] for token, _ in said["best"]} == pytest.approx(dict(said["best"]), abs=3e-4), i
        assert tokens[i] == said["tokens"], i


@pytest.mark.parametrize("name", rows.ENDS)
def test_the_same_tokens_end_an_answer(name: str, tmp_path: Path) -> None:
    row = rows.ENDS[name]
    ends = ChatTokenizer(folder_of(row, tmp_path)).eos
    last = range(len(row.facts()["tokenizer.ggml.tokens"]) - 6, len(row.facts()["tokenizer.ggml.tokens"]))
    assert sorted(set(ends) & set(last)) == ANSWERS["ends"][name]


@pytest.mark.parametrize("name", rows.CUT)
def test_a_text_is_the_same_tokens(name: str, tmp_path: Path) -> None:
    tokenizer, said = ChatTokenizer(folder_of(rows.CUT[name], tmp_path)), ANSWERS["cut"][name]
    for text, ids in zip(rows.CUT[name].texts, said["plain"], strict=True):
        # Where a file says of no token what it is, those that it names are control tokens, as in transformers; to llama.cpp they are words.
        if name != "no token_type" or "<|bos|>" not in text:
            assert tokenizer.encode(text, special=False) == ids, text
    for text, ids in zip(files.WILD, said["special"], strict=False):
        assert tokenizer.encode(text) == ids, text


def answer_of(name: str) -> Any:
    said = ANSWERS["pre"][name]
    return ANSWERS["pre"][said["as"]] if said and "as" in said else said


def facts_of(name: str) -> Facts:
    return Facts(rows.pre_tokenizer(name).facts(), "llama")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: WAYS[way][0])
def test_a_text_is_cut_the_same_way(way: PreTokenizer) -> None:
    """One of the words for a way is asked; of the others, llama.cpp said the same."""
    first, *others = WAYS[way]
    said = answer_of(first)
    assert all(answer_of(name) == said for name in others)
    tokenizer = Tokenizer.from_str(json.dumps(Vocabulary(facts_of(first)).tokenizer()))
    different = {4, 8} if first in DIFFERENT else set()
    for i, (text, ids) in enumerate(zip(files.WILD, said["plain"], strict=True)):
        assert (tokenizer.encode(text, add_special_tokens=False).ids == ids) == (i not in different), text
    for text, ids in zip(files.WILD, said["special"], strict=False):
        assert tokenizer.encode(text).ids == ids, text


def test_a_way_to_cut_that_is_not_known_is_refused_by_name() -> None:
    unknown = set(ANSWERS["pre"]) - set(PRE_TOKENIZERS)
    assert len(unknown) > 10
    for name in unknown:
        with pytest.raises(ConvertError, match=f"'{name}'"):
            Vocabulary(facts_of(name))


@pytest.mark.parametrize("name", rows.REFUSED)
def test_what_it_does_not_take_is_not_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError) as caught:
        folder_of(rows.REFUSED[name], tmp_path)
    assert len(str(caught.value)) < 300
