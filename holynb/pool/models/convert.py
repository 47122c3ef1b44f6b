"""A GGUF file → a folder of safetensors, config and tokenizer, once. Reads with gguf and numpy; knows no torch and no network.

Weights are written in float32, as GGUF's own reader dequantizes them: another format would round what 4 bits and a scale
say exactly. One tensor is in memory at a time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holynb.pool.modelfiles import real, whole
from holynb.pool.models.gguf_header import GgufError, check_header

__all__ = ["ConvertError", "config_of", "convert"]

#: GGUF's word for a family → the name that config.json uses for it.
_FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PLAIN_BYTES = {**_BYTES, "use_regex": False}
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

#: No size in a header is larger.
_MAX_SIZE = 2**31 - 1

_Progress = Callable[[float], None]


class ConvertError(Exception):
    """This GGUF file is none that can be converted; the message says why."""


def convert(source: Path, folder: Path, progress: _Progress = lambda share: None) -> None:
    """Fill `folder` (which exists) from `source`. `progress` gets shares from 0 to 1. Raises ConvertError, OSError."""
    with _explained(source):
        reader, facts = _opened(source)
        config = _config(facts, tensors=[t.name for t in reader.tensors])
        _write(folder / "config.json", config)
        _write_tokenizer(folder, facts)
        _write(folder / "generation_config.json", {"bos_token_id": config["bos_token_id"], "eos_token_id": _ends(facts)})
        _write_weights(folder / "model.safetensors", reader, config, progress)


def config_of(source: Path) -> dict[str, Any]:
    """What its config.json would say, read from its header alone. Raises ConvertError, OSError."""
    with _explained(source):
        reader, facts = _opened(source)
        return _config(facts, tensors=[t.name for t in reader.tensors])


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Whatever a file that lies makes the libraries raise, as a ConvertError."""
    try:
        yield
    except (ConvertError, OSError):
        raise
    except MemoryError as exc:
        raise ConvertError(f"{source.name} needs more memory than a file of its size may: it is broken, or no model") from exc
    except Exception as exc:
        reason = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise ConvertError(f"{source.name} is not a readable GGUF file: {reason}") from exc


def _opened(source: Path) -> tuple[Any, dict[str, Any]]:
    """The file and the facts of its header."""
    import gguf

    try:
        check_header(source)
    except GgufError as exc:
        raise ConvertError(f"{source.name} is not a readable GGUF file: {exc}. Fetch it again.") from exc
    reader = gguf.GGUFReader(source)
    return reader, {key: field.contents() for key, field in reader.fields.items()}


