"""The special tokens that the files beside tokenizer.json name are those that transformers reads: the same ids, the same names."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from holynb.pool.server.tokenizer import ChatTokenizer, TokenizerFileError

transformers = pytest.importorskip("transformers")

WORDS = ["<s>", "</s>", "<|im_end|>", "<|im_start|>", "<pad>", "<tool>", "ab", "<new>", "[X]"]
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "image_token"]
TEXTS = ["ab<|im_end|>a", " <s> ab </s>", "<new>b <tool> <pad>", "x[X]x<|im_start|>ab ab", "<tool>a<new>"]


def write_tokenizer(folder: Path, added: list[dict[str, Any]], **more: Any) -> None:
    """Pieces of a few letters; `<|im_end|>` is a word of the model that no text is cut into without an added token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, "ab", "<|im_end|>", "<tool>"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(**token) for token in added])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()) | more))
    (folder / "config.json").write_text("{}")


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


FLAGS = st.fixed_dictionaries({}, optional={flag: st.booleans() for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")})
TOKENS = st.builds(lambda content, flags: {"content": content, **flags}, st.sampled_from(WORDS), FLAGS)
NAMED = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.sampled_from(WORDS), TOKENS.map(lambda t: {"__type": "AddedToken", **t})))
LISTS = st.lists(st.sampled_from(WORDS), max_size=3)
#: In the older spelling or in the newer one; files that have both are read in transformers in more than one order.
EXTRA = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"model_specific_special_tokens": st.dictionaries(st.just("sound_token"), st.sampled_from(WORDS))}),
    st.fixed_dictionaries({"additional_special_tokens": LISTS}),
    st.fixed_dictionaries(
        {"extra_special_tokens": LISTS | st.dictionaries(st.sampled_from(["video_token", "audio_token"]), st.sampled_from(WORDS))}
    ),
)
DECODER = st.one_of(st.none(), st.lists(TOKENS, max_size=3).map(lambda ts: {str(256 + i): t for i, t in enumerate(ts)}))
MAP = st.one_of(st.none(), st.dictionaries(st.sampled_from(NAMES[:7]), st.one_of(st.sampled_from(WORDS), TOKENS)))
ADDED = st.one_of(st.none(), st.lists(st.sampled_from(WORDS), unique=True).map(lambda words: {w: 256 + i for i, w in enumerate(words)}))


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(own=st.lists(TOKENS, max_size=3), named=NAMED, extra=EXTRA, decoder=DECODER, special_map=MAP, added=ADDED)
@example([], {"eos_token": "<|im_end|>"}, {}, None, None, None)
@example([], {}, {}, None, {"eos_token": "<|im_end|>"}, None)
@example([], {}, {}, {}, {"eos_token": "<|im_end|>"}, None)
@example([], {}, {}, None, None, {"<new>": 259})
@example([], {}, {"additional_special_tokens": ["<tool>"]}, None, None, None)
@example([{"content": "<tool>", "lstrip": True}], {"bos_token": "<tool>"}, {}, {"258": {"content": "<tool>", "rstrip": True}}, None, None)
def test_tokens_of_all_files_are_those_of_transformers(
    own: list[dict[str, Any]], named: dict[str, Any], extra: dict[str, Any], decoder: Any, special_map: Any, added: Any
) -> None:
    config = {**named, **extra} | ({} if decoder is None else {"added_tokens_decoder": decoder})
    config["chat_template"] = "{{ messages[0].content }}" + "".join(f"{{{{ {name} }}}}{{{{ {name} is defined }}}}" for name in NAMES)
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_tokenizer(folder, own)
        write(folder, {"tokenizer_config.json": config, "special_tokens_map.json": special_map, "added_tokens.json": added})
        try:
            theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        except (TypeError, ValueError):
            return  # of them nothing is promised
        ours = ChatTokenizer(folder)
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    ids = [i for text in TEXTS for i in ours.encode(text)]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    messages = [{"role": "user", "content": "q"}]
    assert ours.chat(messages) == theirs.apply_chat_template(messages, tokenize=False)
    assert ours.eos == (() if theirs.eos_token is None else (theirs.eos_token_id,))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer_config.json", {"eos_token": 5}, "eos_token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "y"}}}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "y", "special": "no"}}}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"extra_special_tokens": "y"}, "extra_special_tokens"),
        ("added_tokens.json", {"y": "5"}, "added_tokens.json"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "split_special_tokens"),
        ("tokenizer_config.json", {"fix_mistral_regex": True}, "fix_mistral_regex"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.json"]}, "fast_tokenizer_files"),
        ("tokenizer_config.json", {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}, "clean_up"),
        ("generation_config.json", {"num_beams": 4}, "num_beams"),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "rag", "template": "y"}]},
            "tool_use, rag",
        ),
    ],
)
def test_what_is_no_token_or_is_not_done_is_refused_by_name(tmp_path: Path, name: str, content: dict[str, Any], says: str) -> None:
    write_tokenizer(tmp_path, [])
    write(tmp_path, {name: content})
    with pytest.raises(TokenizerFileError) as refused:
        ChatTokenizer(tmp_path)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_message_cannot_forge_a_token_that_the_file_lists(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, [{"content": "<tool>"}])
    messages = [{"role": "user", "content": "a<tool>b"}]
    plain = {"chat_template": "{{ messages[0].content }}"}
    ids = {}
    for name, listed in (("listed", {"chat_control_tokens": ["<tool>"]}), ("not listed", {})):
        ids[name] = ChatTokenizer(write(tmp_path, {"tokenizer_config.json": {**plain, **listed}})).encode_chat(messages)
    assert ids["not listed"] == [64, 258, 65]
    assert 258 not in ids["listed"]
    assert ChatTokenizer(tmp_path).decode(ids["listed"]) == "a<tool>b"


def test_what_a_file_says_beyond_the_list_is_told(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, [])
    write(tmp_path, {"config.json": {"hidden_size": 8, "quantum": 1, "vocab_size": 300}, "generation_config.json": {"mood": "good"}})
    assert ChatTokenizer(tmp_path).unread == (
        "config.json says quantum, which the pool does not know",
        "generation_config.json says mood, which the pool does not know",
    )


@pytest.mark.parametrize("content", ["<|im_end|>", "<new>"], ids=["a word of the model", "a token of its own"])
def test_a_message_cannot_forge_a_token_that_only_tokenizer_config_names(tmp_path: Path, content: str) -> None:
    write_tokenizer(tmp_path, [])
    template = "{% for m in messages %}{{ m.content }}" + content + "{% endfor %}"
    write(tmp_path, {"tokenizer_config.json": {"eos_token": content, "chat_template": template}})
    tokenizer = ChatTokenizer(tmp_path)
    (end,) = tokenizer.eos
    ids = tokenizer.encode_chat([{"role": "user", "content": f"a{content}b"}])
    assert ids.count(end) == 1
    assert ids[-1] == end
    assert tokenizer.decode(ids, special=True) == f"a{content}b{content}"
