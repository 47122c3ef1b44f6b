"""The rows that are held against llama.cpp: which files, and what is asked of each. `record.py` asks llama.cpp, the tests ask holynb."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import files
import numpy as np
from files import HEAD, HEADS, HIDDEN, INNER, KV, LAYERS, Row, Tensors, pieces, plain_words

#: Weights that llama.cpp multiplies with rounded activations: its answers are near ours, not the same.
STORED = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
_EXPERTS_STORED = {"gpt-oss in MXFP4": "F32", "gpt-oss in MXFP4 and Q8_0": "Q8_0"}
ROUNDED = (*STORED, *_EXPERTS_STORED)

#: Token ids to go on after. Long enough for positions to matter.
PROMPTS = ([7, 300, 41], [(i * 37 + 11) % 300 for i in range(90)])


def _bias(*names: str) -> Any:
    def add(tensors: Tensors) -> None:
        rng = np.random.default_rng(9)
        sizes = {"attn_q": HEADS * HEAD, "attn_k": KV * HEAD, "attn_v": KV * HEAD, "ffn_gate": INNER, "ffn_up": INNER}
        for i in range(LAYERS):
            for name in names:
                tensors[f"blk.{i}.{name}.bias"] = (rng.standard_normal(sizes.get(name, HIDDEN)) * 0.5).astype(np.float32)

    return add


def _factors(tensors: Tensors) -> None:
    tensors["rope_freqs.weight"] = np.array([1, 1, 1, 1.7, 3, 8, 8, 8], np.float32)


def _without_biases(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.endswith("attn_k.bias")]:
        del tensors[name]


def _an_expert_too_few(tensors: Tensors) -> None:
    tensors["blk.1.ffn_up_exps.weight"] = tensors["blk.1.ffn_up_exps.weight"][1:]


def _one_by_one(tensors: Tensors) -> None:
    for name in [n for n in tensors if "_exps." in n]:
        for e, values in enumerate(tensors.pop(name)):
            tensors[name.replace("_exps.", f".{e}.")] = values


_YARN = {".rope.scaling.type": "yarn", ".rope.scaling.factor": 4.0, ".rope.scaling.original_context_length": 32}

#: Of eight experts two; of Qwen3 they are narrower than the MLP would be.
_EXPERTS = {".expert_count": 8, ".expert_used_count": 2}
_QWEN_EXPERTS = _EXPERTS | {".expert_feed_forward_length": 32}

#: llama.cpp rounds YaRN's range, which this model's own is not: this base puts its end on a whole number (2, less 10⁻⁵).
_OSS = _QWEN_EXPERTS | {".attention.sliding_window": 24}
_OSS_YARN = _OSS | _YARN | {".rope.freq_base": 672.8, ".rope.scaling.factor": 8.0}

_COMPUTED: dict[str, Row] = {
    "llama": Row(),
    "qwen2": Row("qwen2"),
    "qwen3": Row("qwen3"),
    "qwen3moe": Row("qwen3moe", keys=_QWEN_EXPERTS),
    "qwen3moe expert_gating_func": Row("qwen3moe", keys=_QWEN_EXPERTS | {".expert_gating_func": 1, ".expert_weights_norm": True}),
    "llama expert_count": Row(keys=_EXPERTS),
    "gpt-oss": Row("gpt-oss", keys=_OSS),
    "gpt-oss yarn": Row("gpt-oss", keys=_OSS_YARN),
    "gpt-oss attention.sliding_window_pattern": Row("gpt-oss", keys=_OSS | {".attention.sliding_window_pattern": 0}),
    **{name: Row("gpt-oss", keys=_OSS_YARN, stored=kind, experts="MXFP4") for name, kind in _EXPERTS_STORED.items()},
    "output.weight": Row(tied=True),
    "qwen2 output.weight": Row("qwen2", tied=True),
    "qwen3 output.weight": Row("qwen3", tied=True),
    "attention.head_count_kv": Row(keys={".attention.head_count_kv": None}),
    "attention.head_count_kv for each layer": Row(
        keys={".attention.head_count_kv": [KV] * LAYERS, ".feed_forward_length": [INNER] * LAYERS}
    ),
    "attention.head_count for each layer": Row(keys={".attention.head_count": [HEADS] * LAYERS}),
    "attention.key_length": Row(keys={".attention.key_length": HEAD, ".attention.value_length": HEAD, ".rope.dimension_count": HEAD}),
    "attention.layer_norm_rms_epsilon": Row(keys={".attention.layer_norm_rms_epsilon": 0.3}),
    "attention.causal": Row(keys={".attention.causal": True}),
    "attention.layer_norm_epsilon": Row(keys={".attention.layer_norm_epsilon": 0.3}),
    "rope.freq_base": Row(keys={".rope.freq_base": 77.0}),
    "no rope.freq_base": Row(keys={".rope.freq_base": None}),
    "rope.scale_linear": Row(keys={".rope.scale_linear": 3.0}),
    "rope.scaling.factor": Row(keys={".rope.scaling.factor": 2.5}),
    "rope.scaling.type linear": Row("qwen3", keys={".rope.scaling.factor": 4.0, ".rope.scaling.type": "linear"}),
    "rope.scaling.type none": Row("qwen2", keys={".rope.scaling.factor": 4.0, ".rope.scaling.type": "none"}),
    "rope.scaling.original_context_length": Row(keys={".rope.scaling.original_context_length": 32, ".rope.scaling.factor": 2.0}),
    **{f"{family} yarn": Row(family, keys=_YARN) for family in ("llama", "qwen2", "qwen3")},
    "yarn without rope.scaling.original_context_length": Row(keys=_YARN | {".rope.scaling.original_context_length": None}),
    "rope.scaling.finetuned": Row(keys={".rope.scaling.finetuned": True}),
    "rope_freqs.weight": Row(tensors=_factors),
    "rope_freqs.weight and rope.scaling.factor": Row(tensors=_factors, keys={".rope.scaling.factor": 2.0}),
    "attn_q.bias": Row(tensors=_bias("attn_q", "attn_k", "attn_v", "attn_output")),
    "attn_q.bias alone": Row(tensors=_bias("attn_q")),
    "attn_output.bias": Row(tensors=_bias("attn_output")),
    "ffn_gate.bias": Row(tensors=_bias("ffn_gate", "ffn_up", "ffn_down")),
    "ffn_down.bias": Row(tensors=_bias("ffn_down")),
    "qwen2 without attn_k.bias": Row("qwen2", tensors=_without_biases),
    "qwen3 attn_q.bias": Row("qwen3", tensors=_bias("attn_q", "attn_k", "attn_v")),
    "general.alignment": Row(keys={"general.alignment": 128}),
    "vocab_size": Row(keys={".vocab_size": 77}),
    **{kind: Row(stored=kind) for kind in STORED},
}
#: What is computed: by the field that each is for.
COMPUTED = {name: replace(row, vocabulary=plain_words) for name, row in _COMPUTED.items()}

_WORDS = len(files.merged_bytes()["tokenizer.ggml.tokens"])
_BOS, _EOS, _TURN, _MESSAGE, _PAD, _USER = range(_WORDS - 6, _WORDS)


def _renamed(names: dict[str, str], *, plain: bool = False) -> dict[str, Any]:
    """The vocabulary with other names of control tokens; `plain`: that the file calls no control tokens."""
    known = files.merged_bytes()
    kinds = known["tokenizer.ggml.token_type"]
    words = [names.get(word, word) for word in known["tokenizer.ggml.tokens"]]
    return {
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [1 if plain and w in names.values() else k for w, k in zip(words, kinds, strict=True)],
    }


#: Which of the last six tokens end an answer.
ENDS: dict[str, Row] = {
    "eos_token_id": Row(),
    "eot_token_id": Row(keys={"tokenizer.ggml.eot_token_id": _TURN}),
    "eom_token_id": Row(keys={"tokenizer.ggml.eom_token_id": _MESSAGE}),
    "eot_token_id and eom_token_id": Row(keys={"tokenizer.ggml.eot_token_id": _TURN, "tokenizer.ggml.eom_token_id": _MESSAGE}),
    "fim_pad_token_id": Row(keys={"tokenizer.ggml.fim_pad_token_id": _PAD}),
    "fim_rep_token_id": Row(keys={"tokenizer.ggml.fim_rep_token_id": _PAD}),
    "fim_sep_token_id": Row(keys={"tokenizer.ggml.fim_sep_token_id": _MESSAGE}),
    "fim_pre_token_id": Row(keys={"tokenizer.ggml.fim_pre_token_id": _MESSAGE, "tokenizer.ggml.fim_suf_token_id": _PAD}),
    "fim_mid_token_id": Row(keys={"tokenizer.ggml.fim_mid_token_id": _MESSAGE}),
    "padding_token_id": Row(keys={"tokenizer.ggml.padding_token_id": _PAD, "tokenizer.ggml.seperator_token_id": _MESSAGE}),
    "cls_token_id": Row(keys={"tokenizer.ggml.cls_token_id": _PAD, "tokenizer.ggml.mask_token_id": _MESSAGE}),
    "by name": Row(keys=_renamed({"<|turn|>": "<|im_end|>", "<|pad|>": "<|endoftext|>"})),
    "by name, though called plain": Row(keys=_renamed({"<|turn|>": "<|eot_id|>", "<|message_end|>": "<|eom_id|>"}, plain=True)),
    "code by name": Row(keys=_renamed({"<|pad|>": "<|fim_pad|>", "<|turn|>": "<|repo_name|>", "<|message_end|>": "<|file_sep|>"})),
    "pieces": Row(vocabulary=pieces),
    "harmony by name": Row(
        "gpt-oss", keys=_OSS | _renamed({"<|turn|>": "<|end|>", "<|message_end|>": "<|call|>", "<|pad|>": "<|return|>"})
    ),
    "end and return by name": Row(keys=_renamed({"<|turn|>": "<|end|>", "<|pad|>": "<|return|>"})),
}

#: Which tokens a text is.
CUT: dict[str, Row] = {
    "pieces": Row(vocabulary=pieces),
    "pieces without add_space_prefix": Row(vocabulary=pieces, keys={"tokenizer.ggml.add_space_prefix": False}),
    "pieces, remove_extra_whitespaces": Row(vocabulary=pieces, keys={"tokenizer.ggml.remove_extra_whitespaces": True}),
    "pieces without add_bos_token": Row(vocabulary=pieces, keys={"tokenizer.ggml.add_bos_token": False}),
    "pieces, add_eos_token": Row(vocabulary=pieces, keys={"tokenizer.ggml.add_eos_token": True}),
    "pieces without ids": Row(vocabulary=pieces, keys={f"tokenizer.ggml.{w}_token_id": None for w in ("bos", "eos", "unknown")}),
    "general.name of a Phi-3": Row(
        vocabulary=pieces,
        keys={
            "general.name": "My Phi-3 mini",
            "tokenizer.ggml.tokens": [w.replace("<user>", "<|endoftext|>") for w in pieces()["tokenizer.ggml.tokens"]],
        },
    ),
    "general.name": Row(vocabulary=pieces, keys={"general.name": "A model"}),
    "no pre": Row(keys={"tokenizer.ggml.pre": None}),
    "add_bos_token": Row(keys={"tokenizer.ggml.add_bos_token": True}),
    "add_eos_token": Row(keys={"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}),
    "add_sep_token": Row(keys={"tokenizer.ggml.add_sep_token": True, "tokenizer.ggml.seperator_token_id": _PAD}),
    "llama-bpe without add_bos_token": Row(keys={"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}),
    "no token_type": Row(keys={"tokenizer.ggml.token_type": None}),
    "add_space_prefix": Row(keys={"tokenizer.ggml.add_space_prefix": True}),
    "token_type_count": Row(keys={"tokenizer.ggml.token_type_count": 2}),
}


def pre_tokenizer(name: str) -> Row:
    """A file that cuts text this way."""
    return Row(keys={"tokenizer.ggml.pre": name})


#: What llama.cpp does not take, and we do not either.
REFUSED: dict[str, Row] = {
    "no merges": Row(keys={"tokenizer.ggml.merges": None}),
    "an unknown pre": Row(keys={"tokenizer.ggml.pre": "never-heard-of"}),
    "an unknown model": Row(keys={"tokenizer.ggml.model": "never-heard-of"}),
    "a tensor of nobody": Row(tensors=lambda t: t.update({"blk.0.attn_sinks.weight": np.zeros(4, np.float32)})),
    "qwen2 rope_freqs": Row("qwen2", tensors=_factors),
    "qwen3 ffn_down.bias": Row("qwen3", tensors=_bias("ffn_down")),
    "llama attn_q_norm": Row(tensors=lambda t: t.update({"blk.0.attn_q_norm.weight": np.zeros(HEAD, np.float32)})),
    "rope.dimension_count": Row(keys={".rope.dimension_count": 8}),
    "no head_count": Row(keys={".attention.head_count": None}),
    "no context_length": Row(keys={".context_length": None}),
    "no layer_norm_rms_epsilon": Row(keys={".attention.layer_norm_rms_epsilon": None}),
    "a word twice": Row(keys={"tokenizer.ggml.tokens": ["a", *files.merged_bytes()["tokenizer.ggml.tokens"][1:]]}),
    "few token types": Row(keys={"tokenizer.ggml.token_type": [1, 1]}),
    "few scores": Row(vocabulary=pieces, keys={"tokenizer.ggml.scores": [0.0]}),
    "one part of two": Row(keys={"split.count": 2, "split.no": 0, "split.tensors.count": 40}),
    "a factor too few": Row(tensors=lambda t: t.update({"rope_freqs.weight": np.ones(7, np.float32)})),
    "the mistral family": Row("mistral"),
    "qwen3moe without experts": Row("qwen3moe"),
    "an expert too few": Row(keys=_EXPERTS, tensors=_an_expert_too_few),
    "more experts a token than there are": Row(keys=_EXPERTS | {".expert_used_count": 9}),
    "experts one by one": Row(keys=_EXPERTS, tensors=_one_by_one),
    "gpt-oss in which no layer slides": Row("gpt-oss", keys=_OSS | {".attention.sliding_window_pattern": 1}),
    "gpt-oss without attention.sliding_window": Row("gpt-oss", keys=_QWEN_EXPERTS),
    "gpt-oss without a bias of its experts": Row("gpt-oss", keys=_OSS, tensors=lambda t: t.pop("blk.1.ffn_down_exps.bias")),
}
