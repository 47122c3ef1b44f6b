"""A dense decoder in plain torch: embed, layers, norm, head. Knows tensors; knows no batching, no devices, no other ranks.

What differs between one process and a share of a tensor- or pipeline-parallel model comes in from outside: the weights are
already cut, `joins` adds up partial sums, and a stage without embedding or head passes hidden states on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from holynb.pool.fit import Spec
from kernels_support.gpu.dense import linear, linear_split_k, pack_onednn, swiglu
from kernels_support.gpu.norms import add_rms_norm
from kernels_support.gpu.rotary import Heads, rotate_and_store

__all__ = ["Decoder", "Joins", "Layer", "Pass", "Weights", "pack", "rope_table"]

#: (queries (tokens, heads, size), keys, values (KV heads, slots, size)) → (tokens, heads, size)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(slots=True)
class Layer:
    """One layer's weights; fused where one product does (q, k, v; gate, up). Matrices are (out, in)."""

    norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    out_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


@dataclass(slots=True)
class Weights:
    """A whole model or a rank's share of it. `embed`, `norm`, `head` are None on stages that do not have them."""

    layers: list[Layer]
    embed: Tensor | None = None
    norm: Tensor | None = None
    head: Tensor | None = None


def pack(weights: Weights) -> Weights:
    """The same weights with their matrices laid out as the CPU multiplies them fastest. The embedding stays: it is looked up, not multiplied."""
    for layer in weights.layers:
        layer.qkv, layer.out = pack_onednn(layer.qkv), pack_onednn(layer.out)
        layer.gate_up, layer.down = pack_onednn(layer.gate_up), pack_onednn(layer.down)
    weights.head = None if weights.head is None else pack_onednn(weights.head)
    return weights


@dataclass(slots=True)
class Pass:
    """Tokens of one pass. `last` picks the rows whose next token is wanted; None: every row's."""

    ids: Tensor
    positions: Tensor
    slots: Tensor
    attend: Attend
    last: Tensor | None = None


class Joins:
    """Where a rank's share of the model meets the others'; here there are no others.

    A product that is cut by rows gives each rank a part of the sum.
    """

    def product(self, which: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG002 - where there are others, it depends
        """A product for `add_norm` to take next, or `total`. `which`: 1 after attention, 2 after the MLP."""
        return linear_split_k(x, weight, bias)

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """A part of the embeddings."""
        return embedding(ids, table)

    def total(self, part: Tensor) -> Tensor:
        """The sum of everybody's parts."""
        return part if part.dim() == 2 else part.sum(0)

    def add_norm(self, part: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """(normed sum, sum) of everybody's parts and the residual stream."""
        return add_rms_norm(part, residual, weight, eps)

    def logits(self, x: Tensor) -> Tensor:
        """Everybody's shares of the vocabulary, side by side."""
        return x


def rope_table(spec: Spec, length: int) -> Tensor:
    """Cosines, then sines, for each position: (length, head size), float32. Scaling as in transformers' modeling_rope_utils."""
    rope, half = spec.rope, spec.head_dim // 2
    freq = 1.0 / (rope["theta"] ** (torch.arange(0, spec.head_dim, 2, dtype=torch.int64).float() / spec.head_dim))
    if rope["type"] == "linear":
        freq = freq / rope["factor"]
    elif rope["type"] == "llama3":
        freq = _llama3(freq, rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"])
    angles = torch.arange(length).float()[:, None] * freq[None, :half]
    return torch.cat((angles.cos(), angles.sin()), -1)


def _llama3(freq: Tensor, factor: float, low: float, high: float, length: int) -> Tensor:
    """Long waves are stretched, short ones kept, those between blended."""
    wave = 2 * math.pi / freq
    smooth = (length / wave - low) / (high - low)
    blended = (1 - smooth) * freq / factor + smooth * freq
    return torch.where(wave > length / low, freq / factor, torch.where(wave < length / high, freq, blended))


class Decoder:
    """The forward pass over given weights."""

    def __init__(self, spec: Spec, weights: Weights, max_len: int, joins: Joins | None = None) -> None:
        self.spec, self.weights, self.joins = spec, weights, joins or Joins()
        self.rope = rope_table(spec, max_len).to(weights.layers[0].norm.device)
        self._heads = [self._divide(layer) for layer in weights.layers]

    def _divide(self, layer: Layer) -> Heads:
        """This rank's heads, read off the weights' sizes."""
        size = self.spec.head_dim
        heads = layer.out.shape[1] // size
        return Heads(heads, (layer.qkv.shape[0] // size - heads) // 2, size, layer.q_norm, layer.k_norm, self.spec.eps)

    def forward(self, part: Pass, kv: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Logits (rows of `last`, vocabulary), or hidden states (tokens, hidden) where this share has no head. Writes `kv`."""
        w, eps = self.weights, self.spec.eps
        x = hidden if w.embed is None else self.joins.embed(part.ids, w.embed)
        if x is None:
            raise ValueError("a stage without embedding needs hidden states")
        rope, residual, joins = embedding(part.positions, self.rope), None, self.joins
        # What another stage made is whole; from then on everything that is added to the stream comes in parts.
        add_norm = add_rms_norm if w.embed is None else joins.add_norm
        for layer, how, (keys, values) in zip(w.layers, self._heads, kv, strict=True):
            x, residual = add_norm(x, residual, layer.norm, eps)
            add_norm = joins.add_norm
            q = rotate_and_store(linear(x, layer.qkv, layer.qkv_bias), how, rope, part.slots, keys, values)
            attended = part.attend(q, keys, values).reshape(x.shape[0], -1)
            x = joins.product(1, attended, layer.out, layer.out_bias)
            x, residual = add_norm(x, residual, layer.mlp_norm, eps)
            x = joins.product(2, swiglu(x, layer.gate_up, layer.gate_up_bias), layer.down, layer.down_bias)
        if w.head is None or w.norm is None or residual is None:
            return joins.total(x) if residual is None else (residual + joins.total(x)).to(residual.dtype)
        if part.last is not None:
            x, residual = x[..., part.last, :], residual[part.last]
        return joins.logits(linear(joins.add_norm(x, residual, w.norm, eps)[0], w.head))
