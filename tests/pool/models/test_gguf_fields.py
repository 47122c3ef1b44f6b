"""Every key and tensor that llama.cpp's loader looks for has a row; what a row refuses, and what has none, is refused by name."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from holynb.pool.fit.spec import parse_spec
from holynb.pool.modelfields import ModelField, fields_of, row_of
from holynb.pool.models.gguf_pretokenizers import PRE_TOKENIZERS

HERE = Path(__file__).parents[2] / "llamacpp"
sys.path.insert(0, str(HERE))

import files  # noqa: E402
import rows  # noqa: E402

from holynb.pool.models.convert import ConvertError, convert  # noqa: E402
from holynb.pool.models.gguf_config import config_of_facts, generation_of_facts  # noqa: E402
from holynb.pool.models.gguf_facts import Facts  # noqa: E402
from holynb.pool.models.gguf_tensors import check_tensors  # noqa: E402
from holynb.pool.models.gguf_vocabulary import Vocabulary  # noqa: E402
from holynb.pool.server.generation import read_defaults  # noqa: E402

LOADER: dict[str, Any] = json.loads((HERE / "loader.json").read_text("utf-8"))
KEYS = [(family, name) for family, names in LOADER["keys"].items() for name in names]
TENSORS = [(family, name) for family, names in LOADER["tensors"].items() for name in names]

#: Used rows that no file of `rows.py` is for: what is used in another way than llama.cpp's answers could show, with the test that shows it.
ELSEWHERE = {
    "general.architecture": "test_gguf_llamacpp: a row for each family",
    "tokenizer.chat_template": "test_the_chat_template",
    "tokenizer.chat_template.{name}": "test_the_chat_template",
    "tokenizer.ggml.unknown_token_id": "test_the_chat_template",
    "tokenizer.ggml.eos_token_ids": "test_ollamas_list_of_ends",
    "tokenizer.ggml.suppress_tokens": "test_tokens_that_are_never_taken",
    "{family}.attention.sliding_window": "test_positions_end_at_the_window",
    "{family}.attention.value_length": "test_what_no_row_refuses_by_itself",
    "general.sampling.temp": "test_sampling",
    "general.sampling.top_k": "test_sampling",
    "general.sampling.top_p": "test_sampling",
    "general.sampling.min_p": "test_sampling",
    "general.sampling.penalty_repeat": "test_sampling",
}


def test_every_key_that_llama_cpp_reads_has_a_row() -> None:
    assert len(KEYS) > 200
    assert [name for family, name in KEYS if row_of("gguf", name.replace("{family}", family), family) is None] == []


def test_every_tensor_that_llama_cpp_reads_has_a_row() -> None:
    assert len(TENSORS) > 140
    assert [(family, name) for family, name in TENSORS if row_of("gguf tensors", name.replace("{i}", "0"), family) is None] == []


def test_a_tensor_that_llama_cpp_does_not_read_is_not_used() -> None:
    for family, names in LOADER["tensors"].items():
        used = {r.name for r in fields_of("gguf tensors") if r.use == "used" and (not r.families or family in r.families)}
        assert used <= set(names), family


def test_every_way_to_cut_is_known_to_llama_cpp() -> None:
    known = LOADER["pre_tokenizers"]
    assert set(PRE_TOKENIZERS) <= set(known)
    for name, way in PRE_TOKENIZERS.items():
        assert (way.whole, way.bos) == ("ignore_merges" in known[name], "add_bos" in known[name]), name


def test_every_used_row_is_held_against_something() -> None:
    files_of_rows = [row for table in (rows.COMPUTED, rows.ENDS, rows.CUT) for row in table.values()]
    said = {name.replace(f"{row.family}.", "{family}.") for row in files_of_rows for name in row.facts()}
    kept = {".".join(["blk", "{i}", *n.split(".")[2:]] if n.startswith("blk.") else [n]) for row in files_of_rows for n in row.weights()}
    assert [r.name for r in fields_of("gguf") if r.use == "used" and r.name not in said | ELSEWHERE.keys()] == []
    assert [r.name for r in fields_of("gguf tensors") if r.use == "used" and r.name not in kept] == []


#: A vocabulary in small, for what has nothing to do with it.
SMALL: dict[str, Any] = {
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<|bos|>", "<|eos|>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 3,
    "tokenizer.ggml.eos_token_id": 4,
}


def read(row: files.Row) -> list[Any]:
    """All that a header makes of a folder."""
    facts = Facts(row.facts(), row.family)
    facts.check()
    config, vocabulary = config_of_facts(facts, row.weights()), Vocabulary(facts)
    return [config, generation_of_facts(facts, config, vocabulary.ends), vocabulary.tokenizer(), vocabulary.tokenizer_config()]


def refused(row: files.Row) -> str:
    with pytest.raises((ConvertError, ValueError)) as caught:
        read(row)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def taken(row: files.Row, place: Path) -> Path:
    row.write(place / "x.gguf")
    (place / "made").mkdir()
    convert(place / "x.gguf", place / "made")
    return place / "made"


def example(row: ModelField) -> Any:
    """A value that is none of those that change nothing."""
    like = row.unless[0] if row.unless else "a word"
    return {bool: lambda: not like, str: lambda: "a word", list: lambda: [3, 4]}.get(type(like), lambda: 7)()


@pytest.mark.parametrize("row", [r for r in fields_of("gguf") if r.use == "refused"], ids=lambda row: row.name)
def test_a_refused_key_is_refused_by_name_and_taken_where_it_changes_nothing(row: ModelField) -> None:
    # What llama's own mixtures say is refused of the others.
    of_llama = any("llama" in other.families for other in fields_of("gguf") if other.name == row.name)
    family = "qwen3" if of_llama else "llama"
    name = row.name.replace("{family}", family).replace("{name}", "lora").replace("{part}", "alpha")
    line = refused(files.Row(family, keys=SMALL | {name: example(row)}))
    assert name in line
    assert row.why in line
    plain = read(files.Row(family, keys=SMALL))
    for value in row.unless:
        assert read(files.Row(family, keys=SMALL | {name: value})) == plain


@pytest.mark.parametrize("row", [r for r in fields_of("gguf") if r.use in ("none", "reset")], ids=lambda row: row.name)
def test_what_changes_nothing_is_taken_and_changes_nothing(row: ModelField) -> None:
    name = row.name.replace("{family}", "llama").replace("{name}", "x").replace("{part}", "y").replace("{number}", "0")
    assert read(files.Row(keys=SMALL | {name: ["a"] if name == "tokenizer.chat_templates" else 1})) == read(files.Row(keys=SMALL))


@pytest.mark.parametrize("row", [r for r in fields_of("gguf tensors") if r.use == "refused"], ids=lambda row: row.name)
def test_a_refused_tensor_is_refused_by_name(row: ModelField) -> None:
    name = row.name.replace("{i}", "1").replace("{part}", "ffn_up").replace("{kind}", "bias")
    family = "llama" if row_of("gguf tensors", name, "llama") is row else "qwen3"
    with pytest.raises(ConvertError) as caught:
        check_tensors([*files.Row(family).weights(), name], family)
    assert f"a tensor {name} ({row.why})" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["llama.attention.never_heard_of", "gemma.context_length", "tokenizer.ggml.never_heard_of", "never_heard_of", "somebody.note"]
)
def test_a_key_without_a_row_is_refused_by_name(name: str) -> None:
    assert name in refused(files.Row(keys=SMALL | {name: 1}))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({".attention.value_length": 8}, "llama.attention.value_length is 8 and not the 16"),
        ({".rope.dimension_count": 8}, "llama.rope.dimension_count is 8"),
        ({".rope.scaling.type": "longrope"}, "llama.rope.scaling.type is longrope"),
        ({".rope.scaling.type": 3}, "llama.rope.scaling.type is not text"),
        ({".attention.head_count_kv": [2, 4]}, "llama.attention.head_count_kv differs from layer to layer"),
        ({".feed_forward_length": [96, 48]}, "llama.feed_forward_length differs from layer to layer"),
        ({".attention.layer_norm_rms_epsilon": None}, "lacks llama.attention.layer_norm_rms_epsilon"),
        ({".expert_count": 4}, "lacks llama.expert_used_count"),
        ({".expert_count": 4, ".expert_used_count": 5}, "llama.expert_used_count is 5, and expert_count is 4"),
        ({"tokenizer.ggml.merges": None}, "lacks tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["ab"]}, "tokenizer.ggml.merges has 'ab', which joins no two tokens"),
        ({"tokenizer.ggml.merges": ["b a"]}, "tokenizer.ggml.merges has 'b a', which joins no two tokens"),
        ({"tokenizer.ggml.eot_token_id": 70_000}, "tokenizer.ggml.eot_token_id is 70000"),
        ({"tokenizer.ggml.eos_token_ids": [2, 70_000]}, "tokenizer.ggml.eos_token_ids has 70000"),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, "there is no tokenizer.ggml.bos_token_id"),
        ({"tokenizer.ggml.add_bos_token": "yes"}, "tokenizer.ggml.add_bos_token"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens is not a list of texts"),
        ({"tokenizer.ggml.model": "bert"}, "a 'bert' tokenizer"),
    ],
)
def test_what_no_row_refuses_by_itself(keys: dict[str, Any], says: str) -> None:
    assert says in refused(files.Row(keys=SMALL | keys))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"tokenizer.ggml.scores": None}, "lacks tokenizer.ggml.scores"),
        ({"tokenizer.ggml.scores": [-1000.0] * 2000}, "tokenizer.ggml.scores are the same for"),
        ({"tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a"], "tokenizer.ggml.token_type": [2, 3, 3, 1]}, "none for the byte 0x00"),
    ],
)
def test_pieces_that_do_not_say_how_they_join(keys: dict[str, Any], says: str) -> None:
    assert says in refused(files.Row(vocabulary=files.pieces, keys=keys))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"split.count": 3}, "one of 3 parts of a model; join them with llama-gguf-split --merge"),
        ({".pooling_type": 3}, "llama.pooling_type 3"),
    ],
)
def test_a_file_with_such_a_header_is_refused(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    files.Row(keys=SMALL | keys).write(tmp_path / "x.gguf")
    with pytest.raises(ConvertError, match=says):
        convert(tmp_path / "x.gguf", tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_the_chat_template() -> None:
    keys = {
        "tokenizer.chat_template": "{{ bos_token }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1,
    }
    made = read(files.Row(keys=SMALL | keys))[3]
    assert [made[f"{name}_token"] for name in ("bos", "eos", "unk", "pad")] == ["<|bos|>", "<|eos|>", "a", "b"]
    assert made["chat_template"] == [{"name": "default", "template": "{{ bos_token }}"}, {"name": "tool_use", "template": "{{ tools }}"}]


def test_ollamas_list_of_ends() -> None:
    assert read(files.Row(keys=SMALL | {"tokenizer.ggml.eos_token_ids": [1, 2]}))[1]["eos_token_id"] == [4, 1, 2]


def test_positions_end_at_the_window() -> None:
    assert parse_spec(read(files.Row(keys=SMALL | {".attention.sliding_window": 40}))[0]).max_len == 40
    assert parse_spec(read(files.Row(keys=SMALL | {".attention.sliding_window": 0}))[0]).max_len == files.CONTEXT


def test_sampling() -> None:
    said = {"temp": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "penalty_repeat": 1.1}
    made = read(files.Row(keys=SMALL | {f"general.sampling.{name}": value for name, value in said.items()}))[1]
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    assert made["do_sample"] is True
    assert [made[name] for name in names] == list(said.values())


@pytest.mark.parametrize(
    ("said", "made"),
    [
        ({"top_k": -1}, {"do_sample": True, "top_k": 0}),
        ({"top_p": 1.5, "min_p": -1.0}, {"do_sample": True, "top_p": 1, "min_p": 0}),
        ({"temp": -1.0, "top_k": 20, "penalty_repeat": 1.5}, {"repetition_penalty": 1.5}),
    ],
)
def test_sampling_that_is_set_to_none(said: dict[str, Any], made: dict[str, Any]) -> None:
    """llama.cpp's words for a step that is left out; a negative temperature always takes the likeliest token."""
    found = read(files.Row(keys=SMALL | {f"general.sampling.{name}": value for name, value in said.items()}))[1]
    assert {name: value for name, value in found.items() if not name.endswith("_token_id")} == made
    assert read_defaults(found, 100)


