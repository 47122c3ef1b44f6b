"""What a GGUF file says is what the folder says: weights to the bit, tokens, template, sizes. What is not known is refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import gguf_fake
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from holynb.pool.models.convert import ConvertError, convert
from holynb.pool.server.tokenizer import ChatTokenizer


def made(tmp_path: Path, **changes: object) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    gguf_fake.write(tmp_path / "x.gguf", **changes)  # type: ignore[arg-type]
    convert(tmp_path / "x.gguf", folder)
    return folder


def test_weights_come_back_to_the_bit_in_their_own_order(tmp_path: Path) -> None:
    found = load_file(made(tmp_path) / "model.safetensors")
    known = gguf_fake.weights()
    assert set(found) == set(known)
    for name, values in known.items():
        assert np.array_equal(found[name], values), name


def test_quantized_weights_are_what_ggufs_own_reader_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((8, 64), dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    for kind in ("Q4_1", "Q8_0"):
        quantized = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
        writer.add_tensor(f"blk.{int(kind[1] == '8')}.ffn_up.weight", quantized, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    from holynb.pool.models import convert as module
    from holynb.pool.models.gguf_tensors import pieces_of

    config = {"model_type": "llama", "head_dim": 8, "hidden_size": 64, "intermediate_size": 8, "attention_bias": False, "mlp_bias": False}
    pieces = pieces_of(gguf.GGUFReader(tmp_path / "q.gguf").tensors, config | {"num_hidden_layers": 2})
    module._write_weights(tmp_path / "m.safetensors", pieces, config, lambda share: None, kept=False)
    found = load_file(tmp_path / "m.safetensors")
    for layer, kind in enumerate(("Q4_1", "Q8_0")):
        wanted = gguf.dequantize(gguf.quantize(values, gguf.GGMLQuantizationType[kind]), gguf.GGMLQuantizationType[kind])
        assert np.array_equal(found[f"model.layers.{layer}.mlp.up_proj.weight"], wanted)


def test_sizes_and_ends(tmp_path: Path) -> None:
    config = json.loads((made(tmp_path) / "config.json").read_text())
    assert (config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (64, 4, 2, 16)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert (config["vocab_size"], config["eos_token_id"], config["max_position_embeddings"]) == (len(gguf_fake.WORDS), 0, 128)


def test_qwen2_keeps_its_rows_and_has_biases(tmp_path: Path) -> None:
    folder = made(tmp_path, family="qwen2", **{"tokenizer.pre": "qwen2"})
    assert np.array_equal(
        load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"],
        gguf_fake.weights()["model.layers.0.self_attn.q_proj.weight"],
    )
    assert json.loads((folder / "config.json").read_text())["attention_bias"] is True
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("ab a").tokens == ["ab", "Ġa"]


def test_the_tokenizer_merges_cuts_digits_and_knows_its_special_words(tmp_path: Path) -> None:
    folder = made(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("ab a12").tokens == ["ab", "Ġa", "1", "2"]
    assert tokenizer.encode("a<|im_start|>b").ids[1] == 1
    assert tokenizer.decode([1, 11, 12]) == "ab a"
    text = ChatTokenizer(folder)
    assert text.chat([{"role": "user", "content": "ab"}]) == "<|im_start|>ab"
    assert text.eos == (0,)


def test_an_answer_ends_at_the_end_of_the_text_and_of_its_turn(tmp_path: Path) -> None:
    assert ChatTokenizer(made(tmp_path, **{"tokenizer.eot": 1})).eos == (0, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "mamba"}, "mamba family"),
        ({"block_count": None}, "llama.block_count"),
        ({"expert_count": 8, "expert_used_count": 2}, r"holds blk\.0\.ffn_gate\.weight, of no experts, and its header's expert_count is 8"),
        ({"tokenizer.model": "t5"}, "tokenizer"),
        ({"tokenizer.pre": "kimi-k2"}, "kimi-k2"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConvertError, match=words):
        made(tmp_path, **changes)


def test_what_is_no_gguf_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a gguf file at all, but long enough to be read as one" * 10)
    with pytest.raises(ConvertError, match=r"x\.gguf is not a readable GGUF"):
        convert(tmp_path / "x.gguf", tmp_path)
