"""x · Wᵀ with W in four bits: by Triton on a GPU, for many rows from W widened once; in plain torch elsewhere."""

from __future__ import annotations

import torch

from kernels_support.gpu import gemm_int4, gemm_int4_few
from kernels_support.gpu.gemm_int4_few import FewInt4Tiles
from kernels_support.gpu.int4_matrix import Int4Matrix, dequantize
from kernels_support.gpu.lang import on_device
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["few_tiles", "linear", "swiglu"]


def linear(
    x: torch.Tensor, matrix: Int4Matrix, bias: torch.Tensor | None = None, out: torch.Tensor | None = None, *, split_k: bool = False
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n) of x's dtype, into `out` where it is given.

    With `split_k` it may come in parts, as `gemm_int4` has them.
    """
    rows, n = x.shape[0], matrix.shape[0]
    if not on_device(x):
        return torch.nn.functional.linear(x, dequantize(matrix, x.dtype), bias)
    x = _ordered(x, matrix)
    if few := few_tiles(x, matrix, split_k=split_k):
        return gemm_int4_few.launch(x, matrix, bias, few, out)
    if tiles := gemm_int4.pick_tiles(rows, n, *matrix.groups, split_k=split_k):
        return gemm_int4.launch(x, matrix, bias, tiles, out)
    wide = gemm_int4.widen(matrix, x.dtype)
    if x.is_meta:
        return x.new_empty(rows, n)
    if out is None:
        return torch.nn.functional.linear(x, wide, bias)
    return torch.mm(x, wide.t(), out=out) if bias is None else torch.addmm(bias, x, wide.t(), out=out)


def swiglu(x: torch.Tensor, matrix: Int4Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), `silu_mul` of `linear`, in one kernel for few rows: (rows, k) and (2n, k) → (rows, n)."""
    rows, n = x.shape[0], matrix.shape[0] // 2
    if on_device(x) and (few := few_tiles(x, matrix, gated=True)):
        return gemm_int4_few.launch(_ordered(x, matrix), matrix, bias, few, gated=True)
    if on_device(x) and (tiles := gemm_int4.pick_tiles(rows, n, *matrix.groups)):
        return gemm_int4.launch(_ordered(x, matrix), matrix, bias, tiles, gated=True)
    return silu_mul(linear(x, matrix, bias))


def few_tiles(x: torch.Tensor, matrix: Int4Matrix, *, split_k: bool = False, gated: bool = False) -> FewInt4Tiles | None:
    """The tiles of `gemm_int4_few` for this product; None where something else takes it."""
    if x.shape[0] > gemm_int4_few.MAX_ROWS:
        return None
    return gemm_int4_few.pick_tiles(matrix.shape[0] // (2 if gated else 1), *matrix.groups, split_k=split_k)


def _ordered(x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
    """The columns of x as W's lie. On torch's meta device nothing is chosen: its first such op takes seconds."""
    return x if matrix.order is None or x.is_meta else x.index_select(1, matrix.order)
