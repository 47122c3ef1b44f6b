"""x · Wᵀ by what is fastest.

On a GPU Triton for few rows (`gemv.py`, `gemm_small_m.py` of a small W, `gemm_few.py`, `gemm_wide.py` of a large one), on CPU oneDNN with a
packed W, else torch.
"""

from __future__ import annotations

import torch

from kernels_support.cpu import grouped
from kernels_support.cpu.grouped import GroupedMatrix
from kernels_support.gpu import fp8, gemm_few, gemm_small_m, gemm_wide, gemv, int4, packed
from kernels_support.gpu.fp8_matrix import Fp8Matrix, Matrix
from kernels_support.gpu.gelu_mul import gelu_mul
from kernels_support.gpu.int4_matrix import Int4Matrix
from kernels_support.gpu.lang import has_pdl, on_device
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.quantize_fp8 import Quantized
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["few_tiles", "linear", "linear_split_k", "lookup", "pack_onednn", "plain", "small_m_tiles", "swiglu", "takes_gemv", "wide_tiles"]

#: Rows of x, and elements of W, up to which `gemv` beats cuBLAS (measured on one H200); of a few more rows `gemm_few` comes first.
GEMV_MAX_ROWS, GEMV_MAX_WEIGHTS = 4, 1 << 23

#: Rows from which `gemm_few` and `gemm_small_m` beat `gemv`, and elements of W up to which `gemm_small_m` beats cuBLAS.
GEMM_SMALL_M_MIN_ROWS, GEMM_SMALL_M_MAX_WEIGHTS = 3, 6_400_000

#: Rows up to which `gemm_small_m` beats cuBLAS, without and with split-K.
GEMM_SMALL_M_MAX_ROWS, GEMM_SPLIT_K_MAX_ROWS = 128, 256

#: Rows that oneDNN's packed layout is optimized for; it serves any number.
ONEDNN_PACK_ROWS = 16


def linear(x: torch.Tensor | Quantized, weight: Matrix, bias: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n): `torch.nn.functional.linear`, into `out` where it is given (on a GPU)."""
    if isinstance(weight, Fp8Matrix):
        return fp8.linear(x, weight, bias, out)
    x = plain(x)
    if isinstance(weight, Int4Matrix):
        return int4.linear(x, weight, bias, out)
    if isinstance(weight, PackedMatrix):
        return packed.linear(x, weight, bias, out)
    if isinstance(weight, GroupedMatrix):
        product = grouped.linear(x, weight, bias)
        return product if out is None else out.copy_(product)
    if weight.is_mkldnn:
        blocked: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001 - there is no public op
        return blocked
    if few := few_tiles(x, weight):
        return gemm_few.launch(x, weight, bias, few, out)
    if tiles := small_m_tiles(x, weight):
        return gemm_small_m.launch(x, weight, bias, tiles, out)
    if takes_gemv(x, weight):
        return gemv.launch(x, weight, bias, out)
    if wide := wide_tiles(x, weight):
        return gemm_wide.launch(x, weight, bias, wide, out)
    if x.is_meta:
        return x.new_empty(x.shape[0], weight.shape[0])
    if out is None:
        return torch.nn.functional.linear(x, weight, bias)
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


def linear_split_k(x: torch.Tensor | Quantized, weight: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`linear`, or, where that is faster, split-K's (split, rows, n) float32 partial sums, which the reader adds (`norms.add_rms_norm`)."""
    if isinstance(weight, Fp8Matrix):
        return fp8.linear(x, weight, bias, split_k=True)
    x = plain(x)
    if isinstance(weight, Int4Matrix):
        return int4.linear(x, weight, bias, split_k=True)
    if isinstance(weight, PackedMatrix):
        return packed.linear(x, weight, bias, split_k=True)
    if isinstance(weight, GroupedMatrix):
        return grouped.linear(x, weight, bias)
    if few := few_tiles(x, weight):
        return gemm_few.launch(x, weight, bias, few)
    if tiles := small_m_tiles(x, weight, split_k=True):
        return gemm_small_m.launch(x, weight, bias, tiles)
    wide = wide_tiles(x, weight, split_k=True)
    return linear(x, weight, bias) if wide is None else gemm_wide.launch(x, weight, bias, wide)


