"""Matrices of whole numbers of four or eight bits with a scale for each group of columns, multiplied as they lie on a CPU, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels_support.cpu.grouped_code import BLOCK, Layout
from kernels_support.cpu.grouped_product import Product, max_rows, product
from kernels_support.cpu.large_pages import LargePages
from kernels_support.cpu.machine_code import openmp

__all__ = ["GROUP", "Grouped", "GroupedMatrices", "GroupedMatrix", "gather", "linear", "pack_groups", "quantize_groups", "widen"]

#: Columns that share a scale where we choose.
GROUP = 32

#: Where the matrices lie.
_pages = LargePages()


@dataclass(frozen=True, slots=True)
class Grouped:
    """W = scale · values + zero, (n, k).

    `values`: int8 (n, k), 0 to 15 of four bits, -128 to 127 of eight; `scale`, `zero`: float32 (n, groups). Without a zero it is of four
    bits -8 · scale, and else 0.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor | None
    bits: int

    def dequantized(self) -> Tensor:
        """W in float32."""
        groups = self.values.reshape(*self.scale.shape, -1).float()
        if self.zero is None:
            wide = self.scale[..., None] * (groups - 8 if self.bits == 4 else groups)
        else:
            wide = self.scale[..., None] * groups + self.zero[..., None]
        return wide.reshape(self.values.shape)


class GroupedMatrix:
    """W (n, k) as `grouped_code.py` has it: `data` uint8 (blocks, groups, record). `rows` is n, and `padded` what whole blocks make of it.

    Matrices of other layouts below it are `below`; `shape` is of all.
    """

    __slots__ = ("_functions", "address", "below", "blocks", "data", "layout", "padded", "rows", "shape")

    def __init__(self, data: Tensor, layout: Layout, rows: int, below: tuple[GroupedMatrix, ...] = ()) -> None:
        self.data, self.layout, self.rows, self.below = data, layout, rows, below
        self.blocks, self.address, self.padded = data.shape[0], data.data_ptr(), data.shape[0] * BLOCK
        self.shape = torch.Size((rows + sum(part.rows for part in below), data.shape[1] * layout.group))
        self._functions: dict[int, Product] = {}

    @property
    def dtype(self) -> torch.dtype:
        """What its rows are looked up in."""
        return torch.float32

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + sum(part.nbytes for part in self.below)

    @property
    def parts(self) -> tuple[GroupedMatrix, ...]:
        return (self, *self.below)

    def function(self, rows: int) -> Product:
        """What multiplies it by so many rows of x."""
        known = self._functions.get(rows)
        if known is None:
            known = self._functions[rows] = product(self.layout, self.shape[1], rows)
        return known


@dataclass(frozen=True, slots=True)
class GroupedMatrices:
    """One matrix of each expert: (experts, n, k)."""

    each: tuple[GroupedMatrix, ...]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.each), *self.each[0].shape))

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.each)

    def __getitem__(self, expert: int) -> GroupedMatrix:
        return self.each[expert]


def quantize_groups(weight: Tensor) -> Grouped:
    """(n, k) → eight bits around zero, 32 columns a scale."""
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    scale = groups.abs().amax(-1) / 127
    half = scale.half().float()
    # Rounded first where float16 has its full precision for it: what it becomes decides the values.
    scale = half if bool(((half > 6.2e-5) & half.isfinite() | (scale == 0)).all()) else scale
    values = (groups / scale.clamp(min=1e-30)[..., None]).round().clamp(-128, 127).to(torch.int8).reshape(weight.shape)
    return Grouped(values, scale, None, 8)


def pack_groups(parts: list[Grouped]) -> GroupedMatrix:
    """Matrices below each other, packed; neighbours of one layout as one."""
    joined: list[tuple[Layout, list[Grouped]]] = []
    for part in parts:
        layout = _layout(part)
        if joined and joined[-1][0] == layout:
            joined[-1][1].append(part)
        else:
            joined.append((layout, [part]))
    first, *below = [_packed(layout, those) for layout, those in joined]
    return GroupedMatrix(first.data, first.layout, first.rows, tuple(below))


