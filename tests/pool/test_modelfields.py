"""The list of what a model's files can say is whole, its rows say what they mean, and what it refuses is refused by name."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import read_by_transformers

from holynb.pool import modelfields
from holynb.pool.modelfields import FieldRefused, ModelField

HERE = Path(__file__).parent

#: Kind of file → where its fields are held against the reference.
HELD: dict[str, tuple[str, ...]] = {
    "config.json": ("engine/test_configured.py", "engine/test_families.py", "engine/test_fp8.py", "../tiny.py"),
    "generation_config.json": ("server/test_generation.py",),
    "tokenizer_config.json": ("server/test_named_tokens.py", "server/test_tokenizer.py"),
    "special_tokens_map.json": ("server/test_named_tokens.py",),
    "added_tokens.json": ("server/test_named_tokens.py",),
    "tokenizer.json": ("server/test_tokenizer_json.py",),
    "chat_template.jinja": ("server/test_chat_template.py",),
}

FILES = tomllib.loads((files("holynb.pool") / "modelfields.toml").read_text("utf-8"))
ROWS = [row for file in FILES for row in modelfields.fields_of(file)]


def test_a_row_has_a_use_and_a_reason() -> None:
    assert {row.use for row in ROWS} == {"used", "reset", "refused", "none"}
    assert not [row for row in ROWS if not row.why.strip()]
    assert not [row for row in ROWS if (row.unless or row.when) and row.use != "refused"]


def test_no_field_has_two_rows() -> None:
    seen = [(row.file, row.name, family) for row in ROWS for family in (row.families or {""})]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("file", read_by_transformers.written())
def test_every_field_that_transformers_reads_has_a_row(file: str) -> None:
    """What is not in the list would be dropped in silence: give it a row in holynb/pool/modelfields.toml."""
    table = set(read_by_transformers.written()[file])
    if importlib.util.find_spec("transformers"):
        table |= set(read_by_transformers.extracted()[file])
    rows = modelfields.fields_of(file)
    assert table
    assert not [name for name in sorted(table) if not any(row_is_for(row, name) for row in rows)]


def row_is_for(row: ModelField, name: str) -> bool:
    return bool(re.fullmatch("[^.]+".join(map(re.escape, re.split(r"\{[^}]*\}", row.name))), name))


@pytest.mark.parametrize("file", HELD)
def test_every_used_field_has_a_test(file: str) -> None:
    """Its name stands, as a string, where the fields of that file are held against the reference."""
    words = set()
    for path in HELD[file]:
        strings = (node.value for node in ast.walk(ast.parse((HERE / path).read_text("utf-8"))) if isinstance(node, ast.Constant))
        words |= {word for text in strings if isinstance(text, str) for word in re.findall(r"\w+", text)}
    used = [row.name.rpartition(".")[2] for row in modelfields.fields_of(file) if row.use == "used"]
    assert used
    assert not [name for name in used if not name.startswith("{") and not set(re.findall(r"\w+", name)) <= words]


def test_a_refusal_names_file_field_and_value_in_a_line() -> None:
    with pytest.raises(FieldRefused) as refused:
        modelfields.check("config.json", {"per_layer_config": {"bits": 4, "why": "x" * 5000}}, "LlamaForCausalLM")
    assert str(refused.value).startswith('config.json says per_layer_config {"bits": 4,')
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"hidden_size": 1, "quantum": 2, "flux": None, "nothing": {}}, ["quantum"]),
        ({"rope_scaling": {"rope_type": "linear"}, "rope_parameters": [1]}, []),
    ],
)
def test_what_has_no_row_is_told(data: dict[str, object], names: list[str]) -> None:
    assert modelfields.unknown("config.json", data) == names


def test_a_row_for_one_family_is_not_for_another() -> None:
    assert modelfields.use_of("config.json", "mlp_bias", "LlamaForCausalLM") == "used"
    assert modelfields.use_of("config.json", "mlp_bias", "Qwen2ForCausalLM") == "refused"
    assert modelfields.use_of("config.json", "quantum") is None
    modelfields.check("config.json", {"mlp_bias": True}, "LlamaForCausalLM")
    with pytest.raises(FieldRefused, match="mlp_bias"):
        modelfields.check("config.json", {"mlp_bias": True}, "Qwen2ForCausalLM")
    modelfields.check("config.json", {"mlp_bias": False}, "Qwen2ForCausalLM")


def test_one_is_no_true_and_zero_no_false() -> None:
    """Python takes them for equal, and a file does not."""
    with pytest.raises(FieldRefused, match="is_causal"):
        modelfields.check("config.json", {"is_causal": 1}, "LlamaForCausalLM")
    with pytest.raises(FieldRefused, match="num_beams"):
        modelfields.check("generation_config.json", {"num_beams": True})


#: What files of models that many people start say, as far as it is not only sizes.
COMMON: dict[str, list[dict[str, object]]] = {
    "config.json": [
        {
            "attention_bias": False,
            "mlp_bias": False,
            "pretraining_tp": 1,
            "use_cache": True,
            "rope_scaling": None,
            "torch_dtype": "bfloat16",
        },
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}, "rope_theta": 100000},
        {"max_window_layers": 28, "sliding_window": 131072, "use_sliding_window": False, "use_mrope": False},
        {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}, "rope_scaling": {"type": "yarn", "factor": 16.0, "finetuned": True}},
        {"chunk_size_feed_forward": 0, "is_encoder_decoder": False, "pruned_heads": {}, "torchscript": False, "bad_words_ids": None},
    ],
    "generation_config.json": [
        {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [2, 3], "do_sample": True, "temperature": 0.6, "top_p": 0.9},
        {"pad_token_id": 1, "repetition_penalty": 1.05, "top_k": 20, "max_length": 4096, "transformers_version": "4.37.0"},
        {"num_beams": 1, "typical_p": 1.0, "diversity_penalty": 0.0, "guidance_scale": 1, "no_repeat_ngram_size": 0, "do_sample": True},
    ],
    "tokenizer_config.json": [
        {"add_bos_token": True, "add_eos_token": False, "legacy": False, "sp_model_kwargs": {}, "use_default_system_prompt": False},
        {
            "split_special_tokens": False,
            "errors": "replace",
            "add_prefix_space": False,
            "model_max_length": 131072,
            "image_token": "<image>",
        },
        {
            "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids"],
            "from_slow": True,
            "spaces_between_special_tokens": False,
        },
    ],
}


@pytest.mark.parametrize("family", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
@pytest.mark.parametrize(("file", "data"), [(file, data) for file, many in COMMON.items() for data in many])
def test_what_common_models_say_is_known_and_not_refused(file: str, data: dict[str, object], family: str) -> None:
    modelfields.check(file, data, family)
    assert modelfields.unknown(file, data) == []
