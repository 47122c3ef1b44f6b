"""tokenizer.json means what it means in transformers, field by field: the ids of texts, and the texts of ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.pool.server.tokenizer import ChatTokenizer

transformers = pytest.importorskip("transformers")

TEXTS = ["hello hell ello", "<x> a<x>a  <x>", "Hello\u0301 — 한국 \x07", "a<y>b <y> c", "HELLO hello hellohello", ""]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", "▁", "h e", "l l", "he ll", "hell o", "e l"]
VOCAB = {
    word.replace(" ", ""): i for i, word in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *LETTERS, "▁hello"])
}
PLAIN: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": {
        "type": "Sequence",
        "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}],
    },
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": VOCAB,
        "merges": [word.split(" ") for word in LETTERS if " " in word],
    },
}


def token(content: str, number: int, **flags: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
        **flags,
    }


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
}
MORE = len(VOCAB)

#: What is set → fields of tokenizer.json; those of the model under `model`.
FIELDS: dict[str, dict[str, Any]] = {
    "truncation": {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
    "padding": {
        "padding": {
            "strategy": {"Fixed": 40},
            "direction": "Left",
            "pad_to_multiple_of": 8,
            "pad_id": 2,
            "pad_type_id": 0,
            "pad_token": "</s>",
        }
    },
    "normalizer": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}, PLAIN["normalizer"]]}},
    "normalizer, none": {"normalizer": None},
    "pre_tokenizer": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    },
    "post_processor": {"post_processor": TEMPLATE},
    "decoder": {"decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}},
    "added_tokens": {"added_tokens": [token("<x>", MORE), token("<y>", MORE + 1)]},
    **{
        f"added_tokens.{flag}": {"added_tokens": [token("<x>", MORE, **{flag: True}), token("<y>", MORE + 1)]}
        for flag in ("special", "lstrip", "rstrip", "single_word", "normalized")
    },
    "added_tokens.content": {"added_tokens": [token("hell", VOCAB["hell"], special=True)]},
    "model.fuse_unk": {"model": {"fuse_unk": True, "byte_fallback": False}},
    "model.byte_fallback": {"model": {"byte_fallback": False}},
    "model.ignore_merges": {"model": {"ignore_merges": True}},
    "model.unk_token": {"model": {"unk_token": "<s>", "byte_fallback": False}},
    "model.continuing_subword_prefix": {"model": {"continuing_subword_prefix": "", "end_of_word_suffix": ""}},
    "model.merges": {"model": {"merges": [["e", "l"]]}},
    "model.type": {
        "model": {"type": "WordLevel", "vocab": {"hello": 0, "<unk>": 1}, "unk_token": "<unk>"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "normalizer": None,
    },
    "model.unk_id": {
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": False,
            "vocab": [["<unk>", 0.0], ["he", -1.0], ["llo", -1.5], ["▁", -2.0]],
        }
    },
    "model.max_input_chars_per_word": {
        "model": {
            "type": "WordPiece",
            "vocab": {"[UNK]": 0, "hell": 1, "##o": 2},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 5,
        },
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "normalizer": None,
    },
}


def write(folder: Path, fields: dict[str, Any]) -> Path:
    model = fields.get("model", {})
    base = {} if model.get("type") not in (None, "BPE") else PLAIN["model"]
    (folder / "tokenizer.json").write_text(json.dumps(PLAIN | fields | {"model": {**base, **model}}))
    return folder


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_means_what_it_means_in_transformers(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, FIELDS[name])
    ours, theirs = ChatTokenizer(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.encode(text, special=False) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert ours.decode(ids, special=True) == theirs.decode(ids)


@settings(max_examples=30, deadline=None)
@given(dropout=st.floats(0.01, 1.0), text=st.text("hello ", min_size=1, max_size=30))
def test_merges_never_drop_out(tmp_path_factory: pytest.TempPathFactory, dropout: float, text: str) -> None:
    plain = ChatTokenizer(write(tmp_path_factory.mktemp("plain"), {}))
    chance = ChatTokenizer(write(tmp_path_factory.mktemp("chance"), {"model": {"dropout": dropout}}))
    assert {tuple(chance.encode(text)) for _ in range(3)} == {tuple(plain.encode(text))}


@pytest.mark.parametrize(
    "fields",
    [{"normalizer": {"type": "Rot13"}}, {"pre_tokenizer": {"type": "Nobody"}}, {"model": {"type": "GPT9"}}, {"moods": 1}],
    ids=json.dumps,
)
def test_what_the_library_does_not_know_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    from holynb.pool.server.tokenizer import TokenizerFileError

    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json is not a readable tokenizer"):
        ChatTokenizer(write(tmp_path, fields))
