"""Attention over a paged KV cache (PagedAttention, Kwon et al. 2023, arXiv:2309.06180) by Triton: decode, prefill, and steps that mix them.

Decode takes one query per sequence, prefill runs of queries. Decode reads each key and value once for all query heads of its group, and
where there are few sequences it splits each over several programs so that every multiprocessor has work (split-KV decoding, as
Flash-Decoding, Dao et al. 2023). `paged_kernels.py` has the kernels; `attention.attend_reference` is the plain torch side of both.
A cache may lie in FP8, with float32 scales (2, KV heads) of keys and values; they multiply.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.attention import PLAIN, AttentionKind
from kernels_support.gpu.fp8_pairs import as_pairs, widens_in_hardware
from kernels_support.gpu.lang import launch_kernel, triton
from kernels_support.gpu.paged_kernels import decode_attention, prefill_attention
from kernels_support.gpu.paged_splits import combine_splits, combine_splits_fp8
from kernels_support.gpu.quantize_fp8 import FP8, PLAIN_ROWS, Quantized

__all__ = ["PREFILL_TILE_QUERIES", "Decode", "MixedBatch", "Prefill", "fills_device", "splits"]

#: Queries of one prefill program; the tile map is made for it.
PREFILL_TILE_QUERIES = 64

_LOG2E = 1.4426950408889634


def splits(batch: int, kv_heads: int, processors: int = 132) -> int:
    """Programs that share one sequence and KV head: one where that makes nearly four per multiprocessor.

    Else enough for seven per multiprocessor, so that sequences of unequal length even out.
    """
    count, programs = 1, batch * kv_heads
    while 4 * programs < processors * 15 and programs * count < processors * 7 and count < 32:
        count *= 2
    return count


def fills_device(rows: int, kv_heads: int) -> bool:
    """Whether decode attention over so many rows fills the device.

    Then neither its programs nor the next kernel's should start early by programmatic dependent launch: they would be placed wherever the
    running kernel leaves room, and long ones unevenly.
    """
    return splits(rows, kv_heads) <= 4


def decode_tile(programs: int, splits: int, token_bytes: int, *, eights: bool = False) -> tuple[int, int, int]:
    """(tokens of a tile, warps, stages) for so many programs over keys of `token_bytes`.

    Measured on one H200 over the states of a batch of mixed lengths.
    Many programs should be small, so that more of them fit on a multiprocessor and the long ones do not wait for a place; few programs
    need many loads in flight each. For eights, which are half the bytes and the same products, it is estimated from the compiler's output.
    """
    if eights:
        return (64, 4, 4) if splits > 8 else (128, 4, 3) if splits > 1 or programs <= 900 else (64, 2, 3)
    if splits > 8 or token_bytes > 256:
        return 64, 4, 3
    if splits > 1:
        return 128, 4, 2
    return (32, 1, 3) if programs > 1280 else (64, 2, 3) if programs > 900 else (128, 4, 3)


@dataclass(frozen=True, slots=True)
class Decode:
    """One query per row. `table` (rows, blocks) int32; `lengths` (rows,) int32, the query's own token included, 0 for an empty row.

    `order` (rows,) int32: a permutation of the rows. Longest first: a long row that starts last leaves the device idle at the end.
    """

    table: torch.Tensor
    lengths: torch.Tensor
    page: int
    splits: int
    order: torch.Tensor | None = None

    def __call__(  # noqa: PLR0917 - what a kernel needs
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scales: torch.Tensor | None = None,
        kind: AttentionKind = PLAIN,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor | Quantized:
        """(rows, heads, size) → the same shape, into `out` where it is given; or eight bits (rows, heads · size): see `AttentionKind`."""
        rows, heads, size = q.shape
        cache = _Cache.of(keys, values, scales, self.lengths)
        shape = decode_tile(rows * keys.shape[0], self.splits, _padded(size, eights=cache.eights) * q.element_size(), eights=cache.eights)
        if self.splits == 1:
            out = q.new_empty(q.shape) if out is None else out
            self._launch(q, cache, kind, out, self.lengths, shape)
            return out
        partial_out = torch.empty(rows, heads, self.splits, size, dtype=torch.float32, device=q.device)
        lse = torch.empty(rows, heads, self.splits, dtype=torch.float32, device=q.device)
        self._launch(q, cache, kind, partial_out, lse, shape)
        split = {"splits": self.splits, "window": kind.window, "tile": shape[0]}
        if kind.eights and out is None and rows > PLAIN_ROWS:
            values = torch.empty(rows, heads * size, dtype=FP8, device=q.device)
            row_scales = torch.empty(rows, 1, dtype=torch.float32, device=q.device)
            launch_kernel(
                combine_splits_fp8,
                (rows,),
                partial_out,
                lse,
                self.lengths,
                q,
                values,
                row_scales,
                heads=heads,
                heads_padded=triton.next_power_of_2(heads),
                size=size,
                size_padded=_padded(size),
                **split,
                num_warps=8,
            )
            return Quantized(values, row_scales, q.dtype)
        out = q.new_empty(q.shape) if out is None else out
        launch_kernel(
            combine_splits, (rows, heads), partial_out, lse, self.lengths, out, size=size, size_padded=_padded(size), **split, num_warps=2
        )
        return out

    def _launch(  # noqa: PLR0917 - what the kernel needs
        self, q: torch.Tensor, cache: _Cache, kind: AttentionKind, out: torch.Tensor, lse: torch.Tensor, shape: tuple[int, int, int]
    ) -> None:
        """Attention into `out`; with several splits, each one's that has keys into `out` and `lse`."""
        rows, heads, size = q.shape
        kv, padded = cache.keys.shape[0], _padded(size, eights=cache.eights)
        tile, warps, stages = shape
        launch_kernel(
            decode_attention,
            (kv, rows, self.splits),
            q,
            cache.keys,
            cache.values,
            self.table,
            self.lengths,
            self.lengths if self.order is None else self.order,
            out,
            lse,
            cache.scales,
            q if kind.sinks is None else kind.sinks,
            self.table.stride(0),
            cache.keys.stride(0),
            _scale(kind, size),
            kv=kv,
            group=heads // kv,
            group_padded=max(16, triton.next_power_of_2(heads // kv)),
            size=size,
            size_padded=padded,
            page=self.page,
            tile=tile,
            splits=self.splits,
            ordered=self.order is not None,
            eights=cache.eights,
            native=cache.eights and widens_in_hardware(),
            window=kind.window,
            cap=_LOG2E * kind.cap,
            sinks=kind.sinks is not None,
            num_warps=warps,
            num_stages=stages,
        )


@dataclass(frozen=True, slots=True)
class Prefill:
    """Runs of queries. `table` (rows, blocks) int32; `spans` (rows, 3) int32: first query, queries, keys (the queries' own included).

    `tiles` (n, 2) int32: the row (-1: none) of PREFILL_TILE_QUERIES queries, and the index of the first of them among the row's.
    """

    table: torch.Tensor
    tiles: torch.Tensor
    spans: torch.Tensor
    page: int

    def __call__(  # noqa: PLR0917 - what a kernel needs
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scales: torch.Tensor | None = None,
        kind: AttentionKind = PLAIN,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(tokens, heads, size) → the same shape, into `out` where it is given. Causal: a query sees the keys up to its own."""
        heads, size = q.shape[1:]
        out, cache = q.new_empty(q.shape) if out is None else out, _Cache.of(keys, values, scales, self.spans)
        launch_kernel(
            prefill_attention,
            (heads, self.tiles.shape[0]),
            q,
            cache.keys,
            cache.values,
            self.table,
            self.tiles,
            self.spans,
            out,
            cache.scales,
            q if kind.sinks is None else kind.sinks,
            self.table.stride(0),
            cache.keys.stride(0),
            _scale(kind, size),
            heads=heads,
            group=heads // cache.keys.shape[0],
            size=size,
            size_padded=_padded(size, eights=cache.eights),
            page=self.page,
            queries=PREFILL_TILE_QUERIES,
            tile=64,
            slots_64bit=cache.keys.stride(0) >= 2**31,
            eights=cache.eights,
            native=cache.eights and widens_in_hardware(),
            window=kind.window,
            cap=_LOG2E * kind.cap,
            sinks=kind.sinks is not None,
            num_warps=4,
            num_stages=2,
        )
        return out


@dataclass(frozen=True, slots=True)
class MixedBatch:
    """A step's single queries first, then its runs of queries. `decode` has a row of its table for each single query."""

    decode: Decode
    prefill: Prefill

    def __call__(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scales: torch.Tensor | None = None,
        kind: AttentionKind = PLAIN,
    ) -> torch.Tensor:
        """(rows + tokens, heads, size) → the same shape."""
        out, rows = q.new_empty(q.shape), self.decode.lengths.shape[0]
        self.decode(q[:rows], keys, values, scales, kind, out[:rows])
        self.prefill(q[rows:], keys, values, scales, kind, out[rows:])
        return out


@dataclass(frozen=True, slots=True)
class _Cache:
    """Keys and values of one layer as the kernels take them: of FP8 in pairs, with their scales."""

    keys: torch.Tensor
    values: torch.Tensor
    scales: torch.Tensor
    eights: bool

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None, unused: torch.Tensor) -> _Cache:
        """`unused`: what is given for scales where there are none."""
        if keys.dtype != FP8:
            return cls(keys, values, unused, eights=False)
        if scales is None:
            raise TypeError("a cache in eight bits without scales")
        return cls(as_pairs(keys), as_pairs(values), scales, eights=True)


def _scale(kind: AttentionKind, size: int) -> float:
    """What turns scores into base-2 exponents."""
    return _LOG2E * (size**-0.5 if kind.scale is None else kind.scale)


def _padded(size: int, *, eights: bool = False) -> int:
    """The head size as tensor cores take it: a power of two, at least 16; of eights, in each of its halves."""
    return max(32 if eights else 16, int(triton.next_power_of_2(size)))
