"""Experts in FP8, a checkpoint's own or rounded when they are read: this rank's columns of each, one by one to where they stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import Part
from holynb.pool.fit.experts import ExpertLayers
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrices, Fp8Matrix, Matrix

__all__ = ["ReadMatrix", "read_experts"]

#: Reads matrices with the same input as one, of the shape that is given, or some columns of one: plain, or in eight bits.
ReadMatrix = Callable[[list[Part], tuple[int, int], tuple[int, int] | None], Matrix]


def read_experts(block: str, layout: ExpertLayers, sizes: tuple[int, tuple[int, int]], router: Tensor, matrix: ReadMatrix) -> Experts:
    """All experts of a layer. `sizes`: columns of the stream, and which of an expert's are this rank's.

    Raises UserError where some lie in eight bits and some do not, and where blocks do not divide the columns.
    """
    hidden, (first, last) = sizes
    inner = last - first
    gate_up, down = _Many(layout.count), _Many(layout.count)
    for e in range(layout.count):
        name = f"{block}.experts.{e}"
        parts = [(f"{name}.{layout.gate}", (first, last)), (f"{name}.{layout.up}", (first, last))]
        gate_up.put(name, e, matrix(parts, (2 * inner, hidden), None))
        down.put(name, e, matrix([(f"{name}.{layout.down}", (0, hidden))], (hidden, inner), (first, last)))
    wide, narrow = gate_up.whole(), down.whole()
    if isinstance(wide, Tensor) != isinstance(narrow, Tensor):
        raise _mixed(block)
    if isinstance(wide, Fp8Matrices) and wide.blocks and (hidden % BLOCK or inner % BLOCK):
        raise UserError(f"{block} has blocks of {BLOCK} that do not divide its {hidden} and {inner} columns. Take --engine vllm.")
    return Experts(router, wide, narrow, layout.top, layout.renormalize)


class _Many:
    """One matrix of each expert, of which the first says how all lie."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first: Matrix | None = None
        self._values, self._scales, self._most = torch.empty(0), torch.empty(0), torch.empty(0)

    def put(self, name: str, e: int, matrix: Matrix) -> None:
        """The matrix of one expert."""
        if not isinstance(matrix, Tensor | Fp8Matrix):
            raise TypeError("experts are read plain or in FP8")
        first = self._first = matrix if self._first is None else self._first
        values, scale = (matrix.values, matrix.scale) if isinstance(matrix, Fp8Matrix) else (matrix, torch.empty(0))
        if matrix is first:
            self._values, self._scales = (one.new_empty(self._count, *one.shape) for one in (values, scale))
        if isinstance(matrix, Fp8Matrix) != isinstance(first, Fp8Matrix):
            raise _mixed(name)
        self._values[e], self._scales[e] = values, scale
        if isinstance(matrix, Fp8Matrix) and matrix.x_scale is not None:
            # Rows are put in eight bits once, for whichever experts they go to: of scales that differ the largest one cuts nothing off.
            self._most = matrix.x_scale if matrix is first else torch.maximum(self._most, matrix.x_scale)

    def whole(self) -> Tensor | Fp8Matrices:
        """All of them."""
        first = self._first
        if not isinstance(first, Fp8Matrix):
            return self._values
        return Fp8Matrices(self._values, self._scales, None if first.x_scale is None else self._most, first.x_most)


def _mixed(name: str) -> UserError:
    return UserError(f"Of {name} some lie in eight bits and some do not, which is not supported. Start this model with --engine vllm.")