def test_a_way_to_sample_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConvertError, match=r"general\.sampling\.typical_p"):
        read(files.Row(keys=SMALL | {"general.sampling.typical_p": 0.5}))


def test_tokens_that_are_never_taken() -> None:
    assert read(files.Row(keys=SMALL | {"tokenizer.ggml.suppress_tokens": [1, 2, -1, 70_000]}))[1]["suppress_tokens"] == [1, 2]


def test_a_temperature_of_zero_is_no_sampling() -> None:
    made = read(files.Row(keys=SMALL | {"general.sampling.temp": 0.0, "general.sampling.top_k": 20}))[1]
    assert not {"do_sample", "temperature", "top_k"} & made.keys()


@pytest.mark.parametrize(
    "keys",
    [{"a\nb" * 200: 1}, {"general.architecture": "a\nb" * 200}, {".rope.scaling.type": "a\nb" * 200}, {"split.count": "a\nb" * 200}],
    ids=lambda keys: ascii(next(iter(keys)))[:20],
)
def test_a_refusal_is_one_short_line_whatever_the_file_says(keys: dict[str, Any], tmp_path: Path) -> None:
    row = files.Row(keys=SMALL | keys)
    row.write(tmp_path / "x.gguf")
    with pytest.raises(ConvertError) as caught:
        convert(tmp_path / "x.gguf", tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_weights_that_no_reader_unpacks_are_named(tmp_path: Path) -> None:
    row = files.Row()
    row.write(tmp_path / "x.gguf")
    raw = (tmp_path / "x.gguf").read_bytes()
    name = b"blk.1.ffn_up.weight"
    at = raw.index(name) + len(name) + 4 + 2 * 8
    (tmp_path / "x.gguf").write_bytes(raw[:at] + (26).to_bytes(4, "little") + raw[at + 4 :])  # F32 → I32
    with pytest.raises(ConvertError, match=r"blk\.1\.ffn_up\.weight is quantized as I32"):
        convert(tmp_path / "x.gguf", tmp_path)


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("output_norm.weight", files.np.ones(8, "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConvertError, match="big-endian"):
        convert(tmp_path / "x.gguf", tmp_path)


_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**40)
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.integers(-3, 2**40) | st.text(max_size=3) | st.floats(), max_size=6)
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({r.name for r in fields_of("gguf")})), _VALUES, max_size=3))
def test_whatever_a_header_says_it_is_read_or_refused_in_one_line(said: dict[str, Any]) -> None:
    row = files.Row(keys=SMALL | {n.replace("{family}", "").replace("{name}", "x").replace("{part}", "y"): v for n, v in said.items()})
    facts = Facts(row.facts(), "llama")
    try:
        facts.check()
        config, vocabulary = config_of_facts(facts, ["token_embd.weight"] * 40), Vocabulary(facts)
        made = [config, generation_of_facts(facts, config, vocabulary.ends), vocabulary.tokenizer(), vocabulary.tokenizer_config()]
    except (ConvertError, ValueError) as exc:
        assert "\n" not in str(exc)
        assert len(str(exc)) < 400
    else:
        json.dumps(made)


@cache
def tokenizer_of(vocabulary: Any) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(Vocabulary(Facts(files.Row(vocabulary=vocabulary).facts(), "llama")).tokenizer()))


@pytest.mark.parametrize("vocabulary", [files.merged_bytes, files.pieces])
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_text_comes_back_from_its_tokens(vocabulary: Any, text: str) -> None:
    tokenizer = tokenizer_of(vocabulary)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text.replace("\u2581", " " if vocabulary is files.pieces else "\u2581")