def swiglu(
    x: torch.Tensor | Quantized, weight: Matrix, bias: torch.Tensor | None = None, down: Matrix | None = None, *, act: str = "silu"
) -> torch.Tensor | Quantized:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), `silu_mul` of `linear`, in one kernel where faster: (rows, k) and (2n, k) → (rows, n).

    `down`: what it is multiplied by next; it may come in that one's eight bits. `act`: silu, or gelu_tanh (`gelu_mul`).
    """
    if act != "silu":
        return gelu_mul(linear(x, weight, bias))
    if isinstance(weight, Fp8Matrix):
        return fp8.swiglu(x, weight, bias, down)
    x = plain(x)
    if isinstance(weight, Int4Matrix):
        return int4.swiglu(x, weight, bias)
    if isinstance(weight, PackedMatrix):
        return packed.swiglu(x, weight, bias)
    if isinstance(weight, GroupedMatrix):
        return silu_mul(grouped.linear(x, weight, bias))
    if few := few_tiles(x, weight, gated=True):
        return gemm_few.launch(x, weight, bias, few, gated=True)
    if wide := wide_tiles(x, weight, gated=True):
        return gemm_wide.launch(x, weight, bias, wide, gated=True)
    tiles = small_m_tiles(x, weight, gated=True)
    return silu_mul(linear(x, weight, bias)) if tiles is None else gemm_small_m.launch(x, weight, bias, tiles, gated=True)


def lookup(ids: torch.Tensor, table: torch.Tensor | PackedMatrix | GroupedMatrix) -> torch.Tensor:
    """Rows of an embedding."""
    if isinstance(table, PackedMatrix):
        return packed.lookup(ids, table)
    return grouped.gather(table, ids) if isinstance(table, GroupedMatrix) else torch.nn.functional.embedding(ids, table)


def plain(x: torch.Tensor | Quantized) -> torch.Tensor:
    """What is not in eight bits; they are made for the matrix alone that has them, too. Raises TypeError."""
    if isinstance(x, Quantized):
        raise TypeError("eight bits for a matrix that has more")
    return x


def small_m_tiles(x: torch.Tensor, weight: torch.Tensor, *, gated: bool = False, split_k: bool = False) -> gemm_small_m.Tiles | None:
    """The tiles of `gemm_small_m` for this product; None where something else is faster."""
    max_rows = GEMM_SPLIT_K_MAX_ROWS if split_k else GEMM_SMALL_M_MAX_ROWS
    if not on_device(x) or not GEMM_SMALL_M_MIN_ROWS <= x.shape[0] <= max_rows:
        return None
    if weight.numel() > GEMM_SMALL_M_MAX_WEIGHTS or x.dtype == torch.float32:
        return None
    return gemm_small_m.pick_tiles(x.shape[0], weight.shape[0] // (2 if gated else 1), x.shape[1], gated=gated, split_k=split_k)


def few_tiles(x: torch.Tensor, weight: torch.Tensor, *, gated: bool = False) -> gemm_few.FewRowsTiles | None:
    """The tiles of `gemm_few` for this product; None where something else is faster."""
    if not on_device(x) or not has_pdl() or x.dtype.itemsize != 2 or x.shape[0] > gemm_few.MAX_ROWS:
        return None
    small = weight.numel() <= GEMV_MAX_WEIGHTS
    if small and not gated and x.shape[0] < GEMM_SMALL_M_MIN_ROWS:
        return None
    return gemm_few.pick_tiles(x.shape[0], weight.shape[0] // (2 if gated else 1), x.shape[1], gated=gated, small=small)


def wide_tiles(x: torch.Tensor, weight: torch.Tensor, *, gated: bool = False, split_k: bool = False) -> gemm_wide.WideTiles | None:
    """The tiles of `gemm_wide` for this product; None where something else is faster."""
    if not on_device(x) or not has_pdl() or x.dtype.itemsize != 2 or weight.numel() <= GEMM_SMALL_M_MAX_WEIGHTS:
        return None
    return gemm_wide.pick_tiles(x.shape[0], weight.shape[0] // (2 if gated else 1), x.shape[1], gated=gated, split_k=split_k)


def takes_gemv(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `gemv` is fastest, where `few_tiles` and `small_m_tiles` gave None."""
    return on_device(x) and x.shape[0] <= GEMV_MAX_ROWS and weight.numel() <= GEMV_MAX_WEIGHTS


def pack_onednn(weight: Matrix) -> Matrix:
    """A float32 matrix in oneDNN's blocked layout: 1.4 to 2.4 times as fast as what torch calls by default (AVX-512, 1 to 32 rows).

    The ops are torch inductor's and not public: where they are missing or give other results, the matrix is returned unchanged.
    """
    if not isinstance(weight, torch.Tensor) or weight.is_cuda or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return weight
    try:
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ONEDNN_PACK_ROWS)  # noqa: SLF001 - there is no public op
        x = weight[:3].contiguous()
        equal = torch.allclose(linear(x, packed), torch.nn.functional.linear(x, weight), rtol=1e-4, atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):  # another torch, another build, a processor oneDNN does not support
        return weight
    return packed if equal else weight
