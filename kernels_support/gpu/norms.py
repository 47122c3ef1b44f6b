"""RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), alone or fused with the residual add before it: one pass over the row instead of six.

The kernel also reduces the partial sums of a split-K product (`gemm_small_m.py`), so that the product needs no reduction of its own.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton

__all__ = ["add_rms_norm", "add_rms_norm_reference", "rms_norm_reference"]


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last axis, x / sqrt(mean(x²) + eps) · weight: float32 up to the weight, then x's dtype (as transformers rounds)."""
    x_f32 = x.float()
    return weight * (x_f32 * torch.rsqrt(x_f32.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm of the sum, sum) of x and the residual stream (None at its beginning: x alone). Shapes (tokens, hidden).

    x may be (splits, tokens, hidden) float32: the partial sums of a split-K product, which are added first.
    """
    x = x if x.dim() == 2 else x.sum(0).to(weight.dtype)
    total = x if residual is None else residual + x
    return rms_norm_reference(total, weight, eps), total


def add_rms_norm(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`add_rms_norm_reference`, by Triton on a GPU."""
    return (launch if on_device(x) else add_rms_norm_reference)(x, residual, weight, eps)


def launch(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One program per row."""
    rows, width = x.shape[-2:]
    splits = 1 if x.dim() == 2 else x.shape[0]
    has_sum = residual is not None or splits > 1
    normed = weight.new_empty(rows, width)
    total = weight.new_empty(rows, width) if has_sum else x
    block = triton.next_power_of_2(width)
    launch_kernel(
        _add_rms_norm,
        (rows,),
        x,
        x if residual is None else residual,
        weight,
        normed,
        total,
        rows * width,
        width,
        eps,
        splits=splits,
        has_residual=residual is not None,
        block=block,
        num_warps=4 if block <= 2048 else 8,
    )
    return normed, total


@jit
def _add_rms_norm(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    out_ptr: tl.tensor,
    total_ptr: tl.tensor,
    split_stride: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    splits: tl.constexpr,
    has_residual: tl.constexpr,
    block: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, block)
    in_row = column < width
    dtype = out_ptr.dtype.element_ty
    weight = tl.load(weight_ptr + column, mask=in_row, other=0.0)
    pdl_barrier(pdl)
    x = tl.load(x_ptr + row + column, mask=in_row, other=0.0)
    if splits > 1:
        for split in tl.static_range(1, splits):
            x += tl.load(x_ptr + split * split_stride + row + column, mask=in_row, other=0.0)
        x = x.to(dtype)
    if has_residual:
        # Rounded to the stream's dtype before the norm, as two kernels would round.
        x = (x.to(tl.float32) + tl.load(residual_ptr + row + column, mask=in_row, other=0.0).to(tl.float32)).to(dtype)
    if has_residual or splits > 1:
        tl.store(total_ptr + row + column, x, mask=in_row)
    x_f32 = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x_f32 * x_f32, axis=0) / width + eps)
    normed = (x_f32 * scale).to(dtype)
    tl.store(out_ptr + row + column, (normed.to(tl.float32) * weight.to(tl.float32)).to(dtype), mask=in_row)
