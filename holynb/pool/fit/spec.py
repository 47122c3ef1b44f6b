"""config.json → Spec: the sizes and switches of a dense decoder. Knows names and numbers; knows no torch and no weights.

The families differ in few switches (biases, QK-norm, tied head, rope scaling), so a family is data here, not a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holynb.errors import UserError

__all__ = ["FAMILIES", "Spec", "UnknownModel", "parse_spec", "read_spec"]

#: Architectures that `model.Decoder` computes, as config.json names them, and for whom they stand.
FAMILIES: Mapping[str, str] = {
    "LlamaForCausalLM": "Llama 2, Llama 3, SmolLM, SmolLM2",
    "MistralForCausalLM": "Mistral",
    "Qwen2ForCausalLM": "Qwen2, Qwen2.5",
    "Qwen3ForCausalLM": "Qwen3 (dense)",
}

#: Ways to stretch rotary positions that we compute. Others change the answer, so they are refused.
ROPES = ("default", "linear", "llama3")


class UnknownModel(UserError):
    """A model that the native engine cannot run as it should."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One decoder. `max_len` is in tokens; `dtype` is how the weights lie on disk; `rope` holds type, theta and its scaling."""

    family: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_len: int
    eps: float = 1e-6
    tied: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    rope: Mapping[str, Any] = field(default_factory=lambda: {"type": "default", "theta": 10000.0})
    dtype: str = "float32"
    eos: tuple[int, ...] = ()

    @property
    def layer_weights(self) -> int:
        """Numbers in one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        matrices = self.hidden * (q + 2 * kv) + q * self.hidden + 3 * self.hidden * self.inner
        biases = (q + 2 * kv) * self.qkv_bias + self.hidden * self.out_bias + (2 * self.inner + self.hidden) * self.mlp_bias
        return matrices + biases + 2 * self.hidden + 2 * self.head_dim * self.qk_norm

    @property
    def weights(self) -> int:
        """Numbers in the whole model."""
        return self.layers * self.layer_weights + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden


def read_spec(folder: Path) -> Spec:
    """The Spec of the model in `folder`. Raises UnknownModel, FileNotFoundError."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json, so it is no model. Name a folder with config.json and *.safetensors.")
    try:
        return parse_spec(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as exc:
        raise UnknownModel(f"{path} says no {exc.args[0]}, which its family has. Fetch the model again, or mend the file.") from exc
    except (ValueError, TypeError, AttributeError) as exc:
        raise UnknownModel(f"{path} is no readable config.json ({exc}). Fetch the model again, or mend the file.") from exc


def parse_spec(config: Mapping[str, Any]) -> Spec:
    """The Spec that a config.json's content says."""
    family = (config.get("architectures") or ["a config.json that names no architecture"])[0]
    if family not in FAMILIES:
        known = "; ".join(f"{name} ({who})" for name, who in FAMILIES.items())
        raise UnknownModel(f"The native engine does not know {family}. It knows {known}. Start this model with --engine vllm.")
    if config.get("quantization_config"):
        raise UnknownModel("The native engine runs no quantized safetensors. Take the plain weights, a GGUF file, or --engine vllm.")
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise UnknownModel(f"The native engine knows the activation silu, not {act}. Start this model with --engine vllm.")
    heads = config["num_attention_heads"]
    qwen2 = family == "Qwen2ForCausalLM"
    bias = bool(config.get("attention_bias", False))
    eos = config.get("eos_token_id")
    return Spec(
        family=family,
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab=config["vocab_size"],
        max_len=_max_len(config),
        eps=config.get("rms_norm_eps", 1e-6),
        tied=bool(config.get("tie_word_embeddings", False)),
        qk_norm=family == "Qwen3ForCausalLM",
        qkv_bias=qwen2 or bias,
        out_bias=bias and not qwen2,
        mlp_bias=bool(config.get("mlp_bias", False)),
        rope=_rope(config),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        eos=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
    )


def _max_len(config: Mapping[str, Any]) -> int:
    """Positions the model can use. A sliding window ends there too: inside it, full attention says the same; beyond it, not."""
    length = int(config.get("max_position_embeddings", 2048))
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", config["architectures"][0] == "MistralForCausalLM"):
        return min(length, int(window))
    return length


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings, from the old names (rope_theta, rope_scaling) and the new one (rope_parameters)."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if kind not in ROPES:
        raise UnknownModel(f"The native engine knows the rope types {', '.join(ROPES)}, not {kind}. Start this model with --engine vllm.")
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UnknownModel("The native engine rotates whole heads, not a part. Start this model with --engine vllm.")
    theta = rope.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    return {"type": kind, "theta": float(theta), **rope}
