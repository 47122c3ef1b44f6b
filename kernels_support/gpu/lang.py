"""Triton where it is installed, and nothing in its place where not, so that the plain torch side of each kernel imports everywhere."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["HAS_TRITON", "jit", "on_device", "tl", "triton"]

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

HAS_TRITON = triton is not None


def jit(function: Any) -> Any:
    """`triton.jit`; without Triton the kernel stays as it stands, and nobody launches it."""
    return triton.jit(function) if HAS_TRITON else function


def on_device(x: torch.Tensor) -> bool:
    """Whether this tensor is for the Triton side."""
    return HAS_TRITON and x.is_cuda
