"""x · Wᵀ with both in eight bits (FP8): by Triton or torch on a GPU, in float32 elsewhere."""

from __future__ import annotations

import torch

from kernels_support.gpu import gemm_fp8, gemm_fp8_few
from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrix, Matrix, dequantize
from kernels_support.gpu.gemm_fp8_few import FewFp8Tiles
from kernels_support.gpu.lang import has_pdl, on_device
from kernels_support.gpu.quantize_fp8 import Quantized, silu_mul_fp8
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["few_tiles", "linear", "linear_reference", "swiglu"]


def linear(
    x: torch.Tensor | Quantized,
    matrix: Fp8Matrix,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    *,
    split_k: bool = False,
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n) of x's dtype, into `out` where it is given.

    `split_k`: or, where that is faster, float32 partial sums (split, rows, n).
    """
    if isinstance(x, torch.Tensor) and (few := few_tiles(x, matrix)):
        return gemm_fp8_few.launch(x, matrix, bias, x.new_empty(x.shape[0], matrix.shape[0]) if out is None else out, few)
    x = matrix.quantized(x)
    if not on_device(x.values):
        return linear_reference(x, matrix, bias)
    (rows, k), n = x.values.shape, matrix.shape[0]
    if tiles := gemm_fp8.pick_tiles(rows, n, k, blocks=matrix.blocks, split_k=split_k):
        if tiles.split > 1:
            out = torch.empty(tiles.split, rows, n, dtype=torch.float32, device=x.values.device)
        return gemm_fp8.launch(x, matrix, bias, _new(x, rows, n) if out is None else out, tiles)
    if x.values.is_meta:
        return _new(x, rows, n)
    if matrix.blocks or n % 16 or k % 16:  # of small models: no kernel has tiles for their shapes
        product = linear_reference(x, matrix, bias)
    else:
        added = None if bias is None else bias.to(torch.bfloat16)
        product = torch._scaled_mm(  # noqa: SLF001 - there is no public op
            x.values, matrix.values.t(), x.scales, matrix.scale[None], bias=added, out_dtype=torch.bfloat16, use_fast_accum=True
        ).to(x.dtype)
    return product if out is None else out.copy_(product)


def swiglu(
    x: torch.Tensor | Quantized, matrix: Fp8Matrix, bias: torch.Tensor | None = None, down: Matrix | None = None
) -> torch.Tensor | Quantized:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), `silu_mul` of `linear`, in one kernel where faster: (rows, k) and (2n, k) → (rows, n).

    `down`: what it is multiplied by; where that quantizes by the row the result may come so.
    """
    n = matrix.shape[0] // 2
    if isinstance(x, torch.Tensor) and (few := few_tiles(x, matrix, gated=True)):
        return gemm_fp8_few.launch(x, matrix, bias, x.new_empty(x.shape[0], n), few)
    x = matrix.quantized(x)
    (rows, k), device = x.values.shape, on_device(x.values)
    tiles = gemm_fp8.pick_tiles(rows, n, k, gated=True, blocks=matrix.blocks) if device else None
    if tiles is not None and not (matrix.blocks and n % BLOCK):
        return gemm_fp8.launch(x, matrix, bias, _new(x, rows, n), tiles)
    product = linear(x, matrix, bias)
    if device and isinstance(down, Fp8Matrix) and down.by_row:
        return silu_mul_fp8(product)
    return silu_mul(product)


def few_tiles(x: torch.Tensor, matrix: Fp8Matrix, *, gated: bool = False) -> FewFp8Tiles | None:
    """The tiles of `gemm_fp8_few` for this product, which takes x as it is; None where x is put in eight bits."""
    if not on_device(x) or not has_pdl() or x.dtype != torch.bfloat16 or x.shape[-2] > gemm_fp8_few.MAX_ROWS or not matrix.plain:
        return None
    return gemm_fp8_few.pick_tiles(matrix.shape[0] // (2 if gated else 1), matrix.shape[1], gated=gated)


def _new(x: Quantized, rows: int, n: int) -> torch.Tensor:
    return torch.empty(rows, n, dtype=x.dtype, device=x.values.device)


def linear_reference(x: Quantized, matrix: Fp8Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The product of the quantized numbers, in float32."""
    rows, k = x.values.shape
    wide = (x.values.float().view(rows, x.scales.shape[1], -1) * x.scales[..., None]).view(rows, k)
    product = wide @ dequantize(matrix).t()
    return (product if bias is None else product + bias.float()).to(x.dtype)
