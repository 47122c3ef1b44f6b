"""A tiny GGUF of the llama family, and the weights that it holds, as its maker knew them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, HEADS, KV, LAYERS, WIDE, HEAD = 64, 4, 2, 2, 96, 16
WORDS = ["<|end|>", "<|im_start|>", *"abcdefgh", "Ġ", "ab", "Ġa", "1", "2"]


def weights(seed: int = 0) -> dict[str, Any]:
    """Random weights under the names of safetensors, in their layout."""
    rng = np.random.default_rng(seed)

    def of(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    out = {"model.embed_tokens.weight": of(len(WORDS), HIDDEN), "model.norm.weight": of(HIDDEN)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        out |= {
            f"{at}input_layernorm.weight": of(HIDDEN),
            f"{at}post_attention_layernorm.weight": of(HIDDEN),
            f"{at}self_attn.q_proj.weight": of(HEADS * HEAD, HIDDEN),
            f"{at}self_attn.k_proj.weight": of(KV * HEAD, HIDDEN),
            f"{at}self_attn.v_proj.weight": of(KV * HEAD, HIDDEN),
            f"{at}self_attn.o_proj.weight": of(HIDDEN, HEADS * HEAD),
            f"{at}mlp.gate_proj.weight": of(WIDE, HIDDEN),
            f"{at}mlp.up_proj.weight": of(WIDE, HIDDEN),
            f"{at}mlp.down_proj.weight": of(HIDDEN, WIDE),
        }
    return out


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers.": "blk.",
}


def permuted(values: Any, heads: int) -> Any:
    """As llama.cpp's convert_hf_to_gguf.py stores rotary rows."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def write(path: Path, family: str = "llama", kind: str | None = None, **changes: Any) -> dict[str, Any]:
    """The file; returns the weights. `changes` override header fields; None leaves one out. `kind`: how the matrices are quantized."""
    writer = gguf.GGUFWriter(path, family)
    facts: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": HIDDEN,
        "feed_forward_length": WIDE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV,
        "rope.dimension_count": HEAD,
        **changes,
    }
    for name, value in facts.items():
        if value is not None and "." not in name.removeprefix("attention.").removeprefix("rope.") and not name.startswith("tokenizer"):
            writer.add_uint32(f"{family}.{name}", value)
    writer.add_float32(f"{family}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{family}.rope.freq_base", 10000.0)
    writer.add_tokenizer_model(changes.get("tokenizer.model", "gpt2"))
    writer.add_tokenizer_pre(changes.get("tokenizer.pre", "smollm"))
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3] + [1] * (len(WORDS) - 2))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    if "tokenizer.eot" in changes:
        writer.add_eot_token_id(changes["tokenizer.eot"])
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    known = weights()
    for name, values in known.items():
        short = name
        for long, word in GGUF_NAMES.items():
            short = short.replace(long, word)
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            values = permuted(values, HEADS if "q_proj" in name else KV)
        if kind is not None and values.ndim == 2:
            quantized = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(short, gguf.quantize(np.ascontiguousarray(values), quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(short, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return known
