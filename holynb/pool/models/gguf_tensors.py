"""The tensors of a GGUF file under the names of safetensors, in their layout. Knows names and shapes; reads with gguf, no torch.

Whatever llama.cpp's loader looks for has a row in `modelfields.toml`; a tensor without one, or that is refused there, is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.modelfields import row_of
from holynb.pool.models.gguf_experts import expert_tensors, is_router, plain_layers, router_name
from holynb.pool.models.gguf_facts import ConvertError, shown
from holynb.pool.models.gguf_groups import BITS, QuantizedBlocks, entries, groups_of
from holynb.pool.models.gguf_stacked import StackedPiece, is_stacked, stacked_pieces

__all__ = ["Piece", "check_tensors", "pieces_of", "rope_factors"]

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
    "post_attention_norm": "post_attention_layernorm",
    "attn_sinks": "self_attn.sinks",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"
#: Kinds of numbers that gguf unpacks. NVFP4's scales are tensors of their own, which are refused.
_KINDS = frozenset({
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4",
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to be written: its name, its shape, and the one of the file that it is made of; None where it is zero.

    `plain`: its blocks are not kept, whatever they are.
    """

    name: str
    shape: tuple[int, ...]
    tensor: Any | None
    plain: bool = False

    @property
    def count(self) -> int:
        """Its numbers."""
        rows = 1
        for size in self.shape:
            rows *= size
        return rows

    @property
    def bits(self) -> float | None:
        """Of a number, where its blocks can be kept; None where they cannot."""
        return None if self.tensor is None or self.plain or len(self.shape) != 2 else BITS.get(self.tensor.tensor_type.name)

    def entries(self, *, kept: bool) -> list[tuple[str, str, tuple[int, ...]]]:
        """What it is written as, its blocks `kept` or not: the end of a tensor's name, its type and its shape."""
        if not kept or self.bits is None or self.tensor is None:
            return [("", "F32", self.shape)]
        return list(entries(self.tensor.tensor_type.name, (self.shape[0], self.shape[1])))

    def arrays(self, config: Mapping[str, Any], *, kept: bool) -> Iterator[Any]:
        """The numbers of `entries` in their order. Raises ConvertError."""
        yield from self.groups(config).arrays if kept and self.bits is not None else [self.values(config)]

    def values(self, config: Mapping[str, Any]) -> Any:
        """Its numbers, float32. Raises ConvertError."""
        import numpy as np

        if self.tensor is None:
            return np.zeros(self.shape, dtype=np.float32)
        values = self._in_order(_dequantized(self.tensor), config)
        if values.size != self.count:
            raise ConvertError(f"{self.tensor.name} holds {values.size:,} values instead of {self.count:,}")
        return values

    def groups(self, config: Mapping[str, Any]) -> QuantizedBlocks:
        """Its blocks as they are, where `bits` says so. Raises ConvertError."""
        tensor: Any = self.tensor
        groups = groups_of(tensor.data, tensor.tensor_type.name).rows(lambda rows: self._in_order(rows, config))
        if groups.values.size * (2 if groups.values.dtype.name == "uint8" else 1) != self.count:
            raise ConvertError(f"{tensor.name} holds another number of values than {self.count:,}")
        return groups

    def _in_order(self, rows: Any, config: Mapping[str, Any]) -> Any:
        """Rows of it, or what belongs to them, in the order of safetensors."""
        if config["model_type"] in {"llama", "mixtral"} and re.search(r"\.[qk]_proj\.", self.name):
            return _unpermuted(rows, config["num_attention_heads" if ".q_proj." in self.name else "num_key_value_heads"])
        return rows


def check_tensors(names: Iterable[str], family: str) -> None:
    """Raises ConvertError with the first tensor that is refused, or that no row knows."""
    for name in names:
        row = row_of("gguf tensors", name, family)
        if row is None or row.use == "refused":
            why = f" ({row.why})" if row else ""
            raise ConvertError(f"the GGUF file holds a tensor {shown(name)}{why}, which is not supported; use the model's safetensors")


def rope_factors(tensors: Iterable[Any]) -> list[float] | None:
    """What each frequency of the rotary positions is divided by, where a file says it."""
    found = next((t for t in tensors if t.name == _ROPE_FACTORS), None)
    if found is None:
        return None
    factors: list[float] = _dequantized(found).reshape(-1).tolist()
    if not all(1e-6 < one < 1e6 for one in factors):
        raise ConvertError(f"{_ROPE_FACTORS} holds numbers that are no factors")
    return factors


def pieces_of(tensors: Iterable[Any], config: Mapping[str, Any]) -> list[Piece | StackedPiece]:
    """What is to be written. Where some layers or matrices have a bias, the others get one of zeros: config.json says it for all."""
    tensors = list(tensors)
    stacked = config["model_type"] == "gpt_oss"
    pieces: list[Piece | StackedPiece] = [*stacked_pieces(tensors, config)] if stacked else []
    plain = plain_layers(tensors, BITS)
    for t in tensors:
        if t.name == _ROPE_FACTORS or (stacked and is_stacked(t.name)):
            continue
        experts = [Piece(name, shape, part, int(t.name.split(".")[1]) in plain) for name, shape, part in expert_tensors(t, config)]
        pieces += experts or [_piece(t, config)]
    written = {piece.name for piece in pieces}
    return pieces + [piece for piece in _zeros(config) if piece.name not in written]


def _piece(tensor: Any, config: Mapping[str, Any]) -> Piece:
    name = router_name(tensor.name, config) or _name(tensor.name)
    return Piece(name, tuple(int(n) for n in reversed(tensor.shape)), tensor, is_router(name))


def _zeros(config: Mapping[str, Any]) -> Iterator[Piece]:
    """Every bias that config.json promises."""
    size, hidden, inner = config["head_dim"], config["hidden_size"], config["intermediate_size"]
    rows = {}
    if config["attention_bias"]:
        q, kv = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
        rows = {"self_attn.q_proj": q, "self_attn.k_proj": kv, "self_attn.v_proj": kv}
        rows |= {} if config["model_type"] == "qwen2" else {"self_attn.o_proj": hidden}
    if config.get("mlp_bias"):
        rows |= {"mlp.gate_proj": inner, "mlp.up_proj": inner, "mlp.down_proj": hidden}
    for i in range(config["num_hidden_layers"]):
        for name, count in rows.items():
            yield Piece(f"model.layers.{i}.{name}.bias", (count,), None)


def _name(name: str) -> str:
    """The safetensors name of a GGUF tensor."""
    parts = name.split(".")
    if len(parts) == 4 and parts[1].isdecimal() and parts[2] in _LAYER:
        end = "" if parts[2] == "attn_sinks" else f".{parts[3]}"
        return f"model.layers.{int(parts[1])}.{_LAYER[parts[2]]}{end}"
    return _TOP[name]


def _dequantized(tensor: Any) -> Any:
    import gguf
    import numpy as np

    if (kind := tensor.tensor_type.name) not in _KINDS:
        raise ConvertError(f"{tensor.name} is quantized as {kind}, which is not supported; take another quantization of the model")
    return np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def _unpermuted(values: Any, heads: int) -> Any:
    """llama.cpp stores the rotary pairs of this family side by side; safetensors keep them in two halves. Of biases, too."""
    import numpy as np

    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
