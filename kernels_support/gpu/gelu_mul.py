"""GELU(gate) · up, the activation of a GeGLU MLP (Shazeer 2020, arXiv:2002.05202), from one product that holds both side by side.

GELU in its approximation by tanh (Hendrycks & Gimpel 2016, arXiv:1606.08415), as Gemma has it.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton

__all__ = ["gelu_mul", "gelu_mul_reference"]


def gelu_mul_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """(tokens, 2 × inner) → (tokens, inner)."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def gelu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """`gelu_mul_reference`, by Triton on a GPU."""
    return (launch if on_device(gate_up) else gelu_mul_reference)(gate_up)


def launch(gate_up: torch.Tensor) -> torch.Tensor:
    """One program per row and 1,024 columns."""
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, inner, dtype=gate_up.dtype, device=gate_up.device)
    launch_kernel(_gelu_mul, (rows, triton.cdiv(inner, 1024)), gate_up, out, inner, block=1024, num_warps=4)
    return out


@jit
def _gelu_mul(gate_up_ptr: tl.tensor, out_ptr: tl.tensor, inner: tl.tensor, block: tl.constexpr, pdl: tl.constexpr) -> None:
    pdl_barrier(pdl)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    in_row = column < inner
    gate = tl.load(gate_up_ptr + row * 2 * inner + column, mask=in_row, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * inner + inner + column, mask=in_row, other=0.0).to(tl.float32)
    # 0.5 · (1 + tanh(z)) is the logistic function of 2 z.
    gelu = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    gelu = gelu.to(out_ptr.dtype.element_ty).to(tl.float32)
    tl.store(out_ptr + row * inner + column, (gelu * up).to(out_ptr.dtype.element_ty), mask=in_row)
