"""x · Wᵀ for one to four rows of x: matrix-vector products (GEMV) that read W once, at the rate of the memory.

A library's GEMM pads so few rows to a tile, and small matrices then wait for its set-up: 5 µs each where reading the bytes takes 2.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["launch"]


def launch(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given.

    2 or 8 rows of W per program, so that there are several programs per multiprocessor.
    """
    rows, k = x.shape
    n = weight.shape[0]
    out = torch.empty(rows, n, dtype=x.dtype, device=x.device) if out is None else out
    tile_n = 2 if n <= 2048 else 8
    launch_kernel(
        _gemv,
        (triton.cdiv(n, tile_n),),
        x,
        weight,
        weight if bias is None else bias,
        out,
        n,
        k,
        has_bias=bias is not None,
        rows=rows,
        tile_n=tile_n,
        tile_k=1024,
        num_warps=4,
    )
    return out


@jit
def _gemv(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    has_bias: tl.constexpr,
    rows: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    at_n = tl.program_id(0) * tile_n + tl.arange(0, tile_n)
    ok_n = at_n < n
    at_m = tl.arange(0, 4)
    acc = tl.zeros((tile_n, 4), tl.float32)
    # The weights do not depend on the preceding kernel: their first tile is loaded while it still computes x.
    at_k = tl.arange(0, tile_k)
    w = tl.load(w_ptr + at_n.to(tl.int64)[:, None] * k + at_k[None, :], mask=ok_n[:, None] & (at_k < k)[None, :], other=0.0)
    pdl_barrier(pdl)
    for first in range(0, k, tile_k):
        at_k = first + tl.arange(0, tile_k)
        for row in tl.static_range(rows):
            x = tl.load(x_ptr + row * k + at_k, mask=at_k < k, other=0.0).to(tl.float32)
            acc += tl.where(at_m[None, :] == row, tl.sum(w.to(tl.float32) * x[None, :], 1)[:, None], 0.0)
        at_k += tile_k
        w = tl.load(w_ptr + at_n.to(tl.int64)[:, None] * k + at_k[None, :], mask=ok_n[:, None] & (at_k < k)[None, :], other=0.0)
    if has_bias:
        acc += tl.load(b_ptr + at_n, mask=ok_n, other=0.0).to(tl.float32)[:, None]
    tl.store(out_ptr + at_m[None, :] * n + at_n[:, None], acc.to(out_ptr.dtype.element_ty), mask=ok_n[:, None] & (at_m[None, :] < rows))
