"""RMSNorm, alone and after a residual add: one pass over the row instead of six."""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, on_device, start, tl, triton

__all__ = ["add_rms_norm", "add_rms_norm_reference", "rms_norm_reference"]


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Compute x / sqrt(mean(x²) + eps) · weight over the last axis, in float32, back in x's dtype before the weight (as transformers rounds)."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(normed sum, sum) of x and the residual stream (none yet: x alone). Shapes (tokens, hidden); x may be (parts, tokens, hidden) float32, to be added first."""
    x = x if x.dim() == 2 else x.sum(0).to(weight.dtype)
    total = x if residual is None else residual + x
    return rms_norm_reference(total, weight, eps), total


def add_rms_norm(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`add_rms_norm_reference`, by Triton on a GPU."""
    return (launch if on_device(x) else add_rms_norm_reference)(x, residual, weight, eps)


def launch(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One program a row."""
    rows, width = x.shape[-2:]
    parts = 1 if x.dim() == 2 else x.shape[0]
    added = residual is not None or parts > 1
    normed = weight.new_empty(rows, width)
    total = weight.new_empty(rows, width) if added else x
    block = triton.next_power_of_2(width)
    start(
        _add_rms_norm, (rows,), x, x if residual is None else residual, weight, normed, total, rows * width, width, eps,
        parts=parts, has_residual=residual is not None, block=block, num_warps=4 if block <= 2048 else 8,
    )  # fmt: skip
    return normed, total


@jit
def _add_rms_norm(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor, r_ptr: tl.tensor, w_ptr: tl.tensor, out_ptr: tl.tensor, sum_ptr: tl.tensor, part_size: tl.tensor, width: tl.tensor, eps: tl.tensor,
    parts: tl.constexpr, has_residual: tl.constexpr, block: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, block)
    ok = at < width
    dtype = out_ptr.dtype.element_ty
    weight = tl.load(w_ptr + at, mask=ok, other=0.0)
    after(pdl)
    x = tl.load(x_ptr + row + at, mask=ok, other=0.0)
    if parts > 1:
        for part in tl.static_range(1, parts):
            x += tl.load(x_ptr + part * part_size + row + at, mask=ok, other=0.0)
        x = x.to(dtype)
    if has_residual:
        # Rounded to the stream's dtype before the norm, as two kernels would.
        x = (x.to(tl.float32) + tl.load(r_ptr + row + at, mask=ok, other=0.0).to(tl.float32)).to(dtype)
    if has_residual or parts > 1:
        tl.store(sum_ptr + row + at, x, mask=ok)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
    normed = (wide * scale).to(dtype)
    tl.store(out_ptr + row + at, (normed.to(tl.float32) * weight.to(tl.float32)).to(dtype), mask=ok)
