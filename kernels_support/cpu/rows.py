"""What is done to few rows between two products, by code of ours: `row_code.py` as functions of tensors of float32 on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels_support.cpu import row_code
from kernels_support.cpu.machine_code import lanes

__all__ = ["add_rms_norm", "rotate_and_store", "silu_mul", "takes"]

#: Rows up to which one thread of ours is faster than torch's several.
FEW = 16


def takes(x: Tensor, *sizes: int) -> bool:
    """Whether this code runs here, is for these rows, and takes these sizes of theirs."""
    if not x.is_cpu or not lanes() or x.dtype != torch.float32 or (x.shape[0] > FEW and torch.get_num_threads() > 1) or not x.shape[0]:
        return False
    return all(size % 8 == 0 for size in sizes)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(norm of the sum, sum) of x and residual (tokens, hidden); without one x itself is the sum."""
    x, out = x.contiguous(), torch.empty(x.shape)
    total = x if residual is None else torch.empty(x.shape)
    residual = x if residual is None else residual.contiguous()
    function = row_code.rms_norm(x.shape[1], eps, adds=total is not x)
    function(x.shape[0], x.data_ptr(), residual.data_ptr(), weight.data_ptr(), out.data_ptr(), total.data_ptr())
    return out, total


def silu_mul(gate_up: Tensor) -> Tensor:
    """(tokens, 2 × inner) → (tokens, inner)."""
    gate_up, (rows, columns) = gate_up.contiguous(), gate_up.shape
    out = torch.empty(rows, columns // 2)
    row_code.silu_mul(columns // 2)(rows, gate_up.data_ptr(), out.data_ptr())
    return out


def rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv: Tensor, sizes: tuple[int, int, int, int], rope: Tensor, slots: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Queries (tokens, heads, size); keys and values into a cache of float32, whose tokens' elements are neighbours. `sizes`: heads,
    KV heads, size of one, of it rotated. Every slot (int64) is written.
    """
    heads, kv, size, rotated = sizes
    qkv, rope, slots = qkv.contiguous(), rope.contiguous(), slots.contiguous()
    out = torch.empty(qkv.shape[0], heads, size)
    row_code.rotary(heads, kv, size, rotated)(
        qkv.shape[0], qkv.data_ptr(), rope.data_ptr(), out.data_ptr(), keys.data_ptr(), values.data_ptr(), slots.data_ptr(),
        4 * keys.stride(0), 4 * rope.shape[1],
    )  # fmt: skip
    return out
