"""x · Wᵀ with W of four or eight bits: by Triton on a GPU, for many rows from W widened once; in plain torch elsewhere."""

from __future__ import annotations

import torch

from kernels_support.gpu import gemm_packed, gemm_packed_few, packed_matrix
from kernels_support.gpu.lang import on_device
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["MAX_ROWS", "linear", "lookup", "swiglu"]

#: Rows of x up to which W is widened in registers. Of more it is widened once, and cuBLAS multiplies it.
MAX_ROWS = 256

#: The same where groups are of 16 columns (Q6_K), whose steps are short, and of a W of so many numbers: a head would take a gigabyte.
_MAX_ROWS_OF_16, _MOST_NUMBERS = 64, 1 << 27


def linear(
    x: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None, out: torch.Tensor | None = None, *, split_k: bool = False
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n) of x's dtype, into `out` where it is given.

    With `split_k` it may come in parts, as `gemm_packed` has them.
    """
    (rows, n), steps = (x.shape[0], matrix.shape[0]), matrix.words.shape[1] // matrix.piece
    if not on_device(x):
        return torch.nn.functional.linear(x, packed_matrix.dequantize(matrix, x.dtype), bias)
    if rows <= gemm_packed_few.MAX_ROWS:
        return gemm_packed_few.launch(x, matrix, bias, gemm_packed_few.pick_tiles(steps, matrix.bits, split_k=split_k), out)
    if _in_registers(rows, matrix):
        return gemm_packed.launch(x, matrix, bias, gemm_packed.pick_tiles(rows, n, steps, x.element_size(), split_k=split_k), out)
    wide = gemm_packed.widen(matrix, x.dtype)
    if x.is_meta:
        return x.new_empty(rows, n)
    if out is None:
        return torch.nn.functional.linear(x, wide, bias)
    return torch.mm(x, wide.t(), out=out) if bias is None else torch.addmm(bias, x, wide.t(), out=out)


def _in_registers(rows: int, matrix: PackedMatrix) -> bool:
    """Whether W is widened there, and not in memory first."""
    short = matrix.group < 32 and matrix.shape.numel() <= _MOST_NUMBERS
    return rows <= (_MAX_ROWS_OF_16 if short else MAX_ROWS)


def swiglu(x: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), `silu_mul` of `linear`, in one kernel up to MAX_ROWS: (rows, k), (2n, k) → (rows, n)."""
    rows, steps = x.shape[0], matrix.words.shape[1] // matrix.piece
    if on_device(x) and rows <= gemm_packed_few.MAX_ROWS:
        return gemm_packed_few.launch(x, matrix, bias, gemm_packed_few.pick_tiles(steps, matrix.bits), gated=True)
    if on_device(x) and _in_registers(rows, matrix):
        return gemm_packed.launch(x, matrix, bias, gemm_packed.pick_tiles(rows, matrix.shape[0] // 2, steps, x.element_size()), gated=True)
    return silu_mul(linear(x, matrix, bias))


def lookup(ids: torch.Tensor, table: PackedMatrix) -> torch.Tensor:
    """Rows of an embedding."""
    return gemm_packed.widen(table, table.dtype, ids) if on_device(ids) else packed_matrix.rows_of(table, ids, table.dtype)
