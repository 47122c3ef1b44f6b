"""config.json → Spec: the sizes and switches of a dense decoder. Knows names and numbers; knows no torch and no weights.

The families differ in few switches (biases, QK-norm, tied head, rope scaling), so a family is a row of `families.py`, not a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holynb.pool.fit.experts import ExpertLayers, in_mxfp4
from holynb.pool.fit.families import FAMILIES, MAX_LAYERS, VLLM, UnknownModel, family_of
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.groups import quantization_of
from holynb.pool.fit.quantization import Quantization, keeps_kv_in_fp8
from holynb.pool.fit.ropes import by_kind, rope_of, rotary_dim
from holynb.pool.headers import BrokenModel, read_headers, same_bytes
from holynb.pool.modelfields import FieldRefused, check
from holynb.pool.modelfiles import read_object, real, truth, whole

__all__ = ["FAMILIES", "Spec", "UnknownModel", "parse_spec", "read_spec"]

#: Largest sizes of a config.json that are taken for a model's, far above those of any there is: what they make is sized by them.
_MAX_HEADS, _MAX_HEAD_DIM = 10_000, 100_000
_MAX_WIDTH, _MAX_VOCAB, _MAX_POSITIONS = 10_000_000, 100_000_000, 2**31 - 1


#: The norms of a layer: what they are for (`model.Layer`), and their name in the files.
_LAYER_NORMS: Mapping[str, Mapping[str, str]] = {
    "pre": {"norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {"out_norm": "post_attention_layernorm", "down_norm": "post_feedforward_layernorm"},
    "both": {
        "norm": "input_layernorm",
        "out_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "down_norm": "post_feedforward_layernorm",
    },
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One decoder. `max_len` is in tokens; `dtype` is how the weights lie on disk; `rope` holds type, theta and its scaling.

    `kv_fp8`: keys and values are kept in FP8.
    `norms`: of what an attention or MLP takes (pre), of what it gives (post), or both; `norm_offset` is added to their weights;
    `exact_norms`: those weights multiply in float32, before anything is rounded. `qk_norm`: of each query and key head (head), or of all
    heads together (all). `sinks`: each head has a score without a key. `embed_scale` multiplies embeddings, `residual_scale` what is added
    to the residual stream, `attention_scale` (0: head_dim ** -0.5) the scores of attention; `logits_divisor` divides the logits.
    `attention_cap` and `logits_cap` bound what they name (0: not at all), as cap · tanh(x / cap). `windows`: how many tokens each layer
    sees, its own included (0: all before it; no windows at all: empty). `rotated`: which layers have rotary positions (empty: all), in the
    first `rotary` numbers of each head (0: all); `local_rope`: those of layers with a window, where they differ. `fused`: q, k and v, and
    gate and up, each lie in one tensor.
    """

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
    qk_norm: str = ""
    sinks: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    rope: Mapping[str, Any] = field(default_factory=lambda: {"type": "default", "theta": 10000.0})
    dtype: str = "float32"
    eos: tuple[int, ...] = ()
    quantization: Quantization | FourBits | None = None
    kv_fp8: bool = False
    experts: ExpertLayers | None = None
    act: str = "silu"
    norms: str = "pre"
    norm_offset: float = 0.0
    exact_norms: bool = False
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float = 0.0
    attention_cap: float = 0.0
    logits_cap: float = 0.0
    logits_divisor: float = 1.0
    windows: tuple[int, ...] = ()
    rotated: tuple[bool, ...] = ()
    rotary: int = 0
    local_rope: Mapping[str, Any] | None = None
    fused: bool = False

    @property
    def layer_norms(self) -> Mapping[str, str]:
        """The norms over the residual stream's width in one layer: what they are for, and their name in the files."""
        return _LAYER_NORMS[self.norms]

    @property
    def qk_norm_sizes(self) -> tuple[int, int]:
        """Numbers in the norms of queries and of keys."""
        many = (self.heads, self.kv_heads) if self.qk_norm == "all" else (1, 1) if self.qk_norm else (0, 0)
        return many[0] * self.head_dim, many[1] * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Numbers in the matrices of one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (q + 2 * kv) + q * self.hidden + 3 * self.hidden * self.inner

    @property
    def layer_weights(self) -> int:
        """Numbers in one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        biases = (q + 2 * kv) * self.qkv_bias + self.hidden * self.out_bias + (2 * self.inner + self.hidden) * self.mlp_bias
        return self.layer_matrices + biases + len(self.layer_norms) * self.hidden + sum(self.qk_norm_sizes) + self.heads * self.sinks

    def experts_of(self, layer: int) -> ExpertLayers | None:
        """The experts of a layer; None where it has an MLP that is whole."""
        return None if self.experts is None or layer in self.experts.dense else self.experts

    def weights_of(self, layer: int, *, active: bool = False) -> int:
        """Numbers in a layer, or `active` those of them that one token is multiplied by."""
        experts = self.experts_of(layer)
        mlp = 0 if experts is None else experts.numbers(self.hidden, active=active) - 3 * self.hidden * self.inner
        return self.layer_weights + mlp

    @property
    def weights(self) -> int:
        """Numbers in the whole model."""
        return self._count(active=False)

    @property
    def active_weights(self) -> int:
        """Numbers that one token is multiplied by: of its experts alone."""
        return self._count(active=True)

    def _count(self, *, active: bool) -> int:
        return (
            sum(self.weights_of(i, active=active) for i in range(self.layers))
            + self.vocab * self.hidden * (1 if self.tied else 2)
            + self.hidden
        )


def read_spec(folder: Path) -> Spec:
    """The Spec of the model in `folder`. Raises UnknownModel, FileNotFoundError."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json, so it is no model. Name a folder with config.json and *.safetensors.")
    try:
        return _untied(folder, parse_spec(read_object(path)))
    except KeyError as exc:
        raise UnknownModel(f"{path} says no {exc.args[0]}, which its family has. Fetch the model again, or fix the file.") from exc
    except (ValueError, TypeError, AttributeError) as exc:
        raise UnknownModel(f"{path} is not a readable config.json ({exc}). Fetch the model again, or fix the file.") from exc


