"""config.json → Spec: the sizes and switches of a dense decoder. Knows names and numbers; knows no torch and no weights.

The families differ in few switches (biases, QK-norm, tied head, rope scaling), so a family is a row of `families.py`, not a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holynb.pool.fit.experts import ExpertLayers
from holynb.pool.fit.families import FAMILIES, MAX_LAYERS, VLLM, DecoderFamily, UnknownModel, family_of
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.quantization import Quantization, keeps_kv_in_fp8, parse_quantization
from holynb.pool.headers import BrokenModel, read_headers, same_bytes
from holynb.pool.modelfields import FieldRefused, check
from holynb.pool.modelfiles import read_object, real, truth, whole

__all__ = ["FAMILIES", "Spec", "UnknownModel", "parse_spec", "read_spec"]

#: Ways to stretch rotary positions that we compute. Others change the answer, so they are refused.
ROPES = ("default", "linear", "llama3", "yarn", "longrope")

#: The numbers that each of them needs.
_ROPE_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": (),
}

#: Largest sizes of a config.json that are taken for a model's, far above those of any there is: what they make is sized by them.
_MAX_HEADS, _MAX_HEAD_DIM = 10_000, 100_000
_MAX_WIDTH, _MAX_VOCAB, _MAX_POSITIONS = 10_000_000, 100_000_000, 2**31 - 1


@dataclass(frozen=True, slots=True)
class Spec:
    """One decoder. `max_len` is in tokens; `dtype` is how the weights lie on disk; `rope` holds type, theta and its scaling.

    `kv_fp8`: keys and values are kept in FP8.
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
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    rope: Mapping[str, Any] = field(default_factory=lambda: {"type": "default", "theta": 10000.0})
    dtype: str = "float32"
    eos: tuple[int, ...] = ()
    quantization: Quantization | FourBits | None = None
    kv_fp8: bool = False
    experts: ExpertLayers | None = None

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
        return self.layer_matrices + biases + 2 * self.hidden + 2 * self.head_dim * self.qk_norm

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
    try:
        check("config.json", config, family)
        quantization = parse_quantization(config)
    except FieldRefused as exc:
        raise UnknownModel(f"{exc}. {VLLM}") from exc
    if (act := config.get("hidden_act", "silu")) not in row.acts:
        raise UnknownModel(f"The native engine knows the hidden_act {row.acts[0]}, not {act}. {VLLM}")
    known = {**row.left_out, **config}
    spec = replace(_spec(known, family, row), quantization=quantization, kv_fp8=keeps_kv_in_fp8(config), **row.switches(known))
    if spec.experts is not None and quantization is not None:
        raise UnknownModel(f"config.json says quantization_config, and the native engine knows experts in plain numbers alone. {VLLM}")
    return spec


def _spec(config: Mapping[str, Any], family: str, row: DecoderFamily) -> Spec:
    """What all families say alike, of a config.json that leaves nothing out that its family has a number of its own for."""
    heads, hidden = whole(config, "num_attention_heads", 1, _MAX_HEADS), whole(config, "hidden_size", 1, _MAX_WIDTH)
    head_dim, rope = whole(config, "head_dim", 1, _MAX_HEAD_DIM, max(1, hidden // heads)), _rope(config)
    if len(rope.get("factors", ())) not in {0, head_dim // 2}:
        raise ValueError(f"short_factor has {len(rope['factors']):,} numbers for a head of {head_dim:,}")
    return Spec(
        family=family,
        layers=whole(config, "num_hidden_layers", 1, MAX_LAYERS),
        hidden=hidden,
        inner=whole(config, "intermediate_size", 1, _MAX_WIDTH),
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", 1, heads, heads),
        head_dim=head_dim,
        vocab=whole(config, "vocab_size", 1, _MAX_VOCAB),
        max_len=_max_len(config, row, rope),
        eps=real(config, "rms_norm_eps", 0, 1, 1e-6),
        tied=truth(config, "tie_word_embeddings"),
        rope=rope,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        eos=_ends(config.get("eos_token_id")),
    )


def _ends(value: Any) -> tuple[int, ...]:
    """The tokens that end an answer: none, one, or a list."""
    ends = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(whole({"eos_token_id": one}, "eos_token_id", -1, _MAX_VOCAB) for one in ends)


def _max_len(config: Mapping[str, Any], row: DecoderFamily, rope: Mapping[str, Any]) -> int:
    """Positions the model can use. A sliding window ends there too: inside it, full attention says the same; beyond it, not."""
    length = whole(config, "max_position_embeddings", 1, _MAX_POSITIONS, 2048)
    if rope["type"] == "yarn":  # what it is stretched to; Qwen's files give the length before
        length = min(max(length, int(rope["original_max_position_embeddings"] * rope["factor"])), _MAX_POSITIONS)
    window = whole(config, "sliding_window", 0, _MAX_POSITIONS, 0)
    return min(length, window) if window and row.slides(config) else length


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings, from the old names (rope_theta, rope_scaling) and the new one (rope_parameters); transformers takes them so, too."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise TypeError("its rope settings are no object")
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in ROPES:
        raise UnknownModel(f"The native engine knows the rope types {', '.join(ROPES)}, not {kind}. {VLLM}")
    theta = real(given, "rope_theta", 1e-9, 1e30, real(config, "rope_theta", 1e-9, 1e30, 10000.0))
    # As transformers has it: the number beside the rope settings goes before the one in them.
    trained = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    trained = trained or config.get("max_position_embeddings")
    numbers = {**given, "original_max_position_embeddings": trained}
    if kind == "yarn" and given.get("factor") is None and "factor" in given:
        numbers["factor"] = whole(config, "max_position_embeddings", 1, _MAX_POSITIONS) / real(
            numbers, "original_max_position_embeddings", 1, 1e12
        )
    rope = {name: real(numbers, name, 1e-9, 1e12) for name in _ROPE_NUMBERS[kind]}
    more = _yarn(given) if kind == "yarn" else _one_set(given) if kind == "longrope" else {}
    return {"type": kind, "theta": theta, **rope, **more}


def _one_set(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What each frequency is divided by, whatever the length: a set of its own for long texts would turn what is cached already."""
    factors = given.get("short_factor")
    if not isinstance(factors, list) or given.get("long_factor") != factors or given.get("attention_factor") != 1:
        raise UnknownModel(f"The native engine knows longrope with the same short_factor and long_factor, and attention_factor 1. {VLLM}")
    return {"factors": tuple(real({"short_factor": one}, "short_factor", 1e-6, 1e12) for one in factors)}


def _yarn(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What yarn has beside its two numbers; a 0 is the same as left out, as in transformers."""
    numbers = {n: real(given, n, 0, 1e12, 0) for n in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")}
    factor = None if given.get("attention_factor") is None else real(given, "attention_factor", 0, 1e12)
    return {**numbers, "attention_factor": factor, "truncate": truth(given, "truncate", default=True)}
