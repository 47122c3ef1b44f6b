"""Experts' matrices in MXFP4 (OCP Microscaling Formats 1.0): FP4 numbers (E2M1), a block of 32 columns shares a power of two as scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

__all__ = ["BLOCK", "GROUP", "MOST_EXPONENT", "Mxfp4Matrices", "dequantize", "packed"]

#: Columns that share a scale, and those whose numbers share words.
BLOCK, GROUP = 32, 128

#: The largest exponent of a scale (E8M0, counted from -127) that kernels take: times 2¹²⁶ it is still a bfloat16. Its numbers reach 12.
MOST_EXPONENT = 128

#: Magnitudes of E2M1.
_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True, slots=True)
class Mxfp4Matrices:
    """(experts, n, k) in int16 words (experts, n, k / 4), as `mxfp4_words.py` reads them, and the exponents of each group's four blocks in
    an int32, (experts, k / 128, n). k is filled up with zeros; `columns` are there.
    """

    words: torch.Tensor
    scales: torch.Tensor
    columns: int

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.words.shape[:2], self.columns))

    @property
    def factors(self) -> torch.Tensor:
        """What a kernel reads beside the words, as of `PackedMatrix`."""
        return self.scales

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.scales.nbytes


def packed(blocks: torch.Tensor, scales: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words and scales of what files hold: blocks (…, n, k / 32, 16) uint8, the lower four bits before the upper, scales (…, n, k / 32)."""
    missing = -blocks.shape[-2] % (GROUP // BLOCK)
    if missing:
        blocks = torch.nn.functional.pad(blocks, (0, 0, 0, missing))
        scales = torch.nn.functional.pad(scales, (0, missing))
    codes = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    codes.flatten(-2)[..., columns:] = 0
    a, b, c, d = codes.int().unflatten(-2, (-1, 4)).unbind(-2)
    words = (a & 8) << 12 | (a & 7) << 6 | (b & 8) << 9 | (b & 7) << 3 | (c & 8) << 6 | (c & 7)
    words |= (d & 8) << 11 | (d & 6) << 9 | (d & 1) << 13
    exponents = scales.contiguous().view(torch.int32) if scales.shape[-1] else scales.int()
    return words.to(torch.int16).flatten(-2), exponents.transpose(-1, -2).contiguous()


def dequantize(matrices: Mxfp4Matrices, expert: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One expert's (n, k), plain."""
    words, scales = matrices.words[expert], matrices.scales[expert]
    wide = torch.nn.functional.embedding(words.int() & 0xFFFF, _table(words.device))
    shifts = torch.arange(0, 32, 8, dtype=torch.int32, device=words.device)
    exponents = ((scales.t()[:, :, None, None] >> shifts) & 255) - 127
    wide = wide.view(words.shape[0], -1, GROUP // 4, 4) * torch.ldexp(torch.ones_like(exponents, dtype=torch.float32), exponents)
    return wide.transpose(2, 3).flatten(1)[:, : matrices.columns].to(dtype).contiguous()


@cache
def _table(device: torch.device) -> torch.Tensor:
    """The four numbers of every word: (65,536, 4) float32."""
    words = torch.arange(1 << 16, dtype=torch.int32, device=device)
    last = (words >> 11) & 8 | (words >> 9) & 6 | (words >> 13) & 1
    codes = torch.stack([(words >> 12) & 8 | (words >> 6) & 7, (words >> 9) & 8 | (words >> 3) & 7, (words >> 6) & 8 | words & 7, last], -1)
    values = torch.tensor([*_VALUES, *(-v for v in _VALUES)], device=device)
    return values[codes.long()]
