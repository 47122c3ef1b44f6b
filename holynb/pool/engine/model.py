"""A decoder in plain torch: embed, layers, norm, head. Knows tensors; knows no batching, no devices, no other ranks.

Tensor and pipeline parallelism come in from outside: the weights are already sharded, `collectives` reduce partial sums, and a
stage without embedding or head takes or returns hidden states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from holynb.pool.fit import Spec
from kernels_support.gpu.dense import linear, linear_split_k, pack_onednn, plain, swiglu
from kernels_support.gpu.experts import Experts, experts_mlp, fresh_counts
from kernels_support.gpu.fp8_matrix import Fp8Matrix, Matrix
from kernels_support.gpu.norms import add_rms_norm, add_rms_norm_fp8
from kernels_support.gpu.quantize_fp8 import Quantized
from kernels_support.gpu.rotary import Heads, rotate_and_store

__all__ = ["Collectives", "Decoder", "ForwardBatch", "Layer", "Weights", "norm_for", "pack", "rope_table"]

#: (queries (tokens, heads, size), keys, values (KV heads, slots, size), their scales (2, KV heads)) → (tokens, heads, size)
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(slots=True)
class Layer:
    """One layer's weights, fused to one matrix where the input is the same (q, k, v; gate, up). Matrices are (out, in).

    `kv_scales`: float32 (2, KV heads) of keys and values, where the cache is of FP8.
    `gate_up` and `down` are None where `experts` are not.
    """

    norm: Tensor
    qkv: Matrix
    out: Matrix
    mlp_norm: Tensor
    gate_up: Matrix | None
    down: Matrix | None
    qkv_bias: Tensor | None = None
    out_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    kv_scales: Tensor | None = None
    experts: Experts | None = None


@dataclass(slots=True)
class Weights:
    """A whole model or a rank's shard of it. `embed`, `norm`, `head` are None on stages that do not have them."""

    layers: list[Layer]
    embed: Tensor | None = None
    norm: Tensor | None = None
    head: Tensor | None = None


def pack(weights: Weights) -> Weights:
    """Pack the matrices, in place, in oneDNN's layout for the CPU. The embedding stays: it is looked up, not multiplied."""
    for layer in weights.layers:
        layer.qkv, layer.out = pack_onednn(layer.qkv), pack_onednn(layer.out)
        if layer.gate_up is not None and layer.down is not None:
            layer.gate_up, layer.down = pack_onednn(layer.gate_up), pack_onednn(layer.down)
    head = None if weights.head is None else pack_onednn(weights.head)
    weights.head = head if isinstance(head, Tensor) else weights.head
    return weights


