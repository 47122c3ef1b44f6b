"""A folder of gpt-oss' safetensors → the GGUF file that llama.cpp's converter makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: What the file says how far gate and up go: nothing, so a folder that is to say the same has these.
LIMITS = {"swiglu_limit": 7.0, "swiglu_alpha": 1.702}

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    **{f"self_attn.{n}_proj.{end}": f"attn_{n}.{end}" for n in "qkv" for end in ("weight", "bias")},
    **{f"self_attn.o_proj.{end}": f"attn_output.{end}" for end in ("weight", "bias")},
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def words(count: int) -> dict[str, Any]:
    """A vocabulary of so many words, cut as gpt-oss cuts text."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-4o",
        "tokenizer.ggml.tokens": ["w", "0", *(f"w{i}" for i in range(count - 2))],
        "tokenizer.ggml.token_type": [1] * count,
        "tokenizer.ggml.merges": ["w 0"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says, of what config.json says."""
    rope = config.get("rope_parameters") or config["rope_scaling"]
    said = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "expert_feed_forward_length": config["intermediate_size"],
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "attention.sliding_window": config["sliding_window"],
        "rope.freq_base": float(rope.get("rope_theta") or config["rope_theta"]),
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(rope["factor"]),
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        "rope.scaling.yarn_beta_fast": 32.0,
        "rope.scaling.yarn_beta_slow": 1.0,
    }
    about = {"general.type": "model", "general.name": "Gpt Oss 20b", "general.file_type": 38, "general.quantization_version": 2}
    return about | {f"gpt-oss.{name}": value for name, value in said.items()}


def blocks(numbers: Any, exponents: Any) -> Any:
    """OpenAI's bytes → ggml's blocks: the exponent, then 16 bytes with the first half of the numbers low and the second high."""
    codes = np.stack((numbers & 15, numbers >> 4), -1).reshape(*numbers.shape[:-1], 32)
    made = np.concatenate((exponents[..., None], codes[..., :16] | codes[..., 16:] << 4), -1)
    return np.ascontiguousarray(made.reshape(*made.shape[:-2], -1))


def write(path: Path, folder: Path, rest: str = "F32", experts: str = "MXFP4", **more: Any) -> None:
    """`rest`: how matrices lie that are no expert's. `more` is said besides; None leaves a fact out."""
    from safetensors.numpy import load_file

    config, writer = json.loads((folder / "config.json").read_text()), gguf.GGUFWriter(path, "gpt-oss")
    for name, value in (words(config["vocab_size"]) | facts(config) | more).items():
        _add(writer, name, value)
    held = load_file(folder / "model.safetensors")
    for name, values in held.items():
        at = name.removeprefix("model.layers.").partition(".")
        if name in TOP:
            _tensor(writer, TOP[name], values, rest)
        elif short := NAMES.get(at[2]):
            _tensor(writer, f"blk.{at[0]}.{short}", values, "F32" if "ffn" in short or values.ndim == 1 else rest)
        elif name.endswith("gate_up_proj_bias"):
            for i, part in enumerate(("gate", "up")):
                _tensor(writer, f"blk.{at[0]}.ffn_{part}_exps.bias", values[:, i::2], "F32")
        elif name.endswith("_blocks"):
            made = blocks(values, held[name.replace("_blocks", "_scales")])
            rows = {"gate": made[:, 0::2], "up": made[:, 1::2]} if "gate_up" in name else {"down": made}
            for part, data in rows.items():
                _experts(writer, f"blk.{at[0]}.ffn_{part}_exps.weight", np.ascontiguousarray(data), experts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _experts(writer: Any, name: str, data: Any, kind: str) -> None:
    mxfp4 = gguf.GGMLQuantizationType.MXFP4
    if kind == "MXFP4":
        writer.add_tensor(name, data, raw_dtype=mxfp4)
    else:
        _tensor(writer, name, gguf.dequantize(data, mxfp4), kind)


def _tensor(writer: Any, name: str, values: Any, kind: str) -> None:
    values, known = np.ascontiguousarray(values), gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, values if kind == "F32" else gguf.quantize(values, known), raw_dtype=known)


def _add(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    elif value:
        writer.add_array(name, value)
