"""Architecture → switches: one table of what tells families of decoders apart. Knows names and numbers; knows no torch and no weights.

A family without a new kind of layer is a row here: for whom it stands, what it takes a field for that config.json leaves out, and which
fields of `Spec` its config.json sets beside the sizes that all have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holynb.errors import UserError
from holynb.pool.fit.experts import gpt_oss_experts, mixtral_experts, qwen3_experts
from holynb.pool.modelfiles import real, truth, whole

__all__ = ["FAMILIES", "FULL", "MAX_LAYERS", "SLIDING", "VLLM", "DecoderFamily", "UnknownModel", "decoder_of", "family_of"]

#: What to do with a model that is not known here.
VLLM = "Start this model with --engine vllm."

#: Largest number of layers that is taken for a model's, far above that of any there is.
MAX_LAYERS = 10_000

#: Kinds of attention layers, as layer_types names them.
SLIDING, FULL = "sliding_attention", "full_attention"

Config = Mapping[str, Any]


class UnknownModel(UserError):
    """A model that the native engine cannot run as it should."""


def _none(config: Config) -> Mapping[str, Any]:  # noqa: ARG001 - as the others
    return {}


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """One row. `left_out`: of transformers' configuration classes (null says: none). `switches`: fields of Spec, of a whole config.json.

    `acts`: names of its activation, under `act_field`. `nested`: its decoder is the `text_config` of a model that also takes pictures.
    `local_rope`: sliding layers have rotary settings of their own; what is left out of them stands here.
    """

    who: str
    left_out: Config
    switches: Callable[[Config], Mapping[str, Any]] = _none
    acts: tuple[str, ...] = ("silu", "swish")
    act_field: str = "hidden_act"
    nested: bool = False
    local_rope: Callable[[Config], Mapping[str, Any]] | None = None


def _attention_bias(config: Config) -> Mapping[str, Any]:
    """Biases of q, k, v and o, where config.json says so."""
    bias = truth(config, "attention_bias")
    return {"qkv_bias": bias, "out_bias": bias}


def _layer_kinds(config: Config, left_out: Callable[[int], bool]) -> list[str]:
    """The kind of each layer: layer_types, or where that is left out what `left_out` says of each: whether it slides."""
    layers, kinds = whole(config, "num_hidden_layers", 1, MAX_LAYERS), config.get("layer_types")
    if kinds is None:
        return [SLIDING if left_out(i) else FULL for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or (strange := next((k for k in kinds if k not in (SLIDING, FULL)), None)):
        what = f"names {strange!r:.40}" if isinstance(kinds, list) and len(kinds) == layers else f"is not a list of {layers} layers"
        raise UnknownModel(f"config.json's layer_types {what}. The native engine knows {FULL} and {SLIDING}. {VLLM}")
    return kinds


def _windows(config: Config, kinds: Sequence[str], *, counts: bool = True) -> Mapping[str, Any]:
    """How many tokens each layer sees, its own included; 0: all before it. `counts`: whether sliding_window does."""
    window = whole(config, "sliding_window", 0, 2**31 - 1, 0) if counts else 0
    if SLIDING in kinds and not window:
        raise ValueError(f"layer_types says {SLIDING}, and no sliding_window is used")
    if window >= whole(config, "max_position_embeddings", 1, 2**31 - 1, 2048):  # it never slides
        return {}
    return {"windows": tuple(window * (kind == SLIDING) for kind in kinds)} if SLIDING in kinds else {}


def _everywhere(config: Config) -> Mapping[str, Any]:
    """Every layer slides, where there is a sliding_window."""
    layers = whole(config, "num_hidden_layers", 1, MAX_LAYERS)
    return _windows(config, [SLIDING if config.get("sliding_window") else FULL] * layers)


def _llama(config: Config) -> Mapping[str, Any]:
    return {**_attention_bias(config), "mlp_bias": truth(config, "mlp_bias")}


def _qwen_windows(config: Config) -> Mapping[str, Any]:
    counts, first = truth(config, "use_sliding_window"), whole(config, "max_window_layers", 0, MAX_LAYERS, 28)
    return _windows(config, _layer_kinds(config, lambda i: bool(counts and config.get("sliding_window")) and i >= first), counts=counts)


def _qwen2(config: Config) -> Mapping[str, Any]:
    return {"qkv_bias": True, **_qwen_windows(config)}


def _qwen3(config: Config) -> Mapping[str, Any]:
    return {**_attention_bias(config), "qk_norm": "head", **_qwen_windows(config)}


def _gemma(config: Config) -> Mapping[str, Any]:
    """What Gemma 2 and 3 have alike."""
    return {
        **_attention_bias(config),
        "act": "gelu_tanh",
        "norms": "both",
        "norm_offset": 1.0,
        "embed_scale": whole(config, "hidden_size", 1, 2**31 - 1) ** 0.5,
        "attention_scale": real(config, "query_pre_attn_scalar", 1e-6, 1e9) ** -0.5,
        "logits_cap": real(config, "final_logit_softcapping", 0, 1e9, 0.0),
    }


def _gemma2(config: Config) -> Mapping[str, Any]:
    kinds = _layer_kinds(config, lambda i: i % 2 == 0)
    return {**_gemma(config), "attention_cap": real(config, "attn_logit_softcapping", 0, 1e9, 0.0), **_windows(config, kinds)}


def _gemma3(config: Config) -> Mapping[str, Any]:
    every = whole(config, "sliding_window_pattern", 1, MAX_LAYERS, 6)
    return {**_gemma(config), "qk_norm": "head", **_windows(config, _layer_kinds(config, lambda i: bool((i + 1) % every)))}


def _phi3(config: Config) -> Mapping[str, Any]:
    return {"fused": True, **_everywhere(config)}


def _olmo2(config: Config) -> Mapping[str, Any]:
    return {**_attention_bias(config), "norms": "post", "exact_norms": True, "qk_norm": "all"}


def _olmo3(config: Config) -> Mapping[str, Any]:
    return {**_olmo2(config), **_windows(config, _layer_kinds(config, lambda i: bool((i + 1) % 4)))}


def _granite(config: Config) -> Mapping[str, Any]:
    return {
        **_llama(config),
        "embed_scale": real(config, "embedding_multiplier", 1e-9, 1e9, 1.0),
        "residual_scale": real(config, "residual_multiplier", 1e-9, 1e9, 1.0),
        "attention_scale": real(config, "attention_multiplier", 1e-9, 1e9, 1.0),
        "logits_divisor": real(config, "logits_scaling", 1e-9, 1e9, 1.0),
    }


def _smollm3(config: Config) -> Mapping[str, Any]:
    layers, every = whole(config, "num_hidden_layers", 1, MAX_LAYERS), whole(config, "no_rope_layer_interval", 1, MAX_LAYERS, 4)
    given = config.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    if not isinstance(given, list) or len(given) < layers or any(one not in (0, 1) for one in given):
        raise ValueError(f"no_rope_layers is not a list of 0 and 1 for {layers} layers")
    slides = truth(config, "use_sliding_window")
    kinds = _layer_kinds(config, lambda i: bool(slides and config.get("sliding_window")) and not given[i])
    return {**_llama(config), "rotated": tuple(map(bool, given[:layers])), **_windows(config, kinds)}


def _qwen3_moe(config: Config) -> Mapping[str, Any]:
    windows = _everywhere(config) if truth(config, "use_sliding_window") else {}
    return {**_attention_bias(config), "qk_norm": "head", "experts": qwen3_experts(config), **windows}


def _mixtral(config: Config) -> Mapping[str, Any]:
    return {"experts": mixtral_experts(config), **_everywhere(config)}


def _gpt_oss(config: Config) -> Mapping[str, Any]:
    windows = _windows(config, _layer_kinds(config, lambda i: i % 2 == 0))
    return {**_attention_bias(config), **windows, "exact_norms": True, "sinks": True, "experts": gpt_oss_experts(config)}


_QWEN = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096}
_GELU = ("gelu_pytorch_tanh",)
_GEMMA = {"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": True}
_GEMMA3 = {
    **_GEMMA,
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 1_000_000.0,
    "hidden_activation": _GELU[0],
}
_OLMO = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5}

_GPT_OSS_SIZES = {"head_dim": 64, "max_position_embeddings": 131072, "num_key_value_heads": 8, "num_local_experts": 128}
_GPT_OSS_ROPE = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
_GPT_OSS_LIMITS = {"rms_norm_eps": 1e-5, "sliding_window": 128, "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "num_experts_per_tok": 4}
_GPT_OSS_REST = {"attention_bias": True, "rope_parameters": _GPT_OSS_ROPE, "rope_theta": 150_000.0, "torch_dtype": "bfloat16"}


def _gemma3_local(config: Config) -> Mapping[str, Any]:
    return {"rope_theta": real(config, "rope_local_base_freq", 1e-9, 1e30, 10000.0)}


#: Architectures that `model.Decoder` computes, as config.json names them.
FAMILIES: Mapping[str, DecoderFamily] = {
    "LlamaForCausalLM": DecoderFamily("Llama 2, Llama 3, SmolLM, SmolLM2", {"max_position_embeddings": 2048}, _llama),
    "MistralForCausalLM": DecoderFamily(
        "Mistral", {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}, _everywhere
    ),
    "Qwen2ForCausalLM": DecoderFamily("Qwen2, Qwen2.5", _QWEN, _qwen2),
    "Qwen3ForCausalLM": DecoderFamily("Qwen3 (dense)", {**_QWEN, "head_dim": 128}, _qwen3),
    "Gemma2ForCausalLM": DecoderFamily(
        "Gemma 2",
        {
            **_GEMMA,
            "max_position_embeddings": 8192,
            "hidden_activation": _GELU[0],
            "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
        },
        _gemma2,
        _GELU,
        "hidden_activation",
    ),
    "Gemma3ForCausalLM": DecoderFamily("Gemma 3", _GEMMA3, _gemma3, _GELU, "hidden_activation", local_rope=_gemma3_local),
    "Gemma3ForConditionalGeneration": DecoderFamily(
        "Gemma 3, text alone", _GEMMA3, _gemma3, _GELU, "hidden_activation", nested=True, local_rope=_gemma3_local
    ),
    "Phi3ForCausalLM": DecoderFamily("Phi-3, Phi-4", {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}, _phi3),
    "Olmo2ForCausalLM": DecoderFamily("OLMo 2", _OLMO, _olmo2),
    "Olmo3ForCausalLM": DecoderFamily(
        "OLMo 3",
        {**_OLMO, "sliding_window": 4096, "rope_theta": 500_000.0},
        _olmo3,
        local_rope=lambda _: {"rope_theta": 500_000.0},
    ),
    "GraniteForCausalLM": DecoderFamily("Granite 3", {"max_position_embeddings": 2048}, _granite),
    "SmolLM3ForCausalLM": DecoderFamily(
        "SmolLM3",
        {"max_position_embeddings": 32768, "num_key_value_heads": 4, "rope_theta": 2_000_000.0, "tie_word_embeddings": True},
        _smollm3,
    ),
    "Qwen3MoeForCausalLM": DecoderFamily(
        "Qwen3 (experts)",
        {**_QWEN, "num_key_value_heads": 4, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        _qwen3_moe,
    ),
    "MixtralForCausalLM": DecoderFamily(
        "Mixtral",
        {
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "num_experts_per_tok": 2,
            "num_local_experts": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
        },
        _mixtral,
    ),
    "GptOssForCausalLM": DecoderFamily("gpt-oss", _GPT_OSS_SIZES | _GPT_OSS_LIMITS | _GPT_OSS_REST, _gpt_oss),
}

#: Architectures that are asked for and not computed, and what of them is missing.
_MISSING: Mapping[str, str] = {
    "Gemma3n": "embeddings for each layer and layers that share keys and values",
    "Gemma4": "heads of two sizes, layers that share keys and values, and embeddings for each layer",
    "Qwen3_5": "gated delta nets beside attention",
    "Qwen3Next": "gated delta nets beside attention",
    "Llama4": "attention in chunks and a shared expert",
    "DeepseekV": "multi-head latent attention",
}


def decoder_of(config: Config) -> Config:
    """What config.json says of its decoder, with what its family takes for what is left out; as it is where the family is not known."""
    names, text = config.get("architectures"), config.get("text_config")
    family = FAMILIES.get(names[0]) if isinstance(names, list) and names and isinstance(names[0], str) else None
    if family is None:
        return config
    inside = text if family.nested and isinstance(text, Mapping) else {}
    return {**family.left_out, **config, **inside, "architectures": names}


def family_of(name: str) -> DecoderFamily:
    """The row of an architecture. Raises UnknownModel."""
    if name not in FAMILIES:
        missing = next((what for start, what in _MISSING.items() if name.startswith(start)), None)
        if missing:
            raise UnknownModel(f"The native engine does not know {name}: it lacks {missing}. {VLLM}")
        known = "; ".join(f"{known} ({family.who})" for known, family in FAMILIES.items())
        raise UnknownModel(f"The native engine does not know {name}. It knows {known}. {VLLM}")
    return FAMILIES[name]
