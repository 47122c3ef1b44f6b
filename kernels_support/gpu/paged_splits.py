"""The second kernel of decode attention that is split over the keys (Flash-Decoding, Dao et al. 2023): the splits' outputs become one."""

from __future__ import annotations

from kernels_support.gpu.lang import jit, pdl_barrier, tl
from kernels_support.gpu.quantize_fp8 import rounded_to_fp8

__all__ = ["combine_splits", "combine_splits_fp8", "split_range"]


@jit
def split_range(length: tl.tensor, window: tl.constexpr, splits: tl.constexpr, tile: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """(the first key that is read, how many keys a split has): whole tiles each. `window`: the last keys that are seen; 0: all."""
    low = 0 * length
    if window:
        low = tl.maximum(length - window, 0) // tile * tile
    return low, tl.maximum(tl.cdiv(tl.cdiv(length - low, splits), tile), 1) * tile


@jit
def used_splits(length: tl.tensor, window: tl.constexpr, splits: tl.constexpr, tile: tl.constexpr) -> tl.tensor:
    """How many splits have keys; the first is written also without. Of a short sequence's only these are worth reading."""
    low, split_keys = split_range(length, window, splits, tile)
    return tl.maximum(tl.cdiv(length - low, split_keys), 1)


@jit
def combine_splits(  # noqa: PLR0917 - what a kernel needs
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    length_ptr: tl.tensor,
    out_ptr: tl.tensor,
    size: tl.constexpr,
    size_padded: tl.constexpr,
    splits: tl.constexpr,
    window: tl.constexpr,
    tile: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """The splits' outputs weighted by their base-2 logsumexp (the reduction of Flash-Decoding)."""
    # The preceding kernels do not write the lengths.
    used = used_splits(tl.load(length_ptr + tl.program_id(0)), window, splits, tile)
    pdl_barrier(pdl)
    place = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    s, d = tl.arange(0, splits), tl.arange(0, size_padded)
    ok_s, ok_d = s < used, d < size
    weight = tl.load(lse_ptr + place * splits + s, mask=ok_s, other=-float("inf"))
    peak = tl.max(weight, 0)
    weight = tl.exp2(weight - tl.where(peak > float("-inf"), peak, 0.0))
    partial_out = tl.load(partial_ptr + (place * splits + s)[:, None] * size + d[None, :], mask=ok_s[:, None] & ok_d[None, :], other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(partial_out * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out_ptr + place * size + d, out.to(out_ptr.dtype.element_ty), mask=ok_d)


@jit
def combine_splits_fp8(  # noqa: PLR0917 - what a kernel needs
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    length_ptr: tl.tensor,
    like_ptr: tl.tensor,
    values_ptr: tl.tensor,
    scales_ptr: tl.tensor,
    heads: tl.constexpr,
    heads_padded: tl.constexpr,
    size: tl.constexpr,
    size_padded: tl.constexpr,
    splits: tl.constexpr,
    window: tl.constexpr,
    tile: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """`combine_splits` of all heads of a row, rounded to the dtype of `like_ptr` and then to FP8 with a scale a row."""
    used = used_splits(tl.load(length_ptr + tl.program_id(0)), window, splits, tile)
    pdl_barrier(pdl)
    row = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, heads_padded), tl.arange(0, size_padded)
    ok_h, ok = h < heads, (h < heads)[:, None] & (d < size)[None, :]
    place = (row * heads + h) * splits
    peak = tl.full((heads_padded,), float("-inf"), tl.float32)
    for split in tl.static_range(splits):
        peak = tl.maximum(peak, tl.load(lse_ptr + place + split, mask=ok_h & (split < used), other=-float("inf")))
    peak = tl.where(peak > float("-inf"), peak, 0.0)
    total = tl.zeros((heads_padded,), tl.float32)
    out = tl.zeros((heads_padded, size_padded), tl.float32)
    for split in tl.static_range(splits):
        weight = tl.exp2(tl.load(lse_ptr + place + split, mask=ok_h & (split < used), other=-float("inf")) - peak)
        total += weight
        out += tl.load(partial_ptr + (place + split)[:, None] * size + d[None, :], mask=ok & (split < used), other=0.0) * weight[:, None]
    out = (out / tl.where(total > 0, total, 1.0)[:, None]).to(like_ptr.dtype.element_ty).to(tl.float32)
    columns: tl.constexpr = heads_padded * size_padded
    values, scales = rounded_to_fp8(tl.reshape(out, (columns,)), 1, columns)
    values = tl.reshape(values, (heads_padded, size_padded)).to(values_ptr.dtype.element_ty)
    tl.store(values_ptr + (row * heads + h)[:, None] * size + d[None, :], values, mask=ok)
    tl.store(scales_ptr + row + tl.arange(0, 1), scales)
