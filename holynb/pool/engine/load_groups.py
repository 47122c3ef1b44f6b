"""Matrices of four and eight bits in groups of columns, as `models/convert.py` keeps them: read whole or in shards, packed or widened."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import TensorSource
from holynb.pool.fit import Spec
from holynb.pool.fit.groups import GroupQuantization
from kernels_support.cpu.grouped import GROUP, Grouped
from kernels_support.gpu.packed_matrix import PackedMatrix, pack

__all__ = ["is_grouped", "packed", "read_as", "read_group", "widened_source"]

Span = tuple[int, int]


def is_grouped(source: TensorSource, module: str) -> bool:
    """Whether this module's matrix lies in groups; one that is not there does not."""
    first = source(f"{module}.weight", (0, 1))
    return first is not None and first.dtype in (torch.uint8, torch.int8)


def read_group(source: TensorSource, part: tuple[str, Span | None], columns: Span | None = None) -> Grouped:
    """Some rows of a matrix, or some columns. Raises UserError where a scale is missing, and where a shard would divide a group."""
    module, rows = part[0], None if columns else part[1]
    first = source(f"{module}.weight", (0, 1))
    scales = source(f"{module}.weight_scale", (0, 1))
    if first is None or scales is None:
        raise UserError(
            f"The model's files hold no {module}.weight_scale, which its quantization_config promises. Start its GGUF file again."
        )
    four = first.dtype == torch.uint8
    width = first.shape[1] * (2 if four else 1)
    group = width // max(1, scales.shape[1])
    if group not in (GROUP, GROUP // 2) or (four and group != GROUP):
        raise UserError(f"{module}.weight_scale has {scales.shape[1]:,} columns for {width:,}. Start its GGUF file again.")
    if columns and any(column % GROUP for column in columns):
        raise UserError(f"{module} would be divided within {GROUP} columns that share a scale. Take a smaller --tp, or --pp.")

    def cut(name: str, per: int) -> Tensor | None:
        return source(f"{module}.{name}", rows, columns and (columns[0] // per, columns[1] // per))

    values, scale, zero = cut("weight", 2 if four else 1), cut("weight_scale", group), cut("weight_zero", group)
    assert values is not None and scale is not None  # noqa: S101, PT018 - both have a first row
    scale, zero = scale.float(), None if zero is None else zero.float()
    if not four:
        return Grouped(values, scale, zero, 8)
    halves = values.reshape(len(values), -1, GROUP // 2)
    numbers = torch.cat((halves & 15, halves >> 4), -1).to(torch.int8).reshape(len(values), -1)
    return Grouped(numbers, scale, zero, 4)


def widened_source(source: TensorSource) -> TensorSource:
    """The same tensors, those in groups in float32: to the bit what gguf's own reader says."""

    def read(name: str, rows: Span | None = None, columns: Span | None = None) -> Tensor | None:
        module = name.removesuffix(".weight")
        if module == name or not is_grouped(source, module):
            return source(name, rows, columns)
        return read_group(source, (module, rows), columns).dequantized()

    return read


def read_as(spec: Spec, source: TensorSource) -> TensorSource:
    """The same tensors; groups of columns are widened where they are not multiplied as they are."""
    given = spec.quantization
    return widened_source(source) if isinstance(given, GroupQuantization) and given.widened else source


def packed(parts: list[Grouped], device: str, dtype: torch.dtype) -> PackedMatrix:
    """Matrices below each other, for a GPU; where they are of different kinds, in one that holds all of them exactly.

    `dtype`: what rows are looked up in.
    """
    bits, groups = max(part.bits for part in parts), max(part.scale.shape[1] for part in parts)
    zeros = any(part.zero is not None for part in parts)
    centre = max(_centre(part) for part in parts) if zeros else 0
    values, scales, all_zeros = [], [], []
    for part in parts:
        own, each = _centre(part), groups // part.scale.shape[1]
        scale = part.scale.to(device).float().repeat_interleave(each, 1)
        values.append((part.values.to(device) - (8 if part.bits == 4 else own)).to(torch.int8))
        scales.append(scale)
        if part.zero is not None:
            all_zeros.append(part.zero.to(device).float().repeat_interleave(each, 1) + (own - centre) * scale)
        elif zeros:
            all_zeros.append(-centre * scale)
    return replace(pack(torch.cat(values), torch.cat(scales), torch.cat(all_zeros) if zeros else None, bits, centre), dtype=dtype)


def _centre(part: Grouped) -> int:
    """The middle of a part's numbers: of four bits, of five that lie in eight, which have a zero, and of eight."""
    return 8 if part.bits == 4 else 0 if part.zero is None else 16
