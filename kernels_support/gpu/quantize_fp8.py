"""Activations in eight bits (FP8 E4M3, Micikevicius et al. 2022, arXiv:2209.05433) with float32 scales, one a row or one a group of a row.

x ≈ values · scale. A scale is the row's (or group's) largest magnitude over 448, the largest number that E4M3 has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_barrier, tl, triton

__all__ = [
    "FP8",
    "FP8_MAX",
    "PLAIN_ROWS",
    "SMALLEST_SCALE",
    "Quantized",
    "quantize_fp8",
    "quantize_fp8_reference",
    "rounded_to_fp8",
    "silu_mul_fp8",
]

FP8, FP8_MAX = torch.float8_e4m3fn, 448.0

#: Rows up to which products take x as it is, not in eight bits (`gemm_fp8_few.py`).
PLAIN_ROWS = 8

#: Of a row of zeros; as vLLM has it: 1 / scale stays a number.
SMALLEST_SCALE = 1.0 / (FP8_MAX * 512.0)


class Quantized(NamedTuple):
    """Rows in eight bits: FP8 (rows, k), float32 scales (rows, 1) or (rows, k / group), and the dtype that products of them have."""

    values: torch.Tensor
    scales: torch.Tensor
    dtype: torch.dtype


def quantize_fp8_reference(
    x: torch.Tensor, *, group: int | None = None, scale: torch.Tensor | None = None, most: float | None = None
) -> Quantized:
    """(rows, k) → a scale a row, or with `group` one for so many columns.

    `scale`: one for all rows, known before (static quantization). `most`: no scale is made for a larger magnitude, which is cut off.
    """
    rows, k = x.shape
    parts = x.float().reshape(rows, -1, group or k)
    if scale is None:
        largest = parts.abs().amax(-1)
        scales = ((largest if most is None else largest.clamp(max=most)) / FP8_MAX).clamp(min=SMALLEST_SCALE)
    else:
        scales = scale.float().reshape(1, 1).expand(rows, parts.shape[1])
    values = (parts / scales[..., None]).clamp(-FP8_MAX, FP8_MAX).reshape(rows, k).to(FP8)
    return Quantized(values, scales.contiguous(), x.dtype)


def quantize_fp8(x: torch.Tensor, *, group: int | None = None, scale: torch.Tensor | None = None, most: float | None = None) -> Quantized:
    """`quantize_fp8_reference`, by Triton on a GPU."""
    return (launch if on_device(x) else quantize_fp8_reference)(x, group=group, scale=scale, most=most)


def silu_mul_fp8(gate_up: torch.Tensor) -> Quantized:
    """SiLU(gate) · up of (rows, 2 · inner) on a GPU, as `silu_mul` rounds it, in eight bits with a scale a row."""
    return launch(gate_up, gated=True)


def launch(
    x: torch.Tensor, *, group: int | None = None, scale: torch.Tensor | None = None, most: float | None = None, gated: bool = False
) -> Quantized:
    """One program a row, or one for eight groups of a row."""
    rows, k = x.shape[0], x.shape[1] // (2 if gated else 1)
    values = torch.empty(rows, k, dtype=FP8, device=x.device)
    scales = torch.empty(rows, k // group if group else 1, dtype=torch.float32, device=x.device)
    width = 8 * group if group else triton.next_power_of_2(k)
    launch_kernel(
        _quantize_fp8,
        (rows, triton.cdiv(k, width)),
        x,
        scales if scale is None else scale,
        values,
        scales,
        k,
        FP8_MAX if most is None else most,
        width=width,
        group=group or width,
        static=scale is not None,
        bounded=most is not None,
        gated=gated,
        num_warps=4 if width <= 4096 else 8 if width <= 8192 else 16,
    )
    return Quantized(values, scales, x.dtype)


@jit
def rounded_to_fp8(x: tl.tensor, groups: tl.constexpr, group: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """(groups · group,) float32 → what FP8 has of it over its scale, before the cast, and a scale a group."""
    parts = tl.reshape(x, (groups, group))
    scales = tl.maximum(tl.max(tl.abs(parts), 1) / 448.0, 1.0 / (448.0 * 512.0))
    # One division a scale: one a number took longer than reading it.
    values = parts * tl.div_rn(tl.full((groups,), 1.0, tl.float32), scales)[:, None]
    return tl.reshape(tl.minimum(tl.maximum(values, -448.0), 448.0), (groups * group,)), scales


@jit
def _quantize_fp8(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    static_ptr: tl.tensor,
    values_ptr: tl.tensor,
    scales_ptr: tl.tensor,
    k: tl.tensor,
    most: tl.tensor,
    width: tl.constexpr,
    group: tl.constexpr,
    static: tl.constexpr,
    bounded: tl.constexpr,
    gated: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    groups: tl.constexpr = width // group
    column = part * width + tl.arange(0, width)
    in_row = column < k
    pdl_barrier(pdl)
    if gated:
        dtype = x_ptr.dtype.element_ty
        gate = tl.load(x_ptr + row * 2 * k + column, mask=in_row, other=0.0).to(tl.float32)
        up = tl.load(x_ptr + row * 2 * k + k + column, mask=in_row, other=0.0).to(tl.float32)
        x = ((gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up).to(dtype).to(tl.float32)
    else:
        x = tl.load(x_ptr + row * k + column, mask=in_row, other=0.0).to(tl.float32)
    if static:
        scales = tl.zeros((groups,), tl.float32) + tl.load(static_ptr)
        values = tl.div_rn(x, tl.load(static_ptr) + tl.zeros_like(x))
        values = tl.minimum(tl.maximum(values, -448.0), 448.0)
    elif bounded:
        largest = tl.minimum(tl.max(tl.abs(x), 0), most)
        scale = tl.maximum(largest / 448.0, 1.0 / (448.0 * 512.0))
        scales = tl.zeros((groups,), tl.float32) + scale
        values = tl.minimum(tl.maximum(tl.div_rn(x, scale + tl.zeros_like(x)), -448.0), 448.0)
    else:
        values, scales = rounded_to_fp8(x, groups, group)
    tl.store(values_ptr + row * k + column, values.to(values_ptr.dtype.element_ty), mask=in_row)
    at = part * groups + tl.arange(0, groups)
    tl.store(scales_ptr + row * tl.cdiv(k, group) + at, scales, mask=at < tl.cdiv(k, group))
