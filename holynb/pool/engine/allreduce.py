"""A tensor group's sums: parts of a product added up, embeddings and logits that each rank has a share of. By reading the peers' memory where it can be, else by the group's library."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn.functional import embedding, pad

from holynb.pool.engine.model import Joins
from holynb.pool.engine.symmetric import SymmetricMemory
from holynb.pool.fit import Cut, Spec
from kernels_support.gpu.allreduce_norm import allreduce_rms_norm
from kernels_support.gpu.dense import linear
from kernels_support.gpu.norms import add_rms_norm

__all__ = ["AllReduce"]

# torch 2.13's name for what 2.11 calls all_gather_into_tensor.
_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


class AllReduce(Joins):
    """One rank of a tensor group. Few rows are summed in the kernel that norms them, out of `shared`; many by all-reduce."""

    def __init__(self, group: distributed.ProcessGroup, spec: Spec, cut: Cut, shared: SymmetricMemory | None) -> None:
        self._group, self._shared = group, shared
        self._world, self._vocab, self._mine = distributed.get_world_size(group), spec.vocab, cut.vocab

    def product(self, which: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias, self._room(which, x.shape[0]))

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        first, last = self._mine
        here = (ids >= first) & (ids < last)
        found, room = embedding((ids - first).clamp(0, max(last - first - 1, 0)), table), self._room(0, ids.shape[0])
        return torch.mul(found, here[:, None], out=room)

    def total(self, part: Tensor) -> Tensor:
        # A sum, not a mean: each rank holds a part of every product, not a copy. A room is left as it is: a peer may be reading it.
        part = part if self._shared is None or self._shared.place(part) is None else part.clone()
        distributed.all_reduce(part, group=self._group)
        return part

    def add_norm(self, part: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        place = None if self._shared is None else self._shared.place(part)
        if self._shared is None or place is None:
            return add_rms_norm(self.total(part), residual, weight, eps)
        return allreduce_rms_norm(part, place, self._shared.peers, residual, weight, eps)

    def _room(self, which: int, rows: int) -> Tensor | None:
        """(rows, hidden) that the peers can read, for a part that `add_norm` takes next (0 for embeddings); None: anywhere."""
        return self._shared.room(which, rows) if self._shared is not None and rows <= self._shared.rows else None

    def logits(self, x: Tensor) -> Tensor:
        share = -(-self._vocab // self._world)
        x = pad(x, (0, share - x.shape[1])).contiguous()
        out = x.new_empty(self._world * x.shape[0], share)
        _gather(out, x, group=self._group)
        return out.view(self._world, -1, share).transpose(0, 1).reshape(x.shape[0], -1)[:, : self._vocab].contiguous()
