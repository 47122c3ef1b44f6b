"""SiLU(gate) · up, the activation of a SwiGLU MLP (Shazeer 2020, arXiv:2002.05202), from one product that holds both side by side."""

from __future__ import annotations

import torch

from kernels_support.cpu import rows
from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton

__all__ = ["silu_mul", "silu_mul_reference"]


def silu_mul_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """(tokens, 2 × inner) → (tokens, inner)."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """`silu_mul_reference`, by Triton on a GPU, and few rows on CPU by code of ours."""
    if on_device(gate_up):
        return launch(gate_up)
    return (rows.silu_mul if rows.takes(gate_up, gate_up.shape[1] // 2) else silu_mul_reference)(gate_up)


def launch(gate_up: torch.Tensor) -> torch.Tensor:
    """One program per row and 1,024 columns."""
    tokens, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(tokens, inner, dtype=gate_up.dtype, device=gate_up.device)
    launch_kernel(_silu_mul, (tokens, triton.cdiv(inner, 1024)), gate_up, out, inner, block=1024, num_warps=4)
    return out


@jit
def _silu_mul(gate_up_ptr: tl.tensor, out_ptr: tl.tensor, inner: tl.tensor, block: tl.constexpr, pdl: tl.constexpr) -> None:
    pdl_barrier(pdl)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    in_row = column < inner
    gate = tl.load(gate_up_ptr + row * 2 * inner + column, mask=in_row, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * inner + inner + column, mask=in_row, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty).to(tl.float32)
    tl.store(out_ptr + row * inner + column, (silu * up).to(out_ptr.dtype.element_ty), mask=in_row)
