"""Experts of four and eight bits in groups of columns, as a GGUF file has them: this rank's columns of each, packed for where they lie."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import Part, TensorSource
from holynb.pool.engine.load_groups import packed, read_group
from holynb.pool.fit.experts import ExpertLayers
from kernels_support.cpu.grouped import Grouped, GroupedMatrices, pack_groups
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.packed_matrix import PackedMatrix, stacked

__all__ = ["read_experts_groups"]


def read_experts_groups(
    block: str, layout: ExpertLayers, sizes: tuple[int, tuple[int, int]], router: Tensor, source: TensorSource, *, on_gpu: bool
) -> Experts:
    """All experts of a layer, on the router's device. `sizes`: columns of the stream, and which of an expert's are this rank's.

    Raises UserError where one does not lie in groups, has other sizes, or would be divided within a group.
    """
    hidden, (first, last) = sizes
    names = [f"{block}.experts.{e}" for e in range(layout.count)]
    wide = [[(f"{name}.{layout.gate}", (first, last)), (f"{name}.{layout.up}", (first, last))] for name in names]
    narrow: list[list[Part]] = [[(f"{name}.{layout.down}", (0, hidden))] for name in names]
    gate_up = _read(wide, (2 * (last - first), hidden), None, (source, router), on_gpu=on_gpu)
    down = _read(narrow, (hidden, last - first), (first, last), (source, router), on_gpu=on_gpu)
    return Experts(router, gate_up, down, layout.top, layout.renormalize)


def _read(
    experts: list[list[Part]],
    shape: tuple[int, int],
    columns: tuple[int, int] | None,
    given: tuple[TensorSource, Tensor],
    *,
    on_gpu: bool,
) -> GroupedMatrices | PackedMatrix:
    """One matrix of each expert: of this shape, and of these columns in the file (None: all)."""
    source, like = given
    if not on_gpu:
        return GroupedMatrices(tuple(pack_groups(_groups(parts, shape, columns, source)) for parts in experts))
    each = [packed(_groups(parts, shape, columns, source), str(like.device), like.dtype) for parts in experts]
    if len({(one.bits, one.group, one.centre, one.factors.dtype) for one in each}) == 1:
        return replace(each[0], words=torch.stack([one.words for one in each]), factors=torch.stack([one.factors for one in each]))
    # Of several kinds: in one form that holds all of them exactly, for which their numbers are widened to eight bits meanwhile.
    every = [group for parts in experts for group in _groups(parts, shape, columns, source)]
    return stacked(packed(every, str(like.device), like.dtype), len(experts))


def _groups(parts: list[Part], shape: tuple[int, int], columns: tuple[int, int] | None, source: TensorSource) -> list[Grouped]:
    """One expert's matrices with the same input."""
    groups = [read_group(source, part, columns) for part in parts]
    if sum(len(one.values) for one in groups) != shape[0] or any(one.values.shape[1] != shape[1] for one in groups):
        raise UserError(f"{parts[0][0]} has other sizes than config.json promises. Fetch the model again.")
    return groups
