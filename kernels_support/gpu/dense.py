"""x · Wᵀ by what is fastest where it runs: Triton for few rows and a small W on a GPU, oneDNN over a packed W on CPU, else torch's own."""

from __future__ import annotations

import torch

from kernels_support.gpu import gemm_small_m, gemv
from kernels_support.gpu.lang import on_device
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["few", "gated", "linear", "packed", "parts", "some"]

#: Rows of x, and numbers in W, up to which `gemv` beats cuBLAS (measured on one H200).
ROWS, NUMBERS = 4, 1 << 23

#: Rows from which `gemm_small_m` beats `gemv`, and numbers up to which it beats cuBLAS.
SEVERAL, NARROW = 3, 6_400_000

#: Rows up to which `gemm_small_m` is the faster one where its sums are not taken in parts; twice as many where they are.
PLAIN = 128

#: Rows that the packed layout is made for; it serves any number.
TYPICAL = 16


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n): `torch.nn.functional.linear`, into `out` where it is given (on a GPU)."""
    if weight.is_mkldnn:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001 - its only door
        return product
    if how := some(x, weight):
        return gemm_small_m.launch(x, weight, bias, how, out)
    if few(x, weight):
        return gemv.launch(x, weight, bias, out)
    if out is None:
        return torch.nn.functional.linear(x, weight, bias)
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


def parts(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`linear`, or (parts, rows, n) float32 to be added by who reads it (`norms.add_rms_norm`), where that is faster."""
    how = some(x, weight, summed=True)
    return linear(x, weight, bias) if how is None else gemm_small_m.launch(x, weight, bias, how)


def gated(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`silu_mul` of `linear`: (rows, k) and (2n, k) → (rows, n)."""
    how = some(x, weight, gates=True)
    return silu_mul(linear(x, weight, bias)) if how is None else gemm_small_m.launch(x, weight, bias, how, gated=True)


def some(x: torch.Tensor, weight: torch.Tensor, *, gates: bool = False, summed: bool = False) -> gemm_small_m.Tiles | None:
    """How `gemm_small_m` divides the product; None where it is not the faster one."""
    if not on_device(x) or not SEVERAL <= x.shape[0] <= (2 * PLAIN if summed else PLAIN) or weight.numel() > NARROW or x.dtype == torch.float32:
        return None
    return gemm_small_m.tiles(x.shape[0], weight.shape[0] // (2 if gates else 1), x.shape[1], gated=gates, summed=summed)


def few(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `gemv` is the faster one where it is not `gemm_small_m`."""
    return on_device(x) and x.shape[0] <= ROWS and weight.numel() <= NUMBERS


def packed(weight: torch.Tensor) -> torch.Tensor:
    """A float32 matrix as oneDNN wants it: 1.4 to 2.4 times as fast as the library torch asks by itself (AVX-512, 1 to 32 rows).

    The ops are torch's inductor's, not public: the matrix comes back as it was where they are missing or do not say the same.
    """
    if weight.is_cuda or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return weight
    try:
        made: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL)  # noqa: SLF001 - its only door
        x = weight[:3].contiguous()
        same = torch.allclose(linear(x, made), torch.nn.functional.linear(x, weight), rtol=1e-4, atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):  # another torch, another build, a processor oneDNN does not know
        return weight
    return made if same else weight
