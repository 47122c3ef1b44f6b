"""Pairs of FP8 numbers (E4M3) in one 16-bit word: how a kernel reads a cache of eight bits, and widens it in registers.

A tile of bytes has no quick way into a matrix unit's operands where its columns are the product's inner dimension (values): the load that
transposes moves 16 bits at a time. A tile of pairs has, and what comes out of a word are an even column and the odd one beside it. The
processor widens two numbers an instruction, so a pair costs one and a half.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, tl

__all__ = ["as_pairs", "joined", "widened", "widens_in_hardware"]


def as_pairs(cache: torch.Tensor) -> torch.Tensor:
    """(…, size) FP8 → (…, size / 2) int16, a view."""
    return cache.view(torch.int16)


def widens_in_hardware() -> bool:
    """Whether the device has an instruction for it: NVIDIA's Ada and Hopper, and later."""
    return bool(torch.version.cuda) and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


@jit
def widened(pairs: tl.tensor, native: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """int16 → (the low bytes' numbers, the high bytes' numbers), float16."""
    if native:
        # Two words at a time: their low bytes side by side, then their high ones.
        low, high = tl.inline_asm_elementwise(
            "{ .reg .b32 bytes; .reg .b16 low, high; prmt.b32 bytes, $2, 0, 0x3120; mov.b32 {low, high}, bytes; "
            "cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high; }",
            "=r,=r,r",
            [pairs],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
    else:
        low = (pairs & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
        high = ((pairs >> 8) & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    return low, high


@jit
def joined(even: tl.tensor, odd: tl.tensor) -> tl.tensor:
    """(rows, n) of even columns and of odd ones → (rows, 2n)."""
    return tl.reshape(tl.join(even, odd), (even.shape[0], 2 * even.shape[1]))
