"""RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), alone or fused with the residual add before it: one pass over the row instead of six.

The kernel also reduces the partial sums of a split-K product (`gemm_small_m.py`) and the results of a row's experts
(`experts_grouped.py`), so that they need no reduction of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from kernels_support.cpu import rows
from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton
from kernels_support.gpu.quantize_fp8 import FP8, Quantized, quantize_fp8, rounded_to_fp8

__all__ = ["PLAIN", "Joining", "add_rms_norm", "add_rms_norm_fp8", "add_rms_norm_reference", "rms_norm_reference"]


@dataclass(frozen=True, slots=True)
class Joining:
    """How something joins the residual stream: normed by itself (`norm` is the weight), then scaled. At its beginning nothing is scaled."""

    norm: torch.Tensor | None = None
    scale: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether it is added as it is."""
        return self.norm is None and self.scale == 1


#: As it is.
PLAIN = Joining()


def _stream_dtype(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None) -> torch.dtype:
    """What the stream is in. Weights may be finer, and partial sums are."""
    return residual.dtype if residual is not None else x.dtype if x.dim() == 2 or weight is None else weight.dtype


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last axis, x / sqrt(mean(x²) + eps) · weight: float32 up to the weight, then the weight's dtype, and x's at the end
    (as transformers rounds: families whose weights multiply before anything is rounded have them in float32).
    """
    x_f32 = x.float()
    return (weight * (x_f32 * torch.rsqrt(x_f32.square().mean(-1, keepdim=True) + eps)).to(weight.dtype)).to(x.dtype)


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, way: Joining = PLAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm of the sum, sum) of x and the residual stream (None at its beginning: x alone). Shapes (tokens, hidden).

    x may be (splits, tokens, hidden), the partial sums of a split-K product or the results of a row's experts: they are added first.
    `weight` None: no norm, the sum itself.
    """
    x = x if x.dim() == 2 else x.sum(0).to(_stream_dtype(x, residual, weight))
    x = x if way.norm is None else rms_norm_reference(x, way.norm, eps)
    x = x if way.scale == 1 or residual is None else x * way.scale
    total = x if residual is None else residual + x
    return total if weight is None else rms_norm_reference(total, weight, eps), total


@cache
def _number(value: float) -> torch.Tensor:
    """A tensor of one number on the CPU."""
    return torch.tensor([value])


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, way: Joining = PLAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """`add_rms_norm_reference`, by Triton on a GPU, and on CPU by code of ours or in fewer operations."""
    if not on_device(x):
        if x.is_cpu and x.dim() == 2 and way.plain and weight is not None and x.dtype == weight.dtype == torch.float32:
            if rows.takes(x, x.shape[1]):
                return rows.add_rms_norm(x, residual, weight, eps)
            total = x if residual is None else residual + x
            length = torch.linalg.vector_norm(total, dim=-1, keepdim=True)
            scale = torch.addcmul(_number(eps), length, length, value=1 / total.shape[1]).rsqrt_()
            return (total * scale).mul_(weight), total
        return add_rms_norm_reference(x, residual, weight, eps, way)
    normed, total = launch(x, residual, weight, eps, way=way)
    return normed, total


def add_rms_norm_fp8(  # noqa: PLR0917 - what a kernel needs
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, group: int | None, way: Joining = PLAIN
) -> tuple[Quantized, torch.Tensor]:
    """`add_rms_norm` with the norm in eight bits, as `quantize_fp8` has it, by one kernel on a GPU."""
    if not on_device(x) or weight is None:
        normed, total = add_rms_norm(x, residual, weight, eps, way)
        return quantize_fp8(normed, group=group), total
    values, scales, total = launch(x, residual, weight, eps, group=group or x.shape[-1], way=way)
    return Quantized(values, scales, total.dtype), total


