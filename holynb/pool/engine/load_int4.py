"""Matrices of four bits, as AutoAWQ, GPTQ and compressed-tensors pack them: read whole or in shards, several with the same input as one."""

from __future__ import annotations

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import Part, TensorSource
from holynb.pool.fit.four_bits import PACKED, FourBits
from kernels_support.gpu.int4_matrix import Int4Matrix, pack

__all__ = ["is_int4", "read_int4", "read_numbers"]

#: Numbers of four bits in an int32.
_EACH = 8

#: AutoAWQ packs eight columns with the even ones first (0, 2, 4, 6, 1, 3, 5, 7): where each column lies.
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


def is_int4(source: TensorSource, module: str, how: FourBits) -> bool:
    """Whether this module's matrix lies in four bits."""
    return source(f"{module}.{PACKED[how.packing]}", (0, 1)) is not None


def read_int4(source: TensorSource, parts: list[Part], columns: tuple[int, int] | None, how: FourBits, device: str) -> Int4Matrix:
    """The matrices of `parts` below each other, or the `columns` of one. Raises UserError where a tensor is missing or has other sizes,
    and where a shard would divide a group.
    """
    numbers, scales, zeros, orders = zip(*(read_numbers(source, part, columns, how, device) for part in parts), strict=True)
    for (name, _), other in zip(parts, orders, strict=True):
        if (other is None) != (orders[0] is None) or (other is not None and not torch.equal(other, orders[0])):
            raise UserError(
                f"{parts[0][0]} and {name} have columns in different orders (g_idx), which is not supported. Take --engine vllm."
            )
    return pack(torch.cat(numbers), torch.cat(scales, 1), torch.cat(zeros, 1), orders[0])


def read_numbers(
    source: TensorSource, part: Part, columns: tuple[int, int] | None, how: FourBits, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Numbers (n, k), scales and zeros (k / group, n), and the order of the columns; None: as they are. Raises UserError as `read_int4`."""
    return (_compressed if how.packing == "compressed" else _packed)(source, part, columns, how, device)


def _packed(
    source: TensorSource, part: Part, columns: tuple[int, int] | None, how: FourBits, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """AWQ's and GPTQ's matrices lie as (k, n)."""
    (module, (first, last)), awq = part, how.packing == "awq"
    order = None if awq else _order(source, module, columns, how)
    groups = None if columns is None else _cut(module, columns, how.group)
    wide, narrow = (first, last), _cut(module, (first, last), _EACH)
    rows = columns if columns is None or awq else _cut(module, columns, _EACH)
    words = _read(source, f"{module}.qweight", rows, narrow if awq else wide, device)
    zeros = _nibbles(_read(source, f"{module}.qzeros", groups, narrow, device), awq=awq)
    numbers = _nibbles(words, awq=True).t() if awq else _nibbles(words.t(), awq=False)
    scales = _read(source, f"{module}.scales", groups, wide, device)
    _check(module, numbers, scales, zeros, how)
    if order is not None:
        numbers, order = numbers[:, order.to(device)], order.to(device)
    return numbers, scales, zeros + (how.packing == "gptq"), order


def _compressed(
    source: TensorSource, part: Part, columns: tuple[int, int] | None, how: FourBits, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """compressed-tensors' matrices lie as (n, k), and their zeros as (n, k / group)."""
    module, rows = part
    order = _order(source, module, columns, how, "weight_g_idx")
    groups = None if columns is None else _cut(module, columns, how.group)
    words = _read(source, f"{module}.weight_packed", rows, None if columns is None else _cut(module, columns, _EACH), device)
    scales = _read(source, f"{module}.weight_scale", rows, groups, device).t()
    numbers = _nibbles(words, awq=False)
    if how.symmetric:
        zeros = torch.full(scales.shape, 8, dtype=torch.uint8, device=device)
    else:
        zeros = _nibbles(_read(source, f"{module}.weight_zero_point", _cut(module, rows, _EACH), groups, device).t(), awq=False)
    _check(module, numbers, scales, zeros, how)
    if order is not None:
        numbers, order = numbers[:, order.to(device)], order.to(device)
    return numbers, scales, zeros, order


def _nibbles(words: Tensor, *, awq: bool) -> Tensor:
    """(rows, columns / 8) int32 → (rows, columns) uint8, the lowest four bits first."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=words.device)
    if awq:
        shifts = shifts[torch.tensor(_AWQ_PLACES, device=words.device)]
    return ((words[..., None] >> shifts) & 15).to(torch.uint8).flatten(1)


def _order(source: TensorSource, module: str, columns: tuple[int, int] | None, how: FourBits, name: str = "g_idx") -> Tensor | None:
    """The columns by their group, where the file says that they do not lie so (GPTQ's act-order)."""
    index = source(f"{module}.{name}")
    if index is None or bool((index == torch.arange(len(index)) // how.group).all()):
        return None
    order = torch.argsort(index.long(), stable=True)
    if not torch.equal(index.long()[order], torch.arange(len(index)) // how.group):
        raise UserError(f"{module}.{name} does not divide its columns into groups of {how.group}. Fetch the model again.")
    if columns is not None and columns != (0, len(index)):
        raise UserError(f"{module} has columns in an order of their own (desc_act), which --tp would divide. Take --pp.")
    return order


def _cut(module: str, span: tuple[int, int], each: int) -> tuple[int, int]:
    if span[0] % each or span[1] % each:
        raise UserError(f"{module} would be divided within a group of {each}. Take a smaller --tp, or --pp.")
    return span[0] // each, span[1] // each


def _read(source: TensorSource, name: str, rows: tuple[int, int] | None, columns: tuple[int, int] | None, device: str) -> Tensor:
    """Some rows and columns of a tensor: a source cuts one of them."""
    tensor = source(name, None, columns) if columns is not None else source(name, rows)
    if tensor is None:
        raise UserError(f"The model's files hold no tensor {name}, which its quantization_config promises. Fetch the model again.")
    return (tensor if rows is None or columns is None else tensor[rows[0] : rows[1]]).to(device)


def _check(module: str, numbers: Tensor, scales: Tensor, zeros: Tensor, how: FourBits) -> None:
    n, k = numbers.shape
    if scales.shape != (k // how.group, n) or zeros.shape != scales.shape or k % how.group:
        raise UserError(f"{module} has other sizes than its groups of {how.group} promise. Fetch the model again.")
