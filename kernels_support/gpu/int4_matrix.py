"""Matrices of four bits with a scale and a zero a group of columns: W ≈ (numbers - zeros) · scales, whatever packing a file has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Int4Matrix", "dequantize", "pack"]


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """(n, k) in int16 words (n, k / 4), as `int4_words.py` reads them. `scales` and `zeros` (k / group, n) float32.

    `order`: the columns of x in which W's lie, int64 (k,); None: as they are. (GPTQ's act-order: columns by their group.)
    """

    words: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    order: torch.Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.words.shape[0], self.words.shape[1] * 4))

    @property
    def groups(self) -> tuple[int, int]:
        """How many groups of columns share a scale, and of how many columns."""
        return self.scales.shape[0], self.shape[1] // self.scales.shape[0]

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.scales.nbytes + self.zeros.nbytes + (0 if self.order is None else self.order.nbytes)


def pack(numbers: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, order: torch.Tensor | None = None) -> Int4Matrix:
    """(n, k) of 0 to 15, and (k / group, n) → words."""
    n, k = numbers.shape
    quarters = numbers.view(n, scales.shape[0], 4, -1).int()
    words = quarters[:, :, 0] | quarters[:, :, 1] << 4 | quarters[:, :, 2] << 8 | quarters[:, :, 3] << 12
    return Int4Matrix(words.to(torch.int16).view(n, k // 4), scales.float().contiguous(), zeros.float().contiguous(), order)


def dequantize(matrix: Int4Matrix, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """W, its columns in the order of x's."""
    (n, k), groups = matrix.shape, matrix.scales.shape[0]
    words = matrix.words.view(n, groups, 1, -1).int()
    shifts = torch.arange(0, 16, 4, device=words.device, dtype=torch.int32)[:, None]
    numbers = ((words >> shifts) & 15).view(n, groups, -1) - matrix.zeros.t()[..., None].int()
    wide = (numbers.to(torch.float32) * matrix.scales.t()[..., None].float()).view(n, k).to(dtype)
    if matrix.order is None:
        return wide
    out = torch.empty_like(wide)
    out[:, matrix.order] = wide
    return out