def _layout(part: Grouped) -> Layout:
    factors = [part.scale] if part.zero is None else [part.scale, part.zero]
    half = all(torch.equal(one.half().float(), one) for one in factors)
    zero = "own" if part.zero is not None else "middle" if part.bits == 4 else "none"
    return Layout(part.bits, part.values.shape[1] // part.scale.shape[1], half, zero)


def _packed(layout: Layout, parts: list[Grouped]) -> GroupedMatrix:
    values = torch.cat([part.values for part in parts]).view(torch.uint8)
    n, k = values.shape
    blocks, groups = -(-n // BLOCK), k // layout.group
    by_row = pad(values, (0, 0, 0, -n % BLOCK)).view(blocks, BLOCK, groups, layout.group)
    if layout.bits == 4:
        pairs = by_row[..., ::2] | by_row[..., 1::2] << 4
        numbers = pairs.view(blocks, BLOCK, groups, layout.group // 8, 4).permute(0, 2, 3, 1, 4)
    else:
        numbers = by_row.permute(0, 2, 3, 1)
    pieces = [numbers.reshape(blocks, groups, layout.numbers)]
    for many in ([part.scale for part in parts], [part.zero for part in parts if part.zero is not None]):
        if many:
            factors = pad(torch.cat(many), (0, 0, 0, -n % BLOCK)).view(blocks, BLOCK, groups).transpose(1, 2)
            pieces.append(factors.to(torch.float16 if layout.half else torch.float32).contiguous().view(torch.uint8))
    return GroupedMatrix(_pages.hold(torch.cat(pieces, -1)), layout, n)


def linear(x: Tensor, weight: GroupedMatrix, bias: Tensor | None = None) -> Tensor:
    """(rows, k) → (rows, n), in float32."""
    out = torch.cat([_product(x, part) for part in weight.parts], -1) if weight.below else _product(x, weight)
    return out if bias is None else out + bias


def _product(x: Tensor, part: GroupedMatrix) -> Tensor:
    x = x.contiguous()
    rows, k = x.shape
    out = torch.empty(rows, part.padded)
    at_x, at_out = x.data_ptr(), out.data_ptr()
    most = max_rows()
    if rows > most:
        whole = rows // most
        _run(part, most, at_x, at_out, whole)
        at_x, at_out, rows = at_x + 4 * k * most * whole, at_out + 4 * part.padded * most * whole, rows % most
    if rows:
        _run(part, rows, at_x, at_out, 1)
    return out if part.padded == part.rows else out[:, : part.rows]


def _run(part: GroupedMatrix, rows: int, at_x: int, at_out: int, times: int) -> None:
    """So many rows of x, so many times; on several threads each has a share of the blocks."""
    function, threads, stride = part.function(rows), torch.get_num_threads(), 4 * part.padded
    if threads == 1 or openmp() is None:
        function.run(at_x, at_out, part.address, part.blocks, times, stride)
        return
    ends = [part.blocks * i // threads for i in range(threads + 1)]
    shares = [(a, b) for a, b in pairwise(ends) if b > a]
    record = part.data.stride(0)
    function.run_parallel([(at_x, at_out + 4 * BLOCK * a, part.address + record * a, b - a, times, stride) for a, b in shares])


def widen(weight: GroupedMatrix) -> Tensor:
    """W in float32."""
    return torch.cat([gather(part, torch.arange(part.rows)) for part in weight.parts])


def gather(weight: GroupedMatrix, ids: Tensor) -> Tensor:
    """Some rows, in float32: (ids, k). Of one part alone."""
    layout, lane = weight.layout, ids % BLOCK
    records = weight.data[ids // BLOCK]  # (ids, groups, record)
    at = torch.arange(len(ids))

    def factors(start: int) -> Tensor:
        raw = records[..., start : start + layout.factors].contiguous().view(torch.float16 if layout.half else torch.float32)
        return raw[at, :, lane].float()

    scale = factors(layout.numbers)
    zero = factors(layout.numbers + layout.factors) if layout.zero == "own" else None
    numbers = records[..., : layout.numbers]
    if layout.bits == 4:
        pairs = numbers.reshape(*numbers.shape[:2], -1, BLOCK, 4)[at, :, :, lane]
        values = torch.stack((pairs & 15, pairs >> 4), -1)
    else:
        values = numbers.reshape(*numbers.shape[:2], -1, BLOCK)[at, :, :, lane]
    return Grouped(values.reshape(len(ids), -1).view(torch.int8), scale, zero, layout.bits).dequantized()