@dataclass(slots=True)
class ForwardBatch:
    """The tokens of one forward pass: ids, positions and KV cache slots. `last`: indices of those whose logits are needed; None: all.

    `hidden`: not their logits are wanted, but what the head would be given.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    attend: Attend
    last: Tensor | None = None
    hidden: bool = False


class Collectives:
    """The tensor-parallel operations of the model, here for a group of one rank.

    The product of a row-parallel matrix is a partial sum: each rank has a part, and the sum of all ranks' parts is the result.
    """

    def row_parallel_linear(self, buffer: int, x: Tensor | Quantized, weight: Matrix, bias: Tensor | None) -> Tensor:  # noqa: ARG002
        """This rank's partial sum, for `add_norm` or `all_reduce`. `buffer`: 1 after attention, 2 after the MLP (0: `embed`)."""
        return linear_split_k(x, weight, bias)

    def experts(self, x: Tensor, experts: Experts, counts: Tensor | None) -> Tensor:
        """`experts_mlp`, of which this rank has a part of each expert: its partial sum, as `row_parallel_linear` after the MLP."""
        return experts_mlp(x, experts, counts)

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """This rank's part of the embeddings: zero for ids outside of its share of the vocabulary."""
        return embedding(ids, table)

    def all_reduce(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts."""
        return part if part.dim() == 2 else part.sum(0)

    def add_norm(
        self, part: Tensor, residual: Tensor | None, weight: Tensor, eps: float, factor: Matrix | None = None
    ) -> tuple[Tensor | Quantized, Tensor]:
        """(norm of the sum, sum) of all ranks' parts and the residual stream (None at its start).

        `factor`: what the norm is multiplied by; it may come in that one's eight bits.
        """
        return norm_for(part, residual, weight, eps, factor)

    def gather_logits(self, x: Tensor) -> Tensor:
        """Logits of the whole vocabulary, from each rank's share."""
        return x


def norm_for(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, factor: Matrix | None = None
) -> tuple[Tensor | Quantized, Tensor]:
    """`add_rms_norm`, in the eight bits of `factor` where it has them."""
    if isinstance(factor, Fp8Matrix) and factor.plain:
        return add_rms_norm_fp8(x, residual, weight, eps, factor.group)
    return add_rms_norm(x, residual, weight, eps)


def rope_table(spec: Spec, length: int) -> Tensor:
    """Cosines, then sines, for each position: (length, head size), float32. Scaling as in transformers' modeling_rope_utils."""
    rope, half = spec.rope, spec.head_dim // 2
    freq = 1.0 / (rope["theta"] ** (torch.arange(0, spec.head_dim, 2, dtype=torch.int64).float() / spec.head_dim))
    if rope["type"] == "linear":
        freq = freq / rope["factor"]
    elif rope["type"] == "longrope":
        freq = freq / torch.tensor(rope["factors"])
    elif rope["type"] == "llama3":
        freq = _llama3(freq, rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"])
    elif rope["type"] == "yarn":
        freq = _yarn(freq, spec.head_dim, rope)
    angles = torch.arange(length).float()[:, None] * freq[None, :half]
    return torch.cat((angles.cos(), angles.sin()), -1) * _attention_factor(rope)


def _attention_factor(rope: Mapping[str, Any]) -> float:
    """What yarn multiplies cosines and sines by: more context, sharper attention (Peng et al. 2023, arXiv:2309.00071)."""
    if rope["type"] != "yarn":
        return 1.0
    if rope["attention_factor"] is not None:
        return float(rope["attention_factor"])

    def scale(by: float) -> float:
        return 1.0 if rope["factor"] <= 1 else 0.1 * by * math.log(rope["factor"]) + 1.0

    return scale(rope["mscale"]) / scale(rope["mscale_all_dim"]) if rope["mscale"] and rope["mscale_all_dim"] else scale(1)


def _yarn(freq: Tensor, size: int, rope: Mapping[str, Any]) -> Tensor:
    """Dimensions that turn often are kept, those that turn rarely are stretched, those between interpolated."""

    def dimension(turns: float) -> float:
        return size * math.log(rope["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(rope["theta"]))

    low, high = dimension(rope["beta_fast"] or 32), dimension(rope["beta_slow"] or 1)
    if rope["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = ((torch.arange(size // 2, dtype=torch.float32) - low) / (high - low + 0.001 * (low == high))).clamp(0, 1)
    mixed: Tensor = freq / rope["factor"] * ramp + freq * (1 - ramp)
    return mixed


def _llama3(freq: Tensor, factor: float, low: float, high: float, length: int) -> Tensor:
    """Long wavelengths are stretched, short ones kept, those between interpolated."""
    wave = 2 * math.pi / freq
    smooth = (length / wave - low) / (high - low)
    blended = (1 - smooth) * freq / factor + smooth * freq
    return torch.where(wave > length / low, freq / factor, torch.where(wave < length / high, freq, blended))


class Decoder:
    """The forward pass over a rank's weights."""

    def __init__(self, spec: Spec, weights: Weights, max_len: int, collectives: Collectives | None = None) -> None:
        self.spec, self.weights, self.collectives = spec, weights, collectives or Collectives()
        self.rope = rope_table(spec, max_len).to(weights.layers[0].norm.device)
        self._heads = [self._heads_of(layer) for layer in weights.layers]

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in; the cache may have fewer bits."""
        return self.weights.layers[0].norm.dtype

    def _heads_of(self, layer: Layer) -> Heads:
        """This rank's heads, derived from the weights' shapes."""
        size = self.spec.head_dim
        heads = layer.out.shape[1] // size
        return Heads(heads, (layer.qkv.shape[0] // size - heads) // 2, size, layer.q_norm, layer.k_norm, self.spec.eps, layer.kv_scales)

    def _counts(self, x: Tensor) -> Iterator[Tensor | None]:
        """For each layer with experts, what they are counted in. All of a pass are zeroed at once."""
        counts = [layer.experts.count for layer in self.weights.layers if layer.experts is not None]
        zeros = fresh_counts(len(counts), counts[0], x) if counts else None
        return repeat(None) if zeros is None else iter(zeros.unbind())

    def forward(self, batch: ForwardBatch, kv: Iterable[Any], hidden: Tensor | None = None) -> Tensor:
        """Logits (rows of `last`, vocabulary), or hidden states (tokens, hidden) if this stage has no head. Writes `kv`, a pair a layer.

        `hidden`: the previous stage's output; needed, and used, only without an embedding.
        """
        w, eps = self.weights, self.spec.eps
        x = hidden if w.embed is None else self.collectives.embed(batch.ids, w.embed)
        if x is None:
            raise ValueError("a stage without embedding needs hidden states")
        rope, residual, collectives = embedding(batch.positions, self.rope), None, self.collectives
        # Another stage's output is a whole sum; from then on everything that is added to the stream is a partial sum.
        add_norm = norm_for if w.embed is None else collectives.add_norm
        counts = self._counts(x)
        for layer, heads, (keys, values) in zip(w.layers, self._heads, kv, strict=True):
            normed, residual = add_norm(x, residual, layer.norm, eps, layer.qkv)
            add_norm = collectives.add_norm
            q = rotate_and_store(linear(normed, layer.qkv, layer.qkv_bias), heads, rope, batch.slots, keys, values)
            attended = batch.attend(q, keys, values, layer.kv_scales).reshape(q.shape[0], -1)
            x = collectives.row_parallel_linear(1, attended, layer.out, layer.out_bias)
            normed, residual = add_norm(x, residual, layer.mlp_norm, eps, layer.gate_up)
            if layer.gate_up is not None and layer.down is not None:
                product = swiglu(normed, layer.gate_up, layer.gate_up_bias, layer.down)
                x = collectives.row_parallel_linear(2, product, layer.down, layer.down_bias)
            elif layer.experts is not None:
                x = collectives.experts(plain(normed), layer.experts, next(counts))
        if w.head is None or w.norm is None or residual is None:
            return collectives.all_reduce(x) if residual is None else (residual + collectives.all_reduce(x)).to(residual.dtype)
        if batch.last is not None:
            x, residual = x[..., batch.last, :], residual[batch.last]
        normed = collectives.add_norm(x, residual, w.norm, eps)[0]
        return plain(normed) if batch.hidden else collectives.gather_logits(linear(normed, w.head))
