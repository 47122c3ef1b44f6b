"""A layer's matrices as they will lie on a device, without their numbers: on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from holynb.pool.fit import Spec
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.groups import GROUP, GroupQuantization
from holynb.pool.fit.quantization import Quantization
from kernels_support.gpu.fp8_matrix import BLOCK, Fp8Matrices, Fp8Matrix
from kernels_support.gpu.int4_matrix import Int4Matrix
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.quantize_fp8 import FP8

__all__ = ["meta_experts", "meta_fp8", "meta_int4", "meta_packed"]


def meta_fp8(spec: Spec, rows: int, columns: int) -> Fp8Matrix | None:
    """A layer's matrix, where it lies in eight bits."""
    how = spec.quantization
    if not isinstance(how, Quantization) or isinstance(how, GroupQuantization) or how.widened:
        return None
    scale = (-(-rows // BLOCK), -(-columns // BLOCK)) if how.weights == "block" else (rows,)
    floats = partial(torch.empty, dtype=torch.float32, device="meta")
    known = floats(1) if how.activations == "static" else None
    return Fp8Matrix(torch.empty(rows, columns, dtype=FP8, device="meta"), floats(scale), known, how.most)


def meta_experts(spec: Spec, new: Callable[..., Tensor], count: int, rows: int, columns: int) -> Tensor | Fp8Matrices | PackedMatrix:
    """One matrix of each expert; `new` makes plain ones."""
    if isinstance(how := spec.quantization, FourBits) and not how.widened:
        steps, factor = -(-columns // 128), torch.float32 if how.symmetric else torch.int64
        words = torch.empty(count, rows, steps * 32, dtype=torch.int16, device="meta")
        factors = torch.empty(count, steps * (128 // how.group), rows, dtype=factor, device="meta")
        return PackedMatrix(words, factors, 4, how.group, 0 if how.symmetric else 8, columns)
    if (one := meta_fp8(spec, rows, columns)) is None:
        return new(count, rows, columns)
    values, scale = (torch.empty(count, *t.shape, dtype=t.dtype, device="meta") for t in (one.values, one.scale))
    return Fp8Matrices(values, scale, one.x_scale, one.x_most)


def meta_int4(spec: Spec, rows: int, columns: int) -> Int4Matrix | None:
    """A layer's matrix, where it lies in four bits."""
    how = spec.quantization
    if not isinstance(how, FourBits) or how.widened:
        return None
    words = torch.empty(rows, columns // 4, dtype=torch.int16, device="meta")
    scales = torch.empty(columns // how.group, rows, dtype=torch.float32, device="meta")
    return Int4Matrix(words, scales, torch.empty(scales.shape, dtype=torch.float32, device="meta"))


def meta_packed(spec: Spec, rows: int, columns: int) -> PackedMatrix | None:
    """A matrix that is rounded to eight bits when it is read. A GGUF file's may be of any kind: its kernels are compiled when launched."""
    how = spec.quantization
    if not isinstance(how, GroupQuantization) or how.widened or not how.at_load:
        return None
    words, groups = torch.empty(rows, -(-columns // (2 * GROUP)) * GROUP, dtype=torch.int16, device="meta"), -(-columns // (2 * GROUP)) * 2
    return PackedMatrix(words, torch.empty(groups, rows, dtype=torch.float32, device="meta"), 8, GROUP, 0, columns)
