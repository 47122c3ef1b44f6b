"""Architecture → switches: one table of what tells families of decoders apart. Knows names and numbers; knows no torch and no weights.

A family without a new kind of layer is a row here: for whom it stands, what it takes a field for that config.json leaves out, and which
fields of `Spec` its config.json sets beside the sizes that all have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.errors import UserError
from holynb.pool.fit.experts import mixtral_experts, qwen3_experts
from holynb.pool.modelfiles import truth, whole

__all__ = ["FAMILIES", "MAX_LAYERS", "VLLM", "DecoderFamily", "UnknownModel", "family_of"]

#: What to do with a model that is not known here.
VLLM = "Start this model with --engine vllm."

#: Largest number of layers that is taken for a model's, far above that of any there is.
MAX_LAYERS = 10_000

_SLIDING, _FULL = "sliding_attention", "full_attention"

Config = Mapping[str, Any]


class UnknownModel(UserError):
    """A model that the native engine cannot run as it should."""


def _none(config: Config) -> Mapping[str, Any]:  # noqa: ARG001 - as the others
    return {}


def _never(config: Config) -> bool:  # noqa: ARG001 - as the others
    return False


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """One row. `left_out`: of transformers' configuration classes (null says: none). `switches`: fields of Spec, of a whole config.json.

    `slides`: whether a layer attends to a sliding window, where config.json has one. `acts`: names of its activation.
    """

    who: str
    left_out: Config
    switches: Callable[[Config], Mapping[str, Any]] = _none
    slides: Callable[[Config], bool] = _never
    acts: tuple[str, ...] = ("silu", "swish")


def _attention_bias(config: Config) -> Mapping[str, Any]:
    """Biases of q, k, v and o, where config.json says so."""
    bias = truth(config, "attention_bias")
    return {"qkv_bias": bias, "out_bias": bias}


def _llama(config: Config) -> Mapping[str, Any]:
    return {**_attention_bias(config), "mlp_bias": truth(config, "mlp_bias")}


def _qwen2(config: Config) -> Mapping[str, Any]:  # noqa: ARG001 - as the others
    return {"qkv_bias": True}


def _qwen3(config: Config) -> Mapping[str, Any]:
    return {**_attention_bias(config), "qk_norm": True}


def _qwen_slides(config: Config) -> bool:
    counts, layers = truth(config, "use_sliding_window"), whole(config, "num_hidden_layers", 1, MAX_LAYERS)
    kinds = config.get("layer_types")
    if kinds is None:
        return counts and whole(config, "max_window_layers", 0, MAX_LAYERS, 28) < layers
    if not isinstance(kinds, list) or len(kinds) != layers or (strange := next((k for k in kinds if k not in (_SLIDING, _FULL)), None)):
        what = f"names {strange!r:.40}" if isinstance(kinds, list) and len(kinds) == layers else f"is not a list of {layers} layers"
        raise UnknownModel(f"config.json's layer_types {what}. The native engine knows {_FULL} and {_SLIDING}. {VLLM}")
    if _SLIDING in kinds and not (counts and config.get("sliding_window")):
        raise ValueError(f"layer_types says {_SLIDING}, and no sliding_window is used")
    return _SLIDING in kinds


def _qwen3_moe(config: Config) -> Mapping[str, Any]:
    return {**_qwen3(config), "experts": qwen3_experts(config)}


def _mixtral(config: Config) -> Mapping[str, Any]:
    return {"experts": mixtral_experts(config)}


_QWEN = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096}

#: Architectures that `model.Decoder` computes, as config.json names them.
FAMILIES: Mapping[str, DecoderFamily] = {
    "LlamaForCausalLM": DecoderFamily("Llama 2, Llama 3, SmolLM, SmolLM2", {"max_position_embeddings": 2048}, _llama),
    "MistralForCausalLM": DecoderFamily(
        "Mistral", {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}, slides=lambda _: True
    ),
    "Qwen2ForCausalLM": DecoderFamily("Qwen2, Qwen2.5", _QWEN, _qwen2, _qwen_slides),
    "Qwen3ForCausalLM": DecoderFamily("Qwen3 (dense)", {**_QWEN, "head_dim": 128}, _qwen3, _qwen_slides),
    "Qwen3MoeForCausalLM": DecoderFamily(
        "Qwen3 (experts)",
        {**_QWEN, "num_key_value_heads": 4, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        _qwen3_moe,
        lambda config: truth(config, "use_sliding_window"),
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
        lambda _: True,
    ),
}


def family_of(name: str) -> DecoderFamily:
    """The row of an architecture. Raises UnknownModel."""
    if name not in FAMILIES:
        known = "; ".join(f"{known} ({family.who})" for known, family in FAMILIES.items())
        raise UnknownModel(f"The native engine does not know {name}. It knows {known}. {VLLM}")
    return FAMILIES[name]
