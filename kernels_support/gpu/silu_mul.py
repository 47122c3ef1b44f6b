"""SiLU(gate) · up, from one matrix product that holds both side by side."""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, on_device, start, tl, triton

__all__ = ["silu_mul", "silu_mul_reference"]


def silu_mul_reference(both: torch.Tensor) -> torch.Tensor:
    """(tokens, 2 × inner) → (tokens, inner)."""
    gate, up = both.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def silu_mul(both: torch.Tensor) -> torch.Tensor:
    """`silu_mul_reference`, by Triton on a GPU."""
    return (launch if on_device(both) else silu_mul_reference)(both)


def launch(both: torch.Tensor) -> torch.Tensor:
    """One program a row and 1,024 columns."""
    rows, inner = both.shape[0], both.shape[1] // 2
    out = torch.empty(rows, inner, dtype=both.dtype, device=both.device)
    start(_silu_mul, (rows, triton.cdiv(inner, 1024)), both, out, inner, block=1024, num_warps=4)
    return out


@jit
def _silu_mul(both_ptr: tl.tensor, out_ptr: tl.tensor, inner: tl.tensor, block: tl.constexpr, pdl: tl.constexpr) -> None:
    after(pdl)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    ok = at < inner
    gate = tl.load(both_ptr + row * 2 * inner + at, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(both_ptr + row * 2 * inner + inner + at, mask=ok, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty).to(tl.float32)
    tl.store(out_ptr + row * inner + at, (silu * up).to(out_ptr.dtype.element_ty), mask=ok)
