"""config.json → Spec: the sizes and switches of a dense decoder. Knows names and numbers; knows no torch and no weights.

The families differ in few switches (biases, QK-norm, tied head, rope scaling), so a family is data here, not a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holynb.errors import UserError
from holynb.pool.modelfiles import read_object, real, truth, whole

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

#: The numbers that each of them needs.
_ROPE_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}

#: Largest sizes of a config.json that are taken for a model's, far above those of any there is: what they make is sized by them.
_MAX_LAYERS, _MAX_HEADS, _MAX_HEAD_DIM = 10_000, 10_000, 100_000
_MAX_WIDTH, _MAX_VOCAB, _MAX_POSITIONS = 10_000_000, 100_000_000, 2**31 - 1


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
        return parse_spec(read_object(path))
    except KeyError as exc:
        raise UnknownModel(f"{path} says no {exc.args[0]}, which its family has. Fetch the model again, or mend the file.") from exc
    except (ValueError, TypeError, AttributeError) as exc:
        raise UnknownModel(f"{path} is no readable config.json ({exc}). Fetch the model again, or mend the file.") from exc


def parse_spec(config: Mapping[str, Any]) -> Spec:
    """The Spec that a config.json's content says."""
    names = config.get("architectures") or ["a config.json that names no architecture"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise TypeError("architectures is no list of names")
    family = names[0]
    if family not in FAMILIES:
        known = "; ".join(f"{name} ({who})" for name, who in FAMILIES.items())
        raise UnknownModel(f"The native engine does not know {family}. It knows {known}. Start this model with --engine vllm.")
    if config.get("quantization_config"):
        raise UnknownModel("The native engine runs no quantized safetensors. Take the plain weights, a GGUF file, or --engine vllm.")
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise UnknownModel(f"The native engine knows the activation silu, not {act}. Start this model with --engine vllm.")
    heads, hidden = whole(config, "num_attention_heads", 1, _MAX_HEADS), whole(config, "hidden_size", 1, _MAX_WIDTH)
    qwen2 = family == "Qwen2ForCausalLM"
    bias = truth(config, "attention_bias")
    return Spec(
        family=family,
        layers=whole(config, "num_hidden_layers", 1, _MAX_LAYERS),
        hidden=hidden,
        inner=whole(config, "intermediate_size", 1, _MAX_WIDTH),
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", 1, heads, heads),
        head_dim=whole(config, "head_dim", 1, _MAX_HEAD_DIM, max(1, hidden // heads)),
        vocab=whole(config, "vocab_size", 1, _MAX_VOCAB),
        max_len=_max_len(config),
        eps=real(config, "rms_norm_eps", 0, 1, 1e-6),
        tied=truth(config, "tie_word_embeddings"),
        qk_norm=family == "Qwen3ForCausalLM",
        qkv_bias=qwen2 or bias,
        out_bias=bias and not qwen2,
        mlp_bias=truth(config, "mlp_bias"),
        rope=_rope(config),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        eos=_ends(config.get("eos_token_id")),
    )


def _ends(value: Any) -> tuple[int, ...]:
    """The tokens that end an answer: none, one, or a list."""
    ends = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(whole({"eos_token_id": one}, "eos_token_id", -1, _MAX_VOCAB) for one in ends)


def _max_len(config: Mapping[str, Any]) -> int:
    """Positions the model can use. A sliding window ends there too: inside it, full attention says the same; beyond it, not."""
    length = whole(config, "max_position_embeddings", 1, _MAX_POSITIONS, 2048)
    window = whole(config, "sliding_window", 0, _MAX_POSITIONS, 0)
    if window and truth(config, "use_sliding_window", default=config["architectures"][0] == "MistralForCausalLM"):
        return min(length, window)
    return length


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings, from the old names (rope_theta, rope_scaling) and the new one (rope_parameters)."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise TypeError("its rope settings are no object")
    rope = dict(given)
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if kind not in ROPES:
        raise UnknownModel(f"The native engine knows the rope types {', '.join(ROPES)}, not {kind}. Start this model with --engine vllm.")
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UnknownModel("The native engine rotates whole heads, not a part. Start this model with --engine vllm.")
    theta = real(rope, "rope_theta", 1e-9, 1e30, real(config, "rope_theta", 1e-9, 1e30, 10000.0))
    rope.pop("rope_theta", None)
    for name in _ROPE_NUMBERS[kind]:
        rope[name] = real(rope, name, 1e-9, 1e12)
    return {"type": kind, "theta": theta, **rope}
