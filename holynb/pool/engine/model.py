"""A decoder in plain torch: embed, layers, norm, head. Knows tensors; knows no batching, no devices, no other ranks.

Tensor and pipeline parallelism come in from outside: the weights are already sharded, `collectives` reduce partial sums, and a
stage without embedding or head takes or returns hidden states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding

from holynb.pool.engine.rope import rope_tables
from holynb.pool.fit import CacheGroups, Spec
from kernels_support.cpu.grouped import GroupedMatrix
from kernels_support.gpu.attention import AttentionKind
from kernels_support.gpu.dense import linear, linear_split_k, lookup, pack_onednn, plain, swiglu
from kernels_support.gpu.experts import Experts, experts_mlp, fresh_counts
from kernels_support.gpu.fp8 import few_tiles
from kernels_support.gpu.fp8_matrix import Fp8Matrix, Matrix
from kernels_support.gpu.norms import PLAIN, Joining, add_rms_norm, add_rms_norm_fp8, add_rms_norm_reference
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.quantize_fp8 import Quantized
from kernels_support.gpu.rotary import Heads, rotate_and_store

__all__ = ["Collectives", "Decoder", "ForwardBatch", "Layer", "Weights", "norm_for", "pack"]


class Attend(Protocol):
    """Attention of one layer."""

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, scales: Tensor | None, kind: AttentionKind) -> Tensor | Quantized:
        """Queries (tokens, heads, size), keys and values (KV heads, slots, size), their scales (2, KV heads) → (tokens, heads, size).

        Or in eight bits (tokens, heads · size), where the kind allows it.
        """


@dataclass(slots=True)
class Layer:
    """One layer's weights, fused to one matrix where the input is the same (q, k, v; gate, up). Matrices are (out, in).

    `norm` and `mlp_norm` are of what attention and MLP take, `out_norm` and `down_norm` of what they give; None where there is none.
    `kv_scales`: float32 (2, KV heads) of keys and values, where the cache is of FP8.
    `gate_up` and `down` are None where `experts` are not. `sinks`: a score of each head without a key.
    """

    norm: Tensor | None
    qkv: Matrix
    out: Matrix
    mlp_norm: Tensor | None
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
    out_norm: Tensor | None = None
    down_norm: Tensor | None = None
    sinks: Tensor | None = None


@dataclass(slots=True)
class Weights:
    """A whole model or a rank's shard of it. `embed`, `norm`, `head` are None on stages that do not have them. `first`: its first layer.

    `dtype`: what is computed in; None: what norms are in.
    """

    layers: list[Layer]
    embed: Tensor | GroupedMatrix | PackedMatrix | None = None
    norm: Tensor | None = None
    head: Tensor | GroupedMatrix | PackedMatrix | None = None
    first: int = 0
    dtype: torch.dtype | None = None


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

    `hidden`: not their logits are wanted, but what the head would be given. `others`: slots and attention of the cache's further groups.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    attend: Attend
    last: Tensor | None = None
    hidden: bool = False
    others: Sequence[tuple[Tensor, Attend]] = ()


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

    def embed(self, ids: Tensor, table: Tensor | GroupedMatrix | PackedMatrix) -> Tensor:
        """This rank's part of the embeddings: zero for ids outside of its share of the vocabulary."""
        return lookup(ids, table)

    def all_reduce(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts."""
        return part if part.dim() == 2 else part.sum(0)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of all ranks' tensors."""
        return x

    def add_norm(  # noqa: PLR0917 - what the kernel behind it needs
        self, part: Tensor, residual: Tensor | None, weight: Tensor | None, eps: float, factor: Matrix | None = None, way: Joining = PLAIN
    ) -> tuple[Tensor | Quantized, Tensor]:
        """(norm of the sum, sum) of all ranks' parts and the residual stream (None at its start).

        `factor`: what the norm is multiplied by; it may come in that one's eight bits. `weight` None: the sum itself instead of its norm.
        """
        return norm_for(part, residual, weight, eps, factor, way)

    def gather_logits(self, x: Tensor) -> Tensor:
        """Logits of the whole vocabulary, from each rank's share."""
        return x


def norm_for(  # noqa: PLR0917 - what the kernel behind it needs
    x: Tensor, residual: Tensor | None, weight: Tensor | None, eps: float, factor: Matrix | None = None, way: Joining = PLAIN
) -> tuple[Tensor | Quantized, Tensor]:
    """`add_rms_norm`, in the eight bits of `factor` where it has them and is not multiplied by what is plain."""
    if isinstance(factor, Fp8Matrix) and factor.plain and few_tiles(x, factor) is None:
        return add_rms_norm_fp8(x, residual, weight, eps, factor.group, way)
    return add_rms_norm(x, residual, weight, eps, way)


@dataclass(frozen=True, slots=True)
class _Traits:
    """What of a layer is decided once, when the model is loaded."""

    heads: Heads
    attention: AttentionKind
    rope: int
    wide_norms: tuple[Tensor, Tensor] | None
    out_way: Joining
    down_way: Joining
    group: int


class Decoder:
    """The forward pass over a rank's weights. `groups`: where its layers lie in the KV cache; None: one group, each at its own place."""

    def __init__(
        self, spec: Spec, weights: Weights, max_len: int, collectives: Collectives | None = None, groups: CacheGroups | None = None
    ) -> None:
        self.spec, self.weights, self.collectives = spec, weights, collectives or Collectives()
        norms = (weights.layers[0].norm, weights.layers[0].out_norm)
        device = next(norm.device for norm in norms if norm is not None)
        self.ropes = [table.to(device) for table in rope_tables(spec, max_len)]
        self._places = tuple((0, i) for i in range(len(weights.layers))) if groups is None else groups.places
        self._traits = [self._traits_of(layer, weights.first + i, max_len) for i, layer in enumerate(weights.layers)]
        # Of each of the cache's groups, how many tokens its layers see (0: all), each number once.
        self.windows = [
            sorted({t.attention.window for t in self._traits if t.group == g}) for g in range(1 if groups is None else len(groups.windows))
        ]
        # As rounded to the stream's dtype, in which the reference keeps it.
        self._embed_scale = spec.embed_scale if weights.embed is None else float(torch.tensor(spec.embed_scale, dtype=weights.embed.dtype))

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in; the cache may have fewer bits, and norms more."""
        return self.weights.dtype or self.weights.layers[0].norm.dtype  # type: ignore[union-attr]

    def _traits_of(self, layer: Layer, i: int, max_len: int) -> _Traits:
        """Of this rank's heads: derived from the weights' shapes."""
        spec, size = self.spec, self.spec.head_dim
        heads = layer.out.shape[1] // size
        wide = (layer.q_norm, layer.k_norm) if spec.qk_norm == "all" and layer.q_norm is not None and layer.k_norm is not None else None
        norms = (None, None) if wide else (layer.q_norm, layer.k_norm)
        rotary = 0 if spec.rotated and not spec.rotated[i] else spec.rotary or None
        window = spec.windows[i] if spec.windows else 0
        eights = isinstance(layer.out, Fp8Matrix) and layer.out.by_row
        return _Traits(
            Heads(heads, (layer.qkv.shape[0] // size - heads) // 2, size, *norms, spec.eps, layer.kv_scales, rotary),
            AttentionKind(spec.attention_scale or None, spec.attention_cap, window if window < max_len else 0, layer.sinks, eights),
            1 if window and spec.local_rope is not None else 0,
            wide,
            Joining(layer.out_norm, spec.residual_scale),
            Joining(layer.down_norm, spec.residual_scale),
            self._places[i - self.weights.first][0],
        )

    def cache_of(self, kv: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values in the memory of the cache."""
        return [(kv[place, 0], kv[place, 1]) for _, place in self._places]

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
        x = hidden if w.embed is None else self._embedded(batch.ids, w.embed)
        if x is None:
            raise ValueError("a stage without embedding needs hidden states")
        ropes, residual, collectives, way = [embedding(batch.positions, table) for table in self.ropes], None, self.collectives, PLAIN
        # Another stage's output is a whole sum; from then on everything that is added to the stream is a partial sum.
        add_norm = norm_for if w.embed is None else collectives.add_norm
        counts, groups = self._counts(x), ((batch.slots, batch.attend), *batch.others)
        for layer, traits, (keys, values) in zip(w.layers, self._traits, kv, strict=True):
            normed, residual = add_norm(x, residual, layer.norm, eps, layer.qkv, way)
            add_norm, way = collectives.add_norm, traits.down_way
            qkv = linear(normed, layer.qkv, layer.qkv_bias)
            if traits.wide_norms is not None:
                qkv = self._normed_widely(qkv, traits.heads, *traits.wide_norms)
            slots, attend = groups[traits.group]
            q = rotate_and_store(qkv, traits.heads, ropes[traits.rope], slots, keys, values)
            attended = attend(q, keys, values, layer.kv_scales, traits.attention)
            attended = attended if isinstance(attended, Quantized) else attended.reshape(q.shape[0], -1)
            x = collectives.row_parallel_linear(1, attended, layer.out, layer.out_bias)
            normed, residual = add_norm(x, residual, layer.mlp_norm, eps, layer.gate_up, traits.out_way)
            if layer.gate_up is not None and layer.down is not None:
                product = swiglu(normed, layer.gate_up, layer.gate_up_bias, layer.down, act=self.spec.act)
                x = collectives.row_parallel_linear(2, product, layer.down, layer.down_bias)
            elif layer.experts is not None:
                x = collectives.experts(plain(normed), layer.experts, next(counts))
        if w.head is None or w.norm is None or residual is None:
            x = collectives.all_reduce(x)
            if residual is None or way.plain:
                return x if residual is None else (residual + x).to(residual.dtype)
            return add_rms_norm_reference(x.to(residual.dtype), residual, None, eps, way)[1]
        if batch.last is not None:
            x, residual = x[..., batch.last, :], residual[batch.last]
        normed = collectives.add_norm(x, residual, w.norm, eps, way=way)[0]
        return plain(normed) if batch.hidden else self._logits(linear(normed, w.head))

    def _embedded(self, ids: Tensor, table: Tensor | GroupedMatrix | PackedMatrix) -> Tensor:
        x = self.collectives.embed(ids, table)
        return x if self._embed_scale == 1 else x.mul_(self._embed_scale)

    def _normed_widely(self, qkv: Tensor, heads: Heads, q_norm: Tensor, k_norm: Tensor) -> Tensor:
        """RMSNorm of all queries together, and of all keys; of all ranks' heads."""
        first, second = heads.heads * heads.size, (heads.heads + heads.kv) * heads.size
        q, k, v = qkv[:, :first], qkv[:, first:second], qkv[:, second:]
        squares = torch.stack([x.float().square().mean(-1) for x in (q, k)])
        q_scale, k_scale = torch.rsqrt(self.collectives.mean(squares) + self.spec.eps)[..., None]
        return torch.cat([(q.float() * q_scale * q_norm).to(q.dtype), (k.float() * k_scale * k_norm).to(k.dtype), v], -1)

    def _logits(self, logits: Tensor) -> Tensor:
        """Of the whole vocabulary, as the family scales and bounds them."""
        logits, spec = self.collectives.gather_logits(logits), self.spec
        if spec.logits_divisor != 1:
            logits = logits / spec.logits_divisor
        return spec.logits_cap * torch.tanh(logits / spec.logits_cap) if spec.logits_cap else logits
