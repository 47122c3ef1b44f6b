"""The second kernel of decode attention that is split over the keys (Flash-Decoding, Dao et al. 2023): the splits' outputs become one."""

from __future__ import annotations

from kernels_support.gpu.lang import jit, pdl_barrier, tl

__all__ = ["combine_splits"]


@jit
def combine_splits(  # noqa: PLR0917 - what a kernel needs
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    out_ptr: tl.tensor,
    size: tl.constexpr,
    size_padded: tl.constexpr,
    splits: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """The splits' outputs weighted by their base-2 logsumexp (the reduction of Flash-Decoding)."""
    pdl_barrier(pdl)
    place = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    s, d = tl.arange(0, splits), tl.arange(0, size_padded)
    ok_d = d < size
    weight = tl.load(lse_ptr + place * splits + s)
    peak = tl.max(weight, 0)
    weight = tl.exp2(weight - tl.where(peak > float("-inf"), peak, 0.0))
    partial_out = tl.load(partial_ptr + (place * splits + s)[:, None] * size + d[None, :], mask=ok_d[None, :], other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(partial_out * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out_ptr + place * size + d, out.to(out_ptr.dtype.element_ty), mask=ok_d)
