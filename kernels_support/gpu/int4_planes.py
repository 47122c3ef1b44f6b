"""Matrices of whole numbers of four or eight bits, a scale and a zero for 32 columns, multiplied as they lie by torch's CPU product.

That product takes four bits and x in bfloat16. Eight bits are two planes of four side by side: 16 · high + low, of the same x twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "GROUP",
    "Grouped",
    "PlanesMatrix",
    "gather",
    "linear",
    "logits",
    "pack_planes",
    "pack_table",
    "quantize_groups",
    "supports_int4",
    "widen",
]

#: Columns that share a scale.
GROUP = 32

#: Rows of x times planes up to which the packed product is faster than a matrix that is widened for it: to bfloat16, where the processor
#: multiplies that, and else to float32 (measured: NOTES-engine.md).
PACKED_MAX_ROWS = {torch.bfloat16: 64, torch.float32: 256}

#: Rows of a matrix that are widened at once: what lies in a core's cache.
_WIDEN_ROWS = 512

#: The largest logits of a row that are computed again in float32: the packed product rounds to bfloat16, where neighbours are alike.
_AGAIN = 8


@dataclass(frozen=True, slots=True)
class Grouped:
    """W = scale · values + zero, (n, k).

    `values`: int8 (n, k), 0 to 15 of four bits, -128 to 127 of eight; `scale`, `zero`: float32 (n, k / 32).
    """

    values: Tensor
    scale: Tensor
    zero: Tensor
    bits: int

    def dequantized(self) -> Tensor:
        """W in float32."""
        n, k = self.values.shape
        values = self.values.reshape(n, -1, GROUP).float() * self.scale[..., None] + self.zero[..., None]
        return values.reshape(n, k)


@dataclass(frozen=True, slots=True)
class PlanesMatrix:
    """W (n, k) as torch packs it: `values` uint8 (n / block, planes · k, block / 2), the byte of rows r and r + block / 2 of a block;
    `factors` bfloat16 (planes · k / 32, n, 2), scale and zero: W = (values - 8) · scale + zero, summed over the planes.

    `n` is padded to whole blocks; `shape` is without. Matrices of other planes below it are `below`. `exact`: of a table, scale and zero
    in float32, (n, k / 32, 2), for the rows that are looked up: W = scale · value + zero.
    """

    values: Tensor
    factors: Tensor
    shape: torch.Size
    planes: int
    below: tuple[PlanesMatrix, ...] = ()
    exact: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What its rows are looked up in."""
        return torch.float32

    @property
    def nbytes(self) -> int:
        own = self.values.nbytes + self.factors.nbytes + (0 if self.exact is None else self.exact.nbytes)
        return own + sum(part.nbytes for part in self.below)

    @property
    def parts(self) -> tuple[PlanesMatrix, ...]:
        return (self, *self.below)

    @property
    def rows(self) -> int:
        """Rows of its own, without those below."""
        return self.shape[0] - sum(part.shape[0] for part in self.below)