def launch(  # noqa: PLR0917 - what a kernel needs
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, group: int = 0, way: Joining = PLAIN
) -> tuple[torch.Tensor, ...]:
    """One program per row. `group`: columns that share a scale of an FP8 norm, whose scales are returned between it and the sum."""
    rows, width = x.shape[-2:]
    splits, dtype = 1 if x.dim() == 2 else x.shape[0], _stream_dtype(x, residual, weight)
    has_sum = residual is not None or splits > 1 or way.norm is not None
    if weight is None and not has_sum:
        return x, x
    total = x.new_empty(rows, width, dtype=dtype) if has_sum else x
    normed = total if weight is None else x.new_empty(rows, width, dtype=FP8 if group else dtype)
    scales = x.new_empty(rows, width // group, dtype=torch.float32) if group else normed
    block = triton.next_power_of_2(width)
    launch_kernel(
        _add_rms_norm,
        (rows,),
        x,
        x if residual is None else residual,
        total if weight is None else weight,
        total if way.norm is None else way.norm,
        normed,
        scales,
        total,
        rows * width,
        width,
        eps,
        way.scale,
        splits=splits,
        has_residual=residual is not None,
        has_weight=weight is not None,
        joins_normed=way.norm is not None,
        joins_scaled=way.scale != 1 and residual is not None,
        block=block,
        group=block if group == width else group,
        num_warps=4 if block <= 2048 else 8,
    )
    return (normed, scales, total) if group else (normed, total)


@jit
def _add_rms_norm(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    join_ptr: tl.tensor,
    out_ptr: tl.tensor,
    scales_ptr: tl.tensor,
    total_ptr: tl.tensor,
    split_stride: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    join_scale: tl.tensor,
    splits: tl.constexpr,
    has_residual: tl.constexpr,
    has_weight: tl.constexpr,
    joins_normed: tl.constexpr,
    joins_scaled: tl.constexpr,
    block: tl.constexpr,
    group: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, block)
    in_row = column < width
    dtype = total_ptr.dtype.element_ty
    if has_weight:
        weight = tl.load(weight_ptr + column, mask=in_row, other=0.0)
    pdl_barrier(pdl)
    x = tl.load(x_ptr + row + column, mask=in_row, other=0.0)
    if splits > 1:
        x = x.to(tl.float32)
        for split in tl.static_range(1, splits):
            x += tl.load(x_ptr + split * split_stride + row + column, mask=in_row, other=0.0).to(tl.float32)
        x = x.to(dtype)
    if joins_normed:
        x_f32 = x.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(x_f32 * x_f32, axis=0) / width + eps)
        join = tl.load(join_ptr + column, mask=in_row, other=0.0)
        x = ((x_f32 * scale).to(join.dtype).to(tl.float32) * join.to(tl.float32)).to(dtype)
    if joins_scaled:
        x = (x.to(tl.float32) * join_scale).to(dtype)
    if has_residual:
        # Rounded to the stream's dtype before the norm, as two kernels would round.
        x = (x.to(tl.float32) + tl.load(residual_ptr + row + column, mask=in_row, other=0.0).to(tl.float32)).to(dtype)
    if has_residual or splits > 1 or joins_normed:
        tl.store(total_ptr + row + column, x, mask=in_row)
    if has_weight:
        x_f32 = x.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(x_f32 * x_f32, axis=0) / width + eps)
        normed = ((x_f32 * scale).to(weight.dtype).to(tl.float32) * weight.to(tl.float32)).to(dtype)
    if has_weight and group:
        values, scales = rounded_to_fp8(normed.to(tl.float32), block // group, group)
        tl.store(out_ptr + row + column, values.to(out_ptr.dtype.element_ty), mask=in_row)
        parts = tl.cdiv(width, group)
        at = tl.arange(0, block // group)
        tl.store(scales_ptr + tl.program_id(0) * parts + at, scales, mask=at < parts)
    elif has_weight:
        tl.store(out_ptr + row + column, normed, mask=in_row)
