"""x · Wᵀ for one to four rows of x: a matrix read once, at the memory's rate.

A library's product pads so few rows to a tile, and small matrices then wait on its set-up: 5 µs each where the bytes take 2.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, start, tl, triton

__all__ = ["launch"]


def launch(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given. A few rows of W a program, so that there are several programs a multiprocessor."""
    rows, k = x.shape
    n = weight.shape[0]
    out = torch.empty(rows, n, dtype=x.dtype, device=x.device) if out is None else out
    some = 4 if n <= 2048 else 8
    start(
        _skinny, (triton.cdiv(n, some),), x, weight, weight if bias is None else bias, out, n, k, has_bias=bias is not None, rows=rows, some=some, piece=1024, num_warps=4
    )  # fmt: skip
    return out


@jit
def _skinny(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, out_ptr: tl.tensor, n: tl.tensor, k: tl.tensor,
    has_bias: tl.constexpr, rows: tl.constexpr, some: tl.constexpr, piece: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0) * some + tl.arange(0, some)
    ok = at < n
    which = tl.arange(0, 4)
    acc = tl.zeros((some, 4), tl.float32)
    # W was there before: its first piece is on its way while what makes x still runs.
    column = tl.arange(0, piece)
    w = tl.load(w_ptr + at.to(tl.int64)[:, None] * k + column[None, :], mask=ok[:, None] & (column < k)[None, :], other=0.0)
    after(pdl)
    for first in range(0, k, piece):
        column = first + tl.arange(0, piece)
        for row in tl.static_range(rows):
            x = tl.load(x_ptr + row * k + column, mask=column < k, other=0.0).to(tl.float32)
            acc += tl.where(which[None, :] == row, tl.sum(w.to(tl.float32) * x[None, :], 1)[:, None], 0.0)
        column += piece
        w = tl.load(w_ptr + at.to(tl.int64)[:, None] * k + column[None, :], mask=ok[:, None] & (column < k)[None, :], other=0.0)
    if has_bias:
        acc += tl.load(b_ptr + at, mask=ok, other=0.0).to(tl.float32)[:, None]
    tl.store(out_ptr + which[None, :] * n + at[:, None], acc.to(out_ptr.dtype.element_ty), mask=ok[:, None] & (which[None, :] < rows))