def _config(facts: dict[str, Any], *, tensors: Collection[str]) -> dict[str, Any]:
    """config.json of what the GGUF header says."""
    family = facts.get("general.architecture")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise ConvertError(f"GGUF files of the {family} family are not known here; known are {', '.join(_FAMILIES)}.")
    if any(f"{family}.{key}" in facts for key in ("expert_count", "rope.scaling.type")):
        raise ConvertError(f"this {family} GGUF has experts or a scaled rope, which is not known here; use the model's safetensors.")

    def fact(key: str, default: int | None = None, low: int = 1) -> int:
        try:
            return whole(facts, f"{family}.{key}", low, _MAX_SIZE, default)
        except KeyError:
            raise ConvertError(f"the GGUF header lacks {family}.{key}") from None

    words = facts.get("tokenizer.ggml.tokens")
    if not isinstance(words, list):
        raise ConvertError("the GGUF header lacks tokenizer.ggml.tokens")
    heads, layers = fact("attention.head_count"), fact("block_count", low=0)
    if layers > len(tensors):
        raise ConvertError(f"the GGUF header promises {layers:,} layers, and the file holds {len(tensors):,} tensors")
    return {
        "architectures": [_FAMILIES[family]],
        "model_type": family,
        "hidden_size": fact("embedding_length"),
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": fact("attention.head_count_kv", heads),
        "head_dim": fact("attention.key_length", max(1, fact("embedding_length") // heads)),
        "max_position_embeddings": fact("context_length"),
        "rms_norm_eps": real(facts, f"{family}.attention.layer_norm_rms_epsilon", 0, 1),
        "rope_theta": real(facts, f"{family}.rope.freq_base", 1e-9, 1e30, 10000.0),
        "hidden_act": "silu",
        "attention_bias": family == "qwen2",
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": len(words),
        "bos_token_id": facts.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": facts.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
    }


def _ends(facts: dict[str, Any]) -> Any:
    """The tokens that end an answer: a model may have one for the end of the text and another for the end of a turn."""
    ends = list(dict.fromkeys(i for w in ("eos", "eot", "eom") if (i := facts.get(f"tokenizer.ggml.{w}_token_id")) is not None))
    return ends if len(ends) > 1 else ends[0] if ends else None


def _write_tokenizer(folder: Path, facts: dict[str, Any]) -> None:
    """tokenizer.json and tokenizer_config.json, the chat template with it."""
    from tokenizers import AddedToken, Tokenizer, models

    if facts.get("tokenizer.ggml.model") != "gpt2":
        kind = facts.get("tokenizer.ggml.model")
        raise ConvertError(f"this GGUF holds a {kind!r} tokenizer, which is not known here; use the model's safetensors folder.")
    words: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, merges, ignore_merges=facts.get("tokenizer.ggml.pre") == "llama-bpe")
    )
    kinds = facts.get("tokenizer.ggml.token_type", [])
    # 3 is a control token, 4 one that a user added: neither is made of merges.
    tokenizer.add_special_tokens([AddedToken(words[i], normalized=False, special=True) for i, k in enumerate(kinds) if k == 3])
    tokenizer.add_tokens([AddedToken(words[i], normalized=False) for i, k in enumerate(kinds) if k == 4])
    whole = json.loads(tokenizer.to_str())
    whole |= {"pre_tokenizer": _pre_tokenizer(str(facts.get("tokenizer.ggml.pre", "default"))), "decoder": _BYTES}
    _write(folder / "tokenizer.json", whole)
    known = {
        k: facts.get(f"tokenizer.ggml.{w}_token_id") for k, w in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"))
    }
    tokenizer_config: dict[str, Any] = {name: words[i] for name, i in known.items() if i is not None}
    tokenizer_config["add_bos_token"] = bool(facts.get("tokenizer.ggml.add_bos_token", False))
    if "tokenizer.chat_template" in facts:
        tokenizer_config["chat_template"] = facts["tokenizer.chat_template"]
    _write(folder / "tokenizer_config.json", tokenizer_config)


def _pre_tokenizer(name: str) -> dict[str, Any]:
    """How text is cut before merging, by llama.cpp's word for it."""
    if name == "smollm":
        return {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]}
    if name in {"llama-bpe", "qwen2"}:
        pattern = {"Regex": _SPLIT % ("{1,3}" if name == "llama-bpe" else "")}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [split, _PLAIN_BYTES]}
    if name in {"default", "gpt-2"}:
        return _BYTES
    raise ConvertError(f"this GGUF cuts text the {name!r} way, which is not known here; use the model's safetensors folder.")


def _write_weights(path: Path, reader: Any, config: dict[str, Any], progress: _Progress) -> None:
    """safetensors, streamed: the header is known from the shapes, so no second copy of the weights is ever in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    total = 0
    tensors = [(t, _name(t.name)) for t in reader.tensors if not t.name.startswith("rope_freqs")]
    for tensor, name in tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        size = 4 * int(tensor.n_elements)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [total, total + size]}
        total += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for done, piece in _pieces(tensors, config):
            file.write(piece)
            progress(done / total)


def _pieces(tensors: list[tuple[Any, str]], config: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """The tensors in order as float32, each with the bytes done once it is written."""
    import gguf
    import numpy as np

    done = 0
    for tensor, name in tensors:
        values = np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if config["model_type"] in {"llama", "mistral"} and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
            values = _unpermute(values, heads)
        if values.nbytes != 4 * int(tensor.n_elements):
            raise ConvertError(f"{tensor.name} holds {values.nbytes // 4} values instead of {tensor.n_elements}")
        done += values.nbytes
        yield done, values.data


def _unpermute(values: Any, heads: int) -> Any:
    """llama.cpp stores the rotary pairs of these families side by side; config.json's families keep them in two halves."""
    import numpy as np

    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _name(name: str) -> str:
    """The safetensors name of a GGUF tensor."""
    if name in _TOP:
        return _TOP[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER:
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}"
    raise ConvertError(f"the GGUF file holds a tensor {name} that is not known here")


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