def _untied(folder: Path, spec: Spec) -> Spec:
    """A model whose files hold a head of its own has it, whatever tie_word_embeddings says: as transformers decides."""
    try:
        own = (
            spec.tied and "lm_head.weight" in read_headers(folder) and not same_bytes(folder, "lm_head.weight", "model.embed_tokens.weight")
        )
    except (BrokenModel, OSError):  # whoever reads the weights says so
        return spec
    return replace(spec, tied=False) if own else spec


def parse_spec(config: Mapping[str, Any]) -> Spec:
    """The Spec that a config.json's content says."""
    names = config.get("architectures") or ["a config.json that names no architecture"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise TypeError("architectures is not a list of names")
    family = names[0]
    row = family_of(family)
    if row.nested:
        text = config.get("text_config")
        if not isinstance(text, Mapping):
            raise TypeError("its text_config is no object")
        config = {**config, **text, "architectures": names}
    config, local = by_kind(config, row)
    try:
        check("config.json", config, family)
        check("config.json", {"rope_parameters": local or {}}, family)
        in_four = family == "GptOssForCausalLM" and in_mxfp4(config)
        quantization = None if in_four and config["quantization_config"]["quant_method"] == "mxfp4" else quantization_of(config)
    except FieldRefused as exc:
        raise UnknownModel(f"{exc}. {VLLM}") from exc
    if (act := config.get(row.act_field) or row.acts[0]) not in row.acts:
        raise UnknownModel(f"The native engine knows the {row.act_field} {row.acts[0]}, not {act}. {VLLM}")
    known = {**row.left_out, **config}
    spec = replace(_spec(known, family), quantization=quantization, kv_fp8=keeps_kv_in_fp8(config), **row.switches(known))
    if spec.experts is not None and quantization is not None and spec.experts.stacked and not in_four:
        raise UnknownModel(
            f"config.json says quantization_config, and of {family} the native engine knows experts in plain numbers and in MXFP4. {VLLM}"
        )
    if spec.fused and quantization is not None:
        raise UnknownModel(
            f"config.json says quantization_config, and the native engine reads none where q, k and v are one tensor. {VLLM}"
        )
    if local is None or not spec.windows:
        return spec
    return replace(spec, local_rope=rope_of({**known, "rope_theta": None, "rope_scaling": None, "rope_parameters": local}))


def _spec(config: Mapping[str, Any], family: str) -> Spec:
    """What all families say alike, of a config.json that leaves nothing out that its family has a number of its own for."""
    heads, hidden = whole(config, "num_attention_heads", 1, _MAX_HEADS), whole(config, "hidden_size", 1, _MAX_WIDTH)
    head_dim, rope = whole(config, "head_dim", 1, _MAX_HEAD_DIM, max(1, hidden // heads)), rope_of(config)
    rotary = rotary_dim(config, head_dim)
    for name in ("short_factor", "long_factor"):
        if len(rope.get(name, ())) not in {0, rotary // 2}:
            raise ValueError(f"{name} has {len(rope[name]):,} numbers for a head of {rotary:,}")
    return Spec(
        family=family,
        layers=whole(config, "num_hidden_layers", 1, MAX_LAYERS),
        hidden=hidden,
        inner=whole(config, "intermediate_size", 1, _MAX_WIDTH),
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", 1, heads, heads),
        head_dim=head_dim,
        vocab=whole(config, "vocab_size", 1, _MAX_VOCAB),
        max_len=_max_len(config, rope),
        eps=real(config, "rms_norm_eps", 0, 1, 1e-6),
        tied=truth(config, "tie_word_embeddings"),
        rope=rope,
        rotary=rotary if rotary < head_dim else 0,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        eos=_ends(config.get("eos_token_id")),
    )


def _ends(value: Any) -> tuple[int, ...]:
    """The tokens that end an answer: none, one, or a list."""
    ends = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(whole({"eos_token_id": one}, "eos_token_id", -1, _MAX_VOCAB) for one in ends)


def _max_len(config: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    """Positions the model can use."""
    length = whole(config, "max_position_embeddings", 1, _MAX_POSITIONS, 2048)
    if rope["type"] == "yarn":  # what it is stretched to; Qwen's files give the length before
        length = min(max(length, int(rope["original_max_position_embeddings"] * rope["factor"])), _MAX_POSITIONS)
    return length
