"""Triton kernels of attention over a paged KV cache (PagedAttention, Kwon et al. 2023, arXiv:2309.06180).

Keys and values are read through the block table. Decode and prefill are FlashAttention (Dao et al. 2022, arXiv:2205.14135): tiles of keys
with an online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867), so that scores never leave the chip; with FlashAttention-2's order
of work (Dao 2023, arXiv:2307.08691), in which a program keeps its queries, loops over keys and divides by the softmax's sum at the end.

`eights`: a cache in FP8, read as pairs of neighbours (`fp8_pairs.py`), so that a tile has half as many columns: the even numbers of a
head's keys meet the even ones of its queries, the odd ones the odd, and the two halves of its output are put together at the end.
Products are in float16 there, which holds every FP8 number exactly; `kv_scale_ptr` has a scale for each head's keys, then its values.
"""

from __future__ import annotations

from kernels_support.gpu.fp8_pairs import joined, widened
from kernels_support.gpu.lang import jit, pdl_barrier, pdl_launch_dependents, pdl_wait, tl
from kernels_support.gpu.paged_splits import split_range

__all__ = ["decode_attention", "prefill_attention"]


@jit
def decode_attention(  # noqa: PLR0917 - what a kernel needs
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    length_ptr: tl.tensor,
    order_ptr: tl.tensor,
    out_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    kv_scale_ptr: tl.tensor,
    sink_ptr: tl.tensor,
    table_stride: tl.tensor,
    head_stride: tl.tensor,
    scale: tl.tensor,
    kv: tl.constexpr,
    group: tl.constexpr,
    group_padded: tl.constexpr,
    size: tl.constexpr,
    size_padded: tl.constexpr,
    page: tl.constexpr,
    tile: tl.constexpr,
    splits: tl.constexpr,
    ordered: tl.constexpr,
    eights: tl.constexpr,
    native: tl.constexpr,
    window: tl.constexpr,
    cap: tl.constexpr,
    sinks: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """One query per row, split over the keys (Flash-Decoding, Dao et al. 2023); the query heads of a KV head share its keys.

    `window`: how many keys it sees, the last ones; what lies before them is not read. `cap`: see `_capped`. 0: neither. `sinks`: each head
    has one more score, which the first split counts.
    """
    # The KV head is the fastest grid dimension, so that rows start in their order.
    head, row, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    # The preceding kernel writes neither the order nor the lengths.
    if ordered:
        row = tl.load(order_ptr + row)
    row = row.to(tl.int64)
    length = tl.load(length_ptr + row)
    pdl_wait(pdl)
    if splits > 4:  # where not `fills_device`
        pdl_launch_dependents(pdl)
    low, split_keys = split_range(length, window, splits, tile)
    begin = low + split * split_keys
    if splits > 1 and split > 0 and begin >= length:
        return  # `used_splits` says so to what puts them together
    end = tl.minimum(begin + split_keys, length)
    step: tl.constexpr = 2 if eights else 1
    columns: tl.constexpr = size // step
    g, d = tl.arange(0, group_padded), tl.arange(0, size_padded // step)
    ok_g, ok_d = g < group, d < columns
    place = (row * kv + head) * group + g
    q_ptr += place[:, None] * size + step * d[None, :]
    q = tl.load(q_ptr, mask=ok_g[:, None] & ok_d[None, :], other=0.0)
    if eights:
        q, odd_q = _as_float16(q), _as_float16(tl.load(q_ptr + 1, mask=ok_g[:, None] & ok_d[None, :], other=0.0))
        odd_acc = tl.zeros((group_padded, size_padded // 2), tl.float32)
        scale *= tl.load(kv_scale_ptr + head)
    k_ptr += head.to(tl.int64) * head_stride
    v_ptr += head.to(tl.int64) * head_stride
    row_max = tl.full((group_padded,), float("-inf"), tl.float32)
    row_sum = tl.zeros((group_padded,), tl.float32)
    if sinks:
        counts = ok_g & (tl.broadcast_to(split, (group_padded,)) == 0)
        row_max = _sink(tl.load(sink_ptr + head * group + g, mask=counts, other=-float("inf")))
        row_sum = tl.where(row_max > float("-inf"), 1.0, 0.0)
    acc = tl.zeros((group_padded, size_padded // step), tl.float32)
    for first in range(begin, end, tile):
        key = first + tl.arange(0, tile)
        ok = key < end
        if window:
            ok = ok & (key >= length - window)
        block = tl.load(table_ptr + row * table_stride + key // page, mask=ok, other=0).to(tl.int64)
        slot = (block * page + key % page) * columns
        k = tl.load(k_ptr + slot[None, :] + d[:, None], mask=ok[None, :] & ok_d[:, None], other=0)
        v = tl.load(v_ptr + slot[:, None] + d[None, :], mask=ok[:, None] & ok_d[None, :], other=0)
        if eights:
            k, odd_k = widened(k, native)
            scores = tl.dot(odd_q, odd_k, tl.dot(q, k))
        else:
            scores = tl.dot(q, k, input_precision="ieee")
        scores = tl.where(ok[None, :], _capped(scores, scale, cap), float("-inf"))
        row_max, row_sum, p, rescale = _online_softmax(scores, 1.0 if cap > 0 else scale, row_max, row_sum, False)
        if eights:
            v, odd_v = widened(v, native)
            odd_acc = _weighted(p, odd_v, odd_acc, rescale)
        acc = _weighted(p, v, acc, rescale)
    # A split without keys has no weight: its logsumexp is -inf, and its output is stored as 0, never as 0/0.
    row_sum_or_1 = tl.where(row_sum > 0, row_sum, 1.0)
    if eights:
        acc = joined(acc, odd_acc) * tl.load(kv_scale_ptr + kv + head)
        d = tl.arange(0, size_padded)
        ok_d = d < size
    acc = acc / row_sum_or_1[:, None]
    mask = ok_g[:, None] & ok_d[None, :]
    if splits == 1:
        tl.store(out_ptr + place[:, None] * size + d[None, :], acc.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        tl.store(out_ptr + (place * splits + split)[:, None] * size + d[None, :], acc, mask=mask)
        lse = tl.where(row_sum > 0, row_max + tl.log2(tl.where(row_sum > 0, row_sum, 1.0)), float("-inf"))
        tl.store(lse_ptr + place * splits + split, lse, mask=ok_g)


@jit
def prefill_attention(  # noqa: PLR0917 - what a kernel needs
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    span_ptr: tl.tensor,
    out_ptr: tl.tensor,
    kv_scale_ptr: tl.tensor,
    sink_ptr: tl.tensor,
    table_stride: tl.tensor,
    head_stride: tl.tensor,
    scale: tl.tensor,
    heads: tl.constexpr,
    group: tl.constexpr,
    size: tl.constexpr,
    size_padded: tl.constexpr,
    page: tl.constexpr,
    queries: tl.constexpr,
    tile: tl.constexpr,
    slots_64bit: tl.constexpr,
    eights: tl.constexpr,
    native: tl.constexpr,
    window: tl.constexpr,
    cap: tl.constexpr,
    sinks: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """Causal attention of one tile of a row's queries, for one query head."""
    pdl_barrier(pdl)
    # The head is the fastest grid dimension: the query heads of a group read the same keys.
    head, index = tl.program_id(0), tl.program_id(1)
    row = tl.load(tile_ptr + index * 2).to(tl.int64)
    if row < 0:
        return
    from_query = tl.load(tile_ptr + index * 2 + 1)
    start, count, length = tl.load(span_ptr + row * 3), tl.load(span_ptr + row * 3 + 1), tl.load(span_ptr + row * 3 + 2)
    step: tl.constexpr = 2 if eights else 1
    columns: tl.constexpr = size // step
    m, n, d = from_query + tl.arange(0, queries), tl.arange(0, tile), tl.arange(0, size_padded // step)
    ok_m, ok_d = m < count, d < columns
    last_key = length - count + m
    place = ((start + m).to(tl.int64) * heads + head) * size
    q_ptr += place[:, None] + step * d[None, :]
    q = tl.load(q_ptr, mask=ok_m[:, None] & ok_d[None, :], other=0.0)
    if eights:
        q, odd_q = _as_float16(q), _as_float16(tl.load(q_ptr + 1, mask=ok_m[:, None] & ok_d[None, :], other=0.0))
        odd_acc = tl.zeros((queries, size_padded // 2), tl.float32)
        scale *= tl.load(kv_scale_ptr + head // group)
    k_ptr += (head // group).to(tl.int64) * head_stride
    v_ptr += (head // group).to(tl.int64) * head_stride
    table_ptr += row * table_stride
    row_max = tl.full((queries,), float("-inf"), tl.float32)
    row_sum = tl.zeros((queries,), tl.float32)
    if sinks:
        row_max = tl.maximum(row_max, _sink(tl.load(sink_ptr + head)))
        row_sum += 1.0
    acc = tl.zeros((queries, size_padded // step), tl.float32)
    # First the tiles that every query sees whole, which need no mask, then those on the diagonal.
    low, unmasked = 0, (length - count + from_query + 1) // tile * tile
    if window:  # the first keys that the first query sees; a query further on sees fewer of them, so that every tile has a mask
        low = tl.maximum(length - count + from_query + 1 - window, 0) // tile * tile
        unmasked = low
    for first in range(low, unmasked, tile):
        key = first + n
        slot = _slot_type(tl.load(table_ptr + key // page), slots_64bit) * page + key % page
        k = tl.load(k_ptr + slot[None, :] * columns + d[:, None], mask=ok_d[:, None], other=0)
        if eights:
            k, odd_k = widened(k, native)
            scores = tl.dot(odd_q, odd_k, tl.dot(q, k))
        else:
            scores = tl.dot(q, k, input_precision="ieee")
        v = tl.load(v_ptr + slot[:, None] * columns + d[None, :], mask=ok_d[None, :], other=0)
        row_max, row_sum, p, rescale = _online_softmax(_capped(scores, scale, cap), 1.0 if cap > 0 else scale, row_max, row_sum, False)
        if eights:
            v, odd_v = widened(v, native)
            odd_acc = _weighted(p, odd_v, odd_acc, rescale)
        acc = _weighted(p, v, acc, rescale)
    end = tl.minimum(length, length - count + from_query + queries)
    for first in range(unmasked, end, tile):
        key = first + n
        ok = key < end
        if window:  # what no query of the tile sees may be another row's by now
            ok = ok & (key > length - count + from_query - window)
        slot = _slot_type(tl.load(table_ptr + key // page, mask=ok, other=0), slots_64bit) * page + key % page
        k = tl.load(k_ptr + slot[None, :] * columns + d[:, None], mask=ok[None, :] & ok_d[:, None], other=0)
        if eights:
            k, odd_k = widened(k, native)
            scores = tl.dot(odd_q, odd_k, tl.dot(q, k))
        else:
            scores = tl.dot(q, k, input_precision="ieee")
        seen = key[None, :] <= last_key[:, None]
        if window:
            seen = seen & (key[None, :] > last_key[:, None] - window)
        scores = tl.where(seen, _capped(scores, scale, cap), float("-inf"))
        v = tl.load(v_ptr + slot[:, None] * columns + d[None, :], mask=ok[:, None] & ok_d[None, :], other=0)
        row_max, row_sum, p, rescale = _online_softmax(scores, 1.0 if cap > 0 else scale, row_max, row_sum, window > 0)
        if eights:
            v, odd_v = widened(v, native)
            odd_acc = _weighted(p, odd_v, odd_acc, rescale)
        acc = _weighted(p, v, acc, rescale)
    if eights:
        acc = joined(acc, odd_acc) * tl.load(kv_scale_ptr + heads // group + head // group)
        d = tl.arange(0, size_padded)
        ok_d = d < size
    acc = acc / row_sum[:, None]
    tl.store(out_ptr + place[:, None] + d[None, :], acc.to(out_ptr.dtype.element_ty), mask=ok_m[:, None] & ok_d[None, :])


@jit
def _sink(score: tl.tensor) -> tl.tensor:
    """A head's score without a key, as a base-2 exponent: what its softmax begins with."""
    return score.to(tl.float32) * 1.4426950408889634


@jit
def _capped(scores: tl.tensor, scale: tl.tensor, cap: tl.constexpr) -> tl.tensor:
    """Scores as they are, or where there is a `cap` (of base-2 exponents) cap · tanh(score / cap), scaled already."""
    if cap > 0:  # a float alone is no condition to Triton
        scores = cap * (2.0 * tl.sigmoid(scores * scale * (2.0 / cap)) - 1.0)
    return scores


@jit
def _online_softmax(
    scores: tl.tensor, scale: tl.tensor, row_max: tl.tensor, row_sum: tl.tensor, may_see_none: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """One tile's update of (maximum, sum of weights), its weights, and what sums before it are multiplied by.

    `scale` turns scores into base-2 exponents. `may_see_none`: up to now a query may have seen no key at all.
    """
    new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
    if may_see_none:
        finite = tl.where(new_max > float("-inf"), new_max, 0.0)
        p = tl.exp2(scores * scale - finite[:, None])
        rescale = tl.exp2(row_max - finite)
    else:
        p = tl.exp2(scores * scale - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
    return new_max, row_sum * rescale + tl.sum(p, 1), p, rescale


@jit
def _weighted(p: tl.tensor, v: tl.tensor, acc: tl.tensor, rescale: tl.tensor) -> tl.tensor:
    """One tile's update of the weighted sum of values."""
    return tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")


@jit
def _as_float16(q: tl.tensor) -> tl.tensor:
    """Queries for keys in FP8; one beyond float16's largest number would make every score of its row infinite."""
    return tl.minimum(tl.maximum(q.to(tl.float32), -65504.0), 65504.0).to(tl.float16)


@jit
def _slot_type(block: tl.tensor, slots_64bit: tl.constexpr) -> tl.tensor:
    """64-bit block numbers where 32 bits do not reach the cache's end; their arithmetic is slower."""
    return block.to(tl.int64) if slots_64bit else block
