"""What a GGUF header says of the decoder → config.json, generation_config.json. Knows llama.cpp's names and Hugging Face's; no tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from holynb.pool.models.gguf_facts import ConvertError, Facts, shown

__all__ = ["FAMILIES", "config_of_facts", "generation_of_facts"]

#: GGUF's word for a family → the name that config.json uses for it. Llama's holds Mistral and SmolLM, too, and with experts Mixtral.
FAMILIES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
}

#: Words of general.sampling → generation_config.json's.
_SAMPLING = {"temp": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "penalty_repeat": "repetition_penalty"}


def config_of_facts(facts: Facts, tensors: Collection[str], rope_factors: Sequence[float] | None = None) -> dict[str, Any]:
    """config.json. `rope_factors`: what the tensor rope_freqs divides each frequency by."""
    family, hidden = facts.family, facts.whole("embedding_length")
    words = facts.items("tokenizer.ggml.tokens", str)
    if words is None:
        raise ConvertError("the GGUF header lacks tokenizer.ggml.tokens")
    heads, layers = facts.whole("attention.head_count"), facts.whole("block_count", low=0)
    if layers > len(tensors):
        raise ConvertError(f"the GGUF header promises {layers:,} layers, and the file holds {len(tensors):,} tensors")
    size = facts.whole("attention.key_length", max(1, hidden // heads))
    for name in ("attention.value_length", "rope.dimension_count"):
        if (other := facts.whole(name, size)) != size:
            raise ConvertError(f"{family}.{name} is {other:,} and not the {size:,} of a head's keys, which is not supported")
    bias = family == "qwen2" or _any(tensors, "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias")
    experts = _gpt_oss(facts, layers) if family == "gpt-oss" else _experts(facts)
    if bias and experts.get("model_type") == "mixtral":
        raise ConvertError("it has biases in attention beside its experts, which is not supported; use the model's safetensors")
    return {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": facts.whole("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": facts.whole("attention.head_count_kv", heads),
        "head_dim": size,
        "max_position_embeddings": _positions(facts),
        "rms_norm_eps": facts.real("attention.layer_norm_rms_epsilon", 0, 1),
        "rope_parameters": _rope(facts, size, rope_factors),
        "hidden_act": "silu",
        "attention_bias": bias,
        "mlp_bias": _any(tensors, "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": len(words),
        "bos_token_id": facts.token("bos", len(words)),
        "eos_token_id": facts.token("eos", len(words)),
        "torch_dtype": "float32",
        **experts,
    }


def generation_of_facts(facts: Facts, config: Mapping[str, Any], ends: Sequence[int]) -> dict[str, Any]:
    """generation_config.json. `ends`: the tokens that end an answer."""
    said = {ours: facts.number(f"general.sampling.{theirs}") for theirs, ours in _SAMPLING.items()}
    given: dict[str, Any] = {name: _within(name, value) for name, value in said.items() if value is not None}
    if given.get("temperature") == 0:  # always the likeliest token, which other settings do not change
        given = {name: value for name, value in given.items() if name == "repetition_penalty"}
    elif given:
        given["do_sample"] = True
    # llama.cpp passes over ids beyond the vocabulary.
    if never := [i for i in facts.items("tokenizer.ggml.suppress_tokens", int) or [] if 0 <= i < config["vocab_size"]]:
        given["suppress_tokens"] = never
    end = list(ends) if len(ends) > 1 else ends[0] if ends else None
    return {"bos_token_id": config["bos_token_id"], "eos_token_id": end, **given}


def _within(name: str, value: float) -> float:
    """A setting as generation_config.json may say it: llama.cpp takes what is below nothing as nothing, and a share above all as all."""
    if name == "repetition_penalty":
        return value
    return min(max(value, 0), 1) if name in ("top_p", "min_p") else max(value, 0)


def _positions(facts: Facts) -> int:
    """Positions that the model can use: within the window, where llama.cpp lets no layer slide."""
    context = facts.whole("context_length")
    return context if facts.family == "gpt-oss" else min(context, facts.whole("attention.sliding_window", 0, low=0) or context)


def _gpt_oss(facts: Facts, layers: int) -> dict[str, Any]:
    """What config.json says of gpt-oss alone. How far gate and up go is no fact of the file: llama.cpp knows it by the family, too."""
    count, used = _counts(facts)
    # Of so many layers the last sees all, the others slide; 0: all slide.
    facts.number(f"{facts.family}.attention.sliding_window_pattern")  # which no list is
    every = facts.whole("attention.sliding_window_pattern", 2, low=0)
    slides = [every == 0 or i % every < every - 1 for i in range(layers)]
    if not any(slides):
        raise ConvertError(f"{facts.family}.attention.sliding_window_pattern is {every}, by which no layer slides: fetch the file again")
    return {
        "model_type": "gpt_oss",
        "intermediate_size": facts.whole("expert_feed_forward_length"),
        "num_local_experts": count,
        "num_experts_per_tok": used,
        "swiglu_limit": 7.0,
        "swiglu_alpha": 1.702,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "sliding_window": facts.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if one else "full_attention" for one in slides],
        "torch_dtype": "bfloat16",  # as it was trained: what it is computed in on a GPU
    }


def _counts(facts: Facts) -> tuple[int, int]:
    """Experts of a layer, and those that a token goes to."""
    count, used = facts.whole("expert_count"), facts.whole("expert_used_count")
    if used > count:
        raise ConvertError(f"{facts.family}.expert_used_count is {used:,}, and expert_count is {count:,}: fetch the file again")
    return count, used


def _experts(facts: Facts) -> dict[str, Any]:
    """What config.json says of experts, where there are any. Every layer has them, and a token's weights add up to 1, as in llama.cpp."""
    qwen = facts.family == "qwen3moe"
    if not qwen and not (facts.family == "llama" and facts.whole("expert_count", 0, low=0)):
        return {}
    count, used = _counts(facts)
    if not qwen:
        return {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": count, "num_experts_per_tok": used}
    inner = facts.whole("expert_feed_forward_length", 0, low=0) or max(1, facts.whole("feed_forward_length") // used)
    sizes = {"num_experts": count, "num_experts_per_tok": used, "moe_intermediate_size": inner}
    return {"model_type": "qwen3_moe", **sizes, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}


def _any(tensors: Collection[str], *names: str) -> bool:
    return any(name.endswith(names) for name in tensors)


def _rope(facts: Facts, size: int, factors: Sequence[float] | None) -> dict[str, Any]:
    """How positions turn. Factors of each frequency are what transformers calls longrope, with one set for short and long."""
    rope: dict[str, Any] = {"rope_theta": facts.real("rope.freq_base", 1e-9, 1e30, 10000.0)}
    factor = facts.real("rope.scaling.factor", 0, 1e9, facts.real("rope.scale_linear", 0, 1e9, 0.0)) or 1.0
    trained = facts.whole("rope.scaling.original_context_length", facts.whole("context_length"))
    kind = facts.text(f"{facts.family}.rope.scaling.type", "linear")
    if kind not in {"none", "linear", "yarn"} or (kind == "yarn" and factors is not None):
        with_factors = " beside rope_freqs.weight" if factors is not None else ""
        raise ConvertError(
            f"{facts.family}.rope.scaling.type is {shown(kind)}{with_factors}, which is not supported; use the model's safetensors"
        )
    if kind == "yarn":
        # As gpt-oss' own config has it, of which nothing stands in its GGUF files; llama.cpp rounds the range of every family.
        whole = {"truncate": False} if facts.family == "gpt-oss" else {}
        return {"rope_type": "yarn", **rope, "factor": factor, "original_max_position_embeddings": trained, **whole}
    factor = 1.0 if kind == "none" else factor
    if factors is None:
        return {"rope_type": "default", **rope} if factor == 1 else {"rope_type": "linear", **rope, "factor": factor}
    if len(factors) != size // 2:
        raise ConvertError(f"rope_freqs.weight has {len(factors):,} numbers for a head of {size:,}")
    scaled = [float(one) * factor for one in factors]
    # transformers needs the last, which decides nothing where both sets are the same.
    return {
        "rope_type": "longrope",
        **rope,
        "short_factor": scaled,
        "long_factor": scaled,
        "attention_factor": 1.0,
        "original_max_position_embeddings": trained,
    }
