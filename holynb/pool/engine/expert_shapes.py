"""A layer's experts as their kernels see them before there is a model: shapes and types on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from holynb.pool.engine.meta_matrices import meta_experts
from holynb.pool.fit import Spec
from holynb.pool.fit.experts import ExpertLayers
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.fp8_matrix import Fp8Matrices
from kernels_support.gpu.gated import Gating
from kernels_support.gpu.mxfp4_matrix import GROUP, Mxfp4Matrices
from kernels_support.gpu.packed_matrix import PackedMatrix

__all__ = ["layer_experts"]


def layer_experts(spec: Spec, layout: ExpertLayers, inner: int, new: Callable[..., Tensor], *, adds_bias: bool) -> Experts:
    """`inner`: this rank's columns of each. `new`: makes what is plain, of a shape. `adds_bias`: this rank adds the bias of down."""
    hidden = spec.hidden

    def matrices(rows: int, columns: int) -> Tensor | Fp8Matrices | Mxfp4Matrices | PackedMatrix:
        if not layout.mxfp4:
            return meta_experts(spec, new, layout.count, rows, columns)
        groups = -(-columns // GROUP)
        words = torch.empty(layout.count, rows, groups * GROUP // 4, dtype=torch.int16, device="meta")
        return Mxfp4Matrices(words, torch.empty(layout.count, groups, rows, dtype=torch.int32, device="meta"), columns)

    return Experts(
        new(layout.count, hidden),
        matrices(2 * inner, hidden),
        matrices(hidden, inner),
        layout.top,
        layout.renormalize,
        new(layout.count) if layout.biases else None,
        new(layout.count, 2 * inner) if layout.biases else None,
        new(layout.count, hidden) if layout.biases and adds_bias else None,
        Gating(layout.limit, layout.alpha),
    )
