"""Experts of four bits, as AWQ, GPTQ and compressed-tensors pack them: this rank's columns of each, in words as their kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import Part, TensorSource
from holynb.pool.engine.load_int4 import is_int4, read_numbers
from holynb.pool.fit.experts import ExpertLayers
from holynb.pool.fit.four_bits import FourBits
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.packed_matrix import PackedMatrix, dequantize, pack, stacked

__all__ = ["read_experts_int4"]


def read_experts_int4(  # noqa: PLR0917 - a layer's part of a file
    block: str, layout: ExpertLayers, sizes: tuple[int, tuple[int, int]], router: Tensor, source: TensorSource, how: FourBits
) -> Experts:
    """All experts of a layer, on the router's device. `sizes`: columns of the stream, and which of an expert's are this rank's.

    Raises UserError where one does not lie in four bits, has columns in an order of their own, or other sizes.
    """
    hidden, (first, last) = sizes
    names = [f"{block}.experts.{e}" for e in range(layout.count)]
    wide = [[(f"{name}.{layout.gate}", (first, last)), (f"{name}.{layout.up}", (first, last))] for name in names]
    narrow: list[list[Part]] = [[(f"{name}.{layout.down}", (0, hidden))] for name in names]
    gate_up, down = (
        _read(parts, shape, columns, (source, how, router))
        for parts, shape, columns in ((wide, (2 * (last - first), hidden), None), (narrow, (hidden, last - first), (first, last)))
    )
    return Experts(router, gate_up, down, layout.top, layout.renormalize)


def _read(
    experts: list[list[Part]], shape: tuple[int, int], columns: tuple[int, int] | None, given: tuple[TensorSource, FourBits, Tensor]
) -> Tensor | PackedMatrix:
    """One matrix of each expert: of this shape, and of these columns in the file (None: all)."""
    (source, how, like), (n, k), count = given, shape, len(experts)
    values = torch.empty(count * n, k, dtype=torch.int8, device=like.device)
    scales, zeros = (torch.empty(count * n, k // how.group, device=like.device) for _ in range(2))
    for e, parts in enumerate(experts):
        at = e * n
        for part in parts:
            module = part[0]
            if not is_int4(source, module, how):
                raise UserError(
                    f"{module} does not lie in four bits as config.json says. Fetch the model again, or start it with --engine vllm."
                )
            numbers, scale, zero, order = read_numbers(source, part, columns, how, str(like.device))
            if order is not None:
                raise UserError(
                    f"{module} has columns in an order of their own (desc_act), which is not supported of experts. Take --engine vllm."
                )
            rows = slice(at, at + len(numbers))
            if rows.stop > (e + 1) * n or numbers.shape[1] != k:
                raise UserError(f"{module} has other sizes than config.json promises. Fetch the model again.")
            values[rows], scales[rows], zeros[rows] = numbers.to(torch.int8) - 8, scale.t().float(), zero.t().float()
            at = rows.stop
    both = None if how.symmetric else -zeros * scales
    matrix = stacked(pack(values, scales, both, 4, 0 if how.symmetric else 8, half=False), count)
    if not how.widened:
        return matrix
    wide = like.new_empty(count, n, k)
    for e in range(count):
        wide[e] = dequantize(matrix, like.dtype, e)
    return wide