@cache
def _block() -> int | None:
    """Rows of a block of torch's packing on this processor (64 with AVX-512, 32 with AVX2); None where its product is not vectorized,
    is not there, or packs otherwise: the packing is not public, so it is tried.
    """
    values = (torch.arange(64)[:, None] * 7 + torch.arange(GROUP)[None] * 3).remainder(16)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)  # noqa: SLF001 - there is no public op
        factors = torch.stack((torch.ones(1, 64), torch.full((1, 64), 8.0)), -1).bfloat16()
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(torch.eye(GROUP).bfloat16(), packed, GROUP, factors)  # noqa: SLF001
    except (AttributeError, RuntimeError, TypeError):
        return None
    for block in (64, 32):
        raw = packed.reshape(64 // block, GROUP, block // 2)
        rows = torch.cat((raw & 15, raw >> 4), -1).transpose(1, 2).reshape(64, GROUP)
        if torch.equal(rows, values.to(torch.uint8)) and torch.equal(product.float().t(), values.float()):
            return block
    return None


def supports_int4() -> bool:
    """Whether this machine multiplies four bits fast, by a packing that is known here."""
    return _block() is not None


def quantize_groups(weight: Tensor) -> Grouped:
    """(n, k) → eight bits around zero, 32 columns a scale."""
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    # The scale as the product will have it: what it rounds to decides the values.
    scale = (groups.abs().amax(-1) / 127).bfloat16().float()
    values = (groups / scale.clamp(min=1e-30)[..., None]).round().clamp(-128, 127).to(torch.int8).reshape(weight.shape)
    return Grouped(values, scale, torch.zeros_like(scale), 8)


def pack_table(part: Grouped) -> PlanesMatrix:
    """An embedding or a head, packed: looked up exactly, and multiplied."""
    return replace(_packed(part), exact=torch.stack((part.scale, part.zero), -1))


def pack_planes(parts: list[Grouped]) -> PlanesMatrix:
    """Matrices below each other, packed; neighbours of as many bits as one."""
    joined: list[Grouped] = []
    for part in parts:
        if joined and joined[-1].bits == part.bits:
            joined[-1] = _below(joined[-1], part)
        else:
            joined.append(part)
    first, *below = [_packed(part) for part in joined]
    if not below:
        return first
    rows = sum(part.shape[0] for part in (first, *below))
    return PlanesMatrix(first.values, first.factors, torch.Size((rows, first.shape[1])), first.planes, tuple(below))


def _below(upper: Grouped, lower: Grouped) -> Grouped:
    values = torch.cat((upper.values, lower.values))
    return Grouped(values, torch.cat((upper.scale, lower.scale)), torch.cat((upper.zero, lower.zero)), upper.bits)


def _packed(part: Grouped) -> PlanesMatrix:
    block = _block()
    if block is None:
        raise RuntimeError("this machine has no product of four bits")
    n, k = part.values.shape
    more = -n % block
    if part.bits == 4:
        planes, scales, zeros = [part.values], [part.scale], [part.zero + 8 * part.scale]
    else:
        unsigned = part.values.to(torch.int16) + 128
        planes = [unsigned >> 4, unsigned & 15]
        scales, zeros = [16 * part.scale, part.scale], [torch.zeros_like(part.zero), part.zero + 8 * part.scale.bfloat16().float()]
    values = torch.cat([pad(plane.to(torch.uint8), (0, 0, 0, more)) for plane in planes], 1)
    factors = torch.stack((torch.cat(scales, 1), torch.cat(zeros, 1)), -1).bfloat16()
    factors = pad(factors, (0, 0, 0, 0, 0, more)).transpose(0, 1).contiguous()
    rows = values.reshape(-1, 2, block // 2, values.shape[1])
    packed = (rows[:, 0] | (rows[:, 1] << 4)).transpose(1, 2).contiguous()
    return PlanesMatrix(packed, factors, torch.Size((n, k)), len(planes))


@cache
def _wide_type() -> torch.dtype:
    """What matrices are widened to for many rows."""
    multiplies = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if multiplies is not None and multiplies() else torch.float32


def _stays_packed(x: Tensor, planes: int) -> bool:
    return x.shape[0] * planes <= PACKED_MAX_ROWS[_wide_type()]


def linear(x: Tensor, weight: PlanesMatrix, bias: Tensor | None = None) -> Tensor:
    """(rows, k) → (rows, n), in the type of x."""
    products = [_product(x, part) for part in weight.parts]
    out = products[0] if len(products) == 1 else torch.cat(products, -1)
    return out if bias is None else out + bias


def _product(x: Tensor, part: PlanesMatrix) -> Tensor:
    if not _stays_packed(x, part.planes):
        return _widened_product(x, part)
    narrow = x.bfloat16()
    if part.planes > 1:
        narrow = torch.cat([narrow] * part.planes, -1)
    values = part.values.view(part.factors.shape[1], -1)
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(narrow, values, GROUP, part.factors)  # noqa: SLF001 - there is no public op
    return out[:, : part.rows].to(x.dtype)


def _widened_product(x: Tensor, part: PlanesMatrix) -> Tensor:
    kind = _wide_type()
    out, wide = torch.empty(x.shape[0], part.rows, dtype=x.dtype), x.to(kind)
    for start in range(0, part.rows, _WIDEN_ROWS):
        stop = min(start + _WIDEN_ROWS, part.rows)
        out[:, start:stop] = wide @ _rows(part, start, stop).to(kind)
    return out


def _rows(part: PlanesMatrix, start: int, stop: int) -> Tensor:
    """Rows of a part, widened: (k, rows) in float32. `start` is a block's first row."""
    half = part.values.shape[2]
    block, groups = 2 * half, part.factors.shape[0]
    blocks = slice(start // block, -(-stop // block))
    raw = part.values[blocks]
    values = torch.cat((raw & 15, raw >> 4), -1)  # (blocks, planes · k, block)
    values = values.permute(1, 0, 2).reshape(groups, GROUP, -1)[..., : stop - start].float()
    factors = part.factors[:, start:stop].float()
    wide = torch.addcmul((factors[..., 1] - 8 * factors[..., 0])[:, None], values, factors[:, None, :, 0])
    wide = wide.view(part.planes, -1, stop - start)
    return wide[0] if part.planes == 1 else wide.sum(0)


def widen(weight: PlanesMatrix) -> Tensor:
    """W in float32, as the product takes it."""
    return torch.cat([_rows(part, 0, part.rows).t() for part in weight.parts])


def gather(weight: PlanesMatrix, ids: Tensor) -> Tensor:
    """Some rows, in float32: (ids, k). Of one part alone."""
    half = weight.values.shape[2]
    at = ids.remainder(2 * half)
    raw = weight.values[ids // (2 * half), :, at.remainder(half)]  # (ids, planes · k)
    values = (raw >> (4 * (at // half)).to(torch.uint8)[:, None]) & 15
    if weight.exact is not None:
        planes = values.view(len(ids), weight.planes, -1, GROUP).float()
        numbers = planes[:, 0] if weight.planes == 1 else 16 * planes[:, 0] + planes[:, 1] - 128
        return (numbers * weight.exact[ids][..., :1] + weight.exact[ids][..., 1:]).reshape(len(ids), -1)
    factors = weight.factors[:, ids].float().permute(1, 0, 2)  # (ids, groups, 2)
    wide = (values.view(len(ids), -1, GROUP).float() - 8) * factors[..., :1] + factors[..., 1:]
    return wide.reshape(len(ids), weight.planes, -1).sum(1)


def logits(x: Tensor, weight: PlanesMatrix) -> Tensor:
    """`linear`, the largest of each row once more in float32."""
    out = linear(x, weight)
    _, best = out.topk(min(_AGAIN, out.shape[1]), sorted=False)
    rows = gather(weight, best.reshape(-1)).view(*best.shape, -1)
    return out.scatter_(1, best, (rows @ x.float()[..., None])[..., 0].to(out.dtype))
