"""Attention over a paged KV cache by Triton: one kernel for single queries (decode), one for runs of them (prefill).

Decode reads each key and value once for all query heads of its group, and is split over the sequence where there are few
sequences, so that every multiprocessor has work. `attention.attend_reference` is the plain torch side of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import after, jit, let, start, tl, triton, wait

__all__ = ["QUERIES", "Both", "Decode", "Prefill", "crowded", "splits"]

#: Queries of one prefill program; the tile map is made for it.
QUERIES = 64

_LOG2E = 1.4426950408889634


def splits(batch: int, kv_heads: int, processors: int = 132) -> int:
    """Programs to share one sequence and KV head: one where there are five a multiprocessor, else enough for seven, so that rows of unequal length even out."""
    count, programs = 1, batch * kv_heads
    while programs < processors * 5 and programs * count < processors * 7 and count < 32:
        count *= 2
    return count


def crowded(rows: int, kv_heads: int) -> bool:
    """Whether attention over so many rows fills the device. Then neither its programs nor those of the kernel after it should be set up while another kernel's are at work:
    they would lie where there is room, and long ones unevenly.
    """
    return splits(rows, kv_heads) <= 4


def shape(programs: int, splits: int, token: int) -> tuple[int, int, int]:
    """(tokens of a tile, warps, stages) for so many programs over keys of `token` bytes. Many programs should be small, so that more of them fit on a multiprocessor and the
    long ones do not wait for a place; a few must each have much under way. Measured on one H200 over the states of a batch of mixed lengths.
    """
    if splits > 8 or token > 256:
        return 64, 4, 3
    if splits > 1:
        return 128, 4, 2
    return (32, 1, 3) if programs > 1280 else (64, 2, 3) if programs > 900 else (128, 4, 3)


@dataclass(frozen=True, slots=True)
class Decode:
    """One query a row. `table` (rows, blocks) int32, `lengths` (rows,) int32 with the query's own token counted, 0 for no row.

    `order` (rows,) int32: which row comes when, each once. The longest first: a long one that begins last keeps the device waiting.
    """

    table: torch.Tensor
    lengths: torch.Tensor
    page: int
    splits: int
    order: torch.Tensor | None = None

    def __call__(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, heads, size) → the same shape, into `out` where it is given."""
        rows, heads, size = q.shape
        out, kv = q.new_empty(q.shape) if out is None else out, keys.shape[0]
        parts, sums = out, self.lengths
        if self.splits > 1:
            parts = torch.empty(rows, heads, self.splits, size, dtype=torch.float32, device=q.device)
            sums = torch.empty(rows, heads, self.splits, dtype=torch.float32, device=q.device)
        order = self.lengths if self.order is None else self.order
        tile, warps, stages = shape(rows * kv, self.splits, _wide(size) * q.element_size())
        start(
            _decode, (kv, rows, self.splits), q, keys, values, self.table, self.lengths, order, parts, sums, self.table.stride(0), keys.stride(0), _LOG2E * size**-0.5,
            kv=kv, group=heads // kv, rows=max(16, triton.next_power_of_2(heads // kv)), size=size, wide=_wide(size), page=self.page,
            tile=tile, splits=self.splits, ordered=self.order is not None, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        if self.splits > 1:
            start(_join, (rows, heads), parts, sums, out, size=size, wide=_wide(size), splits=self.splits, num_warps=2)
        return out


@dataclass(frozen=True, slots=True)
class Prefill:
    """Runs of queries. `tiles` (n, 2) int32: the row (-1: none) and the place of its QUERIES first query among the row's; `spans` (rows, 3) int32:
    first query, queries, keys (the queries' own counted); `table` (rows, blocks) int32.
    """

    table: torch.Tensor
    tiles: torch.Tensor
    spans: torch.Tensor
    page: int

    def __call__(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(tokens, heads, size) → the same shape, into `out` where it is given; a query sees the keys up to its own."""
        heads, size = q.shape[1:]
        out, kv = q.new_empty(q.shape) if out is None else out, keys.shape[0]
        start(
            _prefill, (heads, self.tiles.shape[0]), q, keys, values, self.table, self.tiles, self.spans, out, self.table.stride(0), keys.stride(0), _LOG2E * size**-0.5,
            heads=heads, group=heads // kv, size=size, wide=_wide(size), page=self.page, queries=QUERIES, tile=64, far=keys.stride(0) >= 2**31, num_warps=4, num_stages=2,
        )  # fmt: skip
        return out


@dataclass(frozen=True, slots=True)
class Both:
    """A step's single queries first, then its runs of queries. `decode` has a row of its table for each of the first."""

    decode: Decode
    prefill: Prefill

    def __call__(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(rows + tokens, heads, size) → the same shape."""
        out, rows = q.new_empty(q.shape), self.decode.lengths.shape[0]
        self.decode(q[:rows], keys, values, out[:rows])
        self.prefill(q[rows:], keys, values, out[rows:])
        return out


def _wide(size: int) -> int:
    """The head size as tensor cores take it."""
    return max(16, int(triton.next_power_of_2(size)))


@jit
def _decode(  # noqa: PLR0917 - what a kernel needs
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, table_ptr: tl.tensor, length_ptr: tl.tensor, order_ptr: tl.tensor, out_ptr: tl.tensor, sum_ptr: tl.tensor, width: tl.tensor, stride: tl.tensor, scale: tl.tensor,
    kv: tl.constexpr, group: tl.constexpr, rows: tl.constexpr, size: tl.constexpr, wide: tl.constexpr, page: tl.constexpr,
    tile: tl.constexpr, splits: tl.constexpr, ordered: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    # The heads of a row come one after the other, so that rows begin in their order.
    head, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    # Both are older than the kernel before this one.
    if ordered:
        row = tl.load(order_ptr + row)
    row = row.to(tl.int64)
    length = tl.load(length_ptr + row)
    wait(pdl)
    if splits > 4:  # not `crowded`
        let(pdl)
    share = tl.cdiv(tl.cdiv(length, splits), tile) * tile
    begin = part * share
    end = tl.minimum(begin + share, length)
    g, d = tl.arange(0, rows), tl.arange(0, wide)
    ok_g, ok_d = g < group, d < size
    place = (row * kv + head) * group + g
    q = tl.load(q_ptr + place[:, None] * size + d[None, :], mask=ok_g[:, None] & ok_d[None, :], other=0.0)
    k_ptr += head.to(tl.int64) * stride
    v_ptr += head.to(tl.int64) * stride
    top = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    acc = tl.zeros((rows, wide), tl.float32)
    for first in range(begin, end, tile):
        at = first + tl.arange(0, tile)
        ok = at < end
        block = tl.load(table_ptr + row * width + at // page, mask=ok, other=0).to(tl.int64)
        slot = (block * page + at % page) * size
        k = tl.load(k_ptr + slot[None, :] + d[:, None], mask=ok[None, :] & ok_d[:, None], other=0.0)
        v = tl.load(v_ptr + slot[:, None] + d[None, :], mask=ok[:, None] & ok_d[None, :], other=0.0)
        scores = tl.where(ok[None, :], tl.dot(q, k, input_precision="ieee"), float("-inf"))
        top, total, acc = _folded(scores, scale, v, top, total, acc)
    # A part without keys weighs nothing: its logarithm is -inf, and its sum is written as 0, never as 0/0.
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    mask = ok_g[:, None] & ok_d[None, :]
    if splits == 1:
        tl.store(out_ptr + place[:, None] * size + d[None, :], acc.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        tl.store(out_ptr + (place * splits + part)[:, None] * size + d[None, :], acc, mask=mask)
        tl.store(
            sum_ptr + place * splits + part, tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf")), mask=ok_g
        )


@jit
def _join(  # noqa: PLR0917 - what a kernel needs
    part_ptr: tl.tensor, sum_ptr: tl.tensor, out_ptr: tl.tensor, size: tl.constexpr, wide: tl.constexpr, splits: tl.constexpr, pdl: tl.constexpr
) -> None:  # fmt: skip
    after(pdl)
    place = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    s, d = tl.arange(0, splits), tl.arange(0, wide)
    ok_d = d < size
    weight = tl.load(sum_ptr + place * splits + s)
    peak = tl.max(weight, 0)
    weight = tl.exp2(weight - tl.where(peak > float("-inf"), peak, 0.0))
    parts = tl.load(part_ptr + (place * splits + s)[:, None] * size + d[None, :], mask=ok_d[None, :], other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(parts * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out_ptr + place * size + d, out.to(out_ptr.dtype.element_ty), mask=ok_d)


@jit
def _prefill(  # noqa: PLR0917 - what a kernel needs
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, table_ptr: tl.tensor, tile_ptr: tl.tensor, span_ptr: tl.tensor, out_ptr: tl.tensor, width: tl.tensor, stride: tl.tensor, scale: tl.tensor,
    heads: tl.constexpr, group: tl.constexpr, size: tl.constexpr, wide: tl.constexpr, page: tl.constexpr, queries: tl.constexpr, tile: tl.constexpr, far: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    after(pdl)
    # The heads of a tile come one after the other: two of them read the same keys.
    head, index = tl.program_id(0), tl.program_id(1)
    row = tl.load(tile_ptr + index * 2).to(tl.int64)
    if row < 0:
        return
    from_query = tl.load(tile_ptr + index * 2 + 1)
    start, count, length = tl.load(span_ptr + row * 3), tl.load(span_ptr + row * 3 + 1), tl.load(span_ptr + row * 3 + 2)
    m, n, d = from_query + tl.arange(0, queries), tl.arange(0, tile), tl.arange(0, wide)
    ok_m, ok_d = m < count, d < size
    sees = length - count + m
    place = ((start + m).to(tl.int64) * heads + head) * size
    q = tl.load(q_ptr + place[:, None] + d[None, :], mask=ok_m[:, None] & ok_d[None, :], other=0.0)
    k_ptr += (head // group).to(tl.int64) * stride
    v_ptr += (head // group).to(tl.int64) * stride
    table_ptr += row * width
    top = tl.full((queries,), float("-inf"), tl.float32)
    total = tl.zeros((queries,), tl.float32)
    acc = tl.zeros((queries, wide), tl.float32)
    # First what every query sees whole, which needs no masks, then what some see a part of.
    whole = (length - count + from_query + 1) // tile * tile
    for first in range(0, whole, tile):
        at = first + n
        slot = _far(tl.load(table_ptr + at // page), far) * page + at % page
        k = tl.load(k_ptr + slot[None, :] * size + d[:, None], mask=ok_d[:, None], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee")
        v = tl.load(v_ptr + slot[:, None] * size + d[None, :], mask=ok_d[None, :], other=0.0)
        top, total, acc = _folded(scores, scale, v, top, total, acc)
    end = tl.minimum(length, length - count + from_query + queries)
    for first in range(whole, end, tile):
        at = first + n
        ok = at < end
        slot = _far(tl.load(table_ptr + at // page, mask=ok, other=0), far) * page + at % page
        k = tl.load(k_ptr + slot[None, :] * size + d[:, None], mask=ok[None, :] & ok_d[:, None], other=0.0)
        scores = tl.where(at[None, :] <= sees[:, None], tl.dot(q, k, input_precision="ieee"), float("-inf"))
        v = tl.load(v_ptr + slot[:, None] * size + d[None, :], mask=ok[:, None] & ok_d[None, :], other=0.0)
        top, total, acc = _folded(scores, scale, v, top, total, acc)
    acc = acc / total[:, None]
    tl.store(out_ptr + place[:, None] + d[None, :], acc.to(out_ptr.dtype.element_ty), mask=ok_m[:, None] & ok_d[None, :])


@jit
def _folded(  # noqa: PLR0917 - what a kernel needs
    scores: tl.tensor, scale: tl.tensor, v: tl.tensor, top: tl.tensor, total: tl.tensor, acc: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """A tile more in a softmax under way: (largest so far, sum of weights, weighted sum of values). `scale` makes the scores exponents of 2."""
    peak = tl.maximum(top, tl.max(scores, 1) * scale)
    p = tl.exp2(scores * scale - peak[:, None])
    fade = tl.exp2(top - peak)
    return peak, total * fade + tl.sum(p, 1), tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")


@jit
def _far(block: tl.tensor, far: tl.constexpr) -> tl.tensor:
    """As 64 bits where 32 do not reach the cache's end; they take longer to reckon with."""
    return block.to(tl.int64) if far else block
