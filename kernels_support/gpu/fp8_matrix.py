"""Matrices of FP8 numbers (E4M3) with float32 scales, from plain ones or from a checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.cpu.grouped import GroupedMatrix
from kernels_support.gpu.int4_matrix import Int4Matrix
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.quantize_fp8 import FP8, FP8_MAX, SMALLEST_SCALE, Quantized, quantize_fp8

__all__ = ["BLOCK", "Fp8Matrices", "Fp8Matrix", "Matrix", "dequantize", "quantize_matrix", "supports_fp8"]

#: Rows and columns of a matrix that share a scale, and columns of what it is multiplied by: DeepSeek's and Qwen's blocks.
BLOCK = 128


@dataclass(frozen=True, slots=True)
class Fp8Matrix:
    """W ≈ values · scale, (n, k). `scale`: float32 (n,), or (n / 128, k / 128) of blocks.

    How x is quantized: `x_scale` is one for every x, known before; None: a scale a row of x, or of 128 columns of it where W has blocks.
    `x_most`: larger magnitudes of x are cut off.
    """

    values: torch.Tensor
    scale: torch.Tensor
    x_scale: torch.Tensor | None = None
    x_most: float | None = None

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def blocks(self) -> bool:
        return self.scale.dim() == 2

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    @property
    def group(self) -> int | None:
        """Columns of x that share a scale; None: all of them."""
        return BLOCK if self.blocks else None

    @property
    def plain(self) -> bool:
        """Whether the scales of x follow from x alone, so that whatever computes x can quantize it, too."""
        return self.x_scale is None and self.x_most is None

    @property
    def by_row(self) -> bool:
        """Whether a factor needs a scale a row, which follows from it alone."""
        return self.plain and not self.blocks

    def quantized(self, x: torch.Tensor | Quantized) -> Quantized:
        """A factor of this matrix in eight bits."""
        return x if isinstance(x, Quantized) else quantize_fp8(x, group=self.group, scale=self.x_scale, most=self.x_most)


@dataclass(frozen=True, slots=True)
class Fp8Matrices:
    """One matrix of each expert: values (experts, n, k), `scale` float32 (experts, n), or of blocks (experts, n / 128, k / 128).

    `x_scale` and `x_most` as of `Fp8Matrix`, the same for all experts.
    """

    values: torch.Tensor
    scale: torch.Tensor
    x_scale: torch.Tensor | None = None
    x_most: float | None = None

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def blocks(self) -> bool:
        return self.scale.dim() == 3

    @property
    def plain(self) -> bool:
        """As of `Fp8Matrix`."""
        return self.x_scale is None and self.x_most is None

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    def __getitem__(self, expert: int) -> Fp8Matrix:
        return Fp8Matrix(self.values[expert], self.scale[expert], self.x_scale, self.x_most)

    def quantized(self, x: torch.Tensor) -> Quantized:
        """A factor of these matrices in eight bits."""
        return quantize_fp8(x, group=BLOCK if self.blocks else None, scale=self.x_scale, most=self.x_most)


#: What a product takes.
Matrix = torch.Tensor | Fp8Matrix | Int4Matrix | PackedMatrix | GroupedMatrix


def supports_fp8(device: str) -> bool:
    """Whether the device multiplies FP8 numbers: NVIDIA's Ada and Hopper, and later."""
    return device != "cpu" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 9)


def quantize_matrix(weight: torch.Tensor) -> Fp8Matrix:
    """(n, k) → FP8 with a scale a row."""
    scale = (weight.abs().amax(1).float() / FP8_MAX).clamp(min=SMALLEST_SCALE)
    values = torch.empty(weight.shape, dtype=FP8, device=weight.device)
    for first in range(0, weight.shape[0], 4096):  # in pieces: the float32 copy of a whole one would be four times its bytes
        rows = slice(first, first + 4096)
        values[rows] = (weight[rows].float() / scale[rows, None]).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    return Fp8Matrix(values, scale)


def dequantize(matrix: Fp8Matrix) -> torch.Tensor:
    """W in float32."""
    if not matrix.blocks:
        return matrix.values.float() * matrix.scale[:, None]
    n, k = matrix.shape
    return matrix.values.float() * matrix.scale.repeat_interleave(BLOCK, 0)[:n].repeat_interleave(BLOCK, 1)[:, :k]
