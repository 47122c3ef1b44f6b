"""The collectives of a tensor-parallel rank: partial sums, embeddings and logits. Over symmetric memory if possible, else by NCCL or Gloo.

As in Megatron-LM (Shoeybi et al., 2019, arXiv:1909.08053): row-parallel products are all-reduced, the embedding and the head are
divided by vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

from holynb.pool.engine.model import Collectives, norm_for
from holynb.pool.engine.symmetric import SymmetricMemory
from holynb.pool.fit import Shard, Spec
from kernels_support.cpu.grouped import GroupedMatrix
from kernels_support.gpu.allreduce_norm import allreduce_rms_norm
from kernels_support.gpu.dense import linear, lookup
from kernels_support.gpu.experts import Experts, experts_mlp
from kernels_support.gpu.fp8_matrix import Matrix
from kernels_support.gpu.norms import PLAIN, Joining
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.quantize_fp8 import Quantized

__all__ = ["AllReduce"]

# torch 2.13's name for what 2.11 calls all_gather_into_tensor.
_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


class AllReduce(Collectives):
    """Of few rows, partial sums are written to `shared` and reduced by the kernel that norms them; of many, by the backend's all-reduce."""

    def __init__(self, group: distributed.ProcessGroup, spec: Spec, shard: Shard, shared: SymmetricMemory | None) -> None:
        self._group, self._shared = group, shared
        self._world, self._vocab, self._vocab_range = distributed.get_world_size(group), spec.vocab, shard.vocab

    def row_parallel_linear(self, buffer: int, x: Tensor | Quantized, weight: Matrix, bias: Tensor | None) -> Tensor:
        rows = x.values.shape[0] if isinstance(x, Quantized) else x.shape[0]
        return linear(x, weight, bias, self._buffer(buffer, rows))

    def experts(self, x: Tensor, experts: Experts, counts: Tensor | None) -> Tensor:
        part = experts_mlp(x, experts, counts, self._buffer(2, x.shape[0]))
        return part if part.dim() == 2 else part.sum(0)

    def embed(self, ids: Tensor, table: Tensor | GroupedMatrix | PackedMatrix) -> Tensor:
        first, last = self._vocab_range
        owned = (ids >= first) & (ids < last)
        rows, out = lookup((ids - first).clamp(0, max(last - first - 1, 0)), table), self._buffer(0, ids.shape[0])
        return torch.mul(rows, owned[:, None], out=out)

    def all_reduce(self, part: Tensor) -> Tensor:
        # A sum, not a mean: each rank holds a part of every product, not a copy. A shared buffer is not written: a peer may be reading it.
        part = part if self._shared is None or self._shared.offset(part) is None else part.clone()
        distributed.all_reduce(part, group=self._group)
        return part

    def mean(self, x: Tensor) -> Tensor:
        distributed.all_reduce(x, group=self._group)
        return x / self._world

    def add_norm(  # noqa: PLR0917 - what the kernel behind it needs
        self, part: Tensor, residual: Tensor | None, weight: Tensor | None, eps: float, factor: Matrix | None = None, way: Joining = PLAIN
    ) -> tuple[Tensor | Quantized, Tensor]:
        offset = None if self._shared is None else self._shared.offset(part)
        if self._shared is None or offset is None or weight is None or not way.plain:
            return norm_for(self.all_reduce(part), residual, weight, eps, factor, way)
        return allreduce_rms_norm(part, offset, self._shared.peers, residual, weight, eps)

    def _buffer(self, index: int, rows: int) -> Tensor | None:
        """(rows, hidden) that the peers can read, for a partial sum that `add_norm` takes next; None: too many rows, or no peer access."""
        return self._shared.buffer(index, rows) if self._shared is not None and rows <= self._shared.rows else None

    def gather_logits(self, x: Tensor) -> Tensor:
        share = -(-self._vocab // self._world)
        x = pad(x, (0, share - x.shape[1])).contiguous()
        out = x.new_empty(self._world * x.shape[0], share)
        _gather(out, x, group=self._group)
        return out.view(self._world, -1, share).transpose(0, 1).reshape(x.shape[0], -1)[:, : self._vocab].contiguous()
