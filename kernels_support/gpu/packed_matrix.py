"""Matrices of four or eight bits with a scale for each group of columns, as kernels read them: W = scale · (number + centre) + zero.

What files have of them (GGUF's kinds, AWQ, GPTQ, W4A16) becomes this one form; nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PackedMatrix", "dequantize", "pack", "rows_of", "stacked"]

#: Columns of a piece at most: what a product takes at a time.
_PIECE = 32

#: Rows that are packed at a time: their numbers lie in two bytes each meanwhile.
_ROWS = 8192


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """(n, k), or (experts, n, k): `words` int16 (…, n, steps · piece), as `packed_words.py` reads them. k is filled up with zeros.

    A step is `piece` words, of which each has one number of every piece. `factors` (…, steps · groups of a step, n) are scales alone
    (float32), or a scale and a zero: two float16 in an int32, or two float32 in an int64, the scale in the lower half.
    `dtype`: what rows are looked up in.
    """

    words: torch.Tensor
    factors: torch.Tensor
    bits: int
    group: int
    centre: int
    columns: int
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.words.shape[:-1], self.columns))

    @property
    def each(self) -> int:
        """Numbers of a word, and pieces of a step."""
        return 16 // self.bits

    @property
    def piece(self) -> int:
        """Columns of a piece."""
        return min(self.group, _PIECE)

    @property
    def step(self) -> int:
        """Columns of a step."""
        return self.each * self.piece

    @property
    def many(self) -> int:
        """Groups of a step."""
        return self.step // self.group

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.factors.nbytes


def pack(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, centre: int = 0, *, half: bool = True
) -> PackedMatrix:
    """`values`: int8 (n, k) around 0, of four bits -8 to 7; `scale` and `zero`: (n, k / group).

    `half`: both are kept in float16 where that is exact.
    """
    (n, k), groups = values.shape, scale.shape[1]
    group, each = k // groups, 16 // bits
    piece = min(group, _PIECE)
    step = each * piece
    if k % group or step % group or group not in (16, 32, 64, 128):
        raise ValueError(f"{groups} groups for {k} columns of {bits} bits")
    steps = -(-k // step)
    words = torch.empty(n, steps * piece, dtype=torch.int16, device=values.device)
    for first in range(0, n, _ROWS):
        some = values[first : first + _ROWS]
        pieces = torch.nn.functional.pad(some, (0, steps * step - k)).view(len(some), steps, each, piece).to(torch.int16)
        # Four bits are stored from 0 on, eight as they are.
        pieces = pieces + 8 if bits == 4 else pieces & 255
        packed = pieces[:, :, 0].clone()
        for i in range(1, each):
            packed |= pieces[:, :, i] << bits * i
        words[first : first + _ROWS] = packed.view(len(some), -1)
    factors = _factors(scale, zero, half=half)
    factors = torch.nn.functional.pad(factors, (0, steps * (step // group) - groups)).t().contiguous()
    return PackedMatrix(words, factors, bits, group, centre, k)


def _factors(scale: torch.Tensor, zero: torch.Tensor | None, *, half: bool) -> torch.Tensor:
    """(n, groups) float32, or both of a group in an int32 where float16 has them, else in an int64."""
    scale = scale.float()
    if zero is None:
        return scale.contiguous()
    both = torch.stack((scale, zero.float()), -1)
    short = both.half()
    return short.view(torch.int32)[..., 0] if half and torch.equal(short.float(), both) else both.view(torch.int64)[..., 0]


def stacked(matrix: PackedMatrix, experts: int) -> PackedMatrix:
    """One matrix of all experts' rows → one matrix of each."""
    words, factors = matrix.words.view(experts, -1, matrix.words.shape[1]), matrix.factors
    factors = factors.view(len(factors), experts, -1).transpose(0, 1).contiguous()
    return PackedMatrix(words, factors, matrix.bits, matrix.group, matrix.centre, matrix.columns)


def rows_of(matrix: PackedMatrix, rows: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Some rows of an (n, k), plain."""
    return _wide(matrix, matrix.words[rows], matrix.factors[:, rows]).to(dtype)


def dequantize(matrix: PackedMatrix, dtype: torch.dtype = torch.float32, expert: int | None = None) -> torch.Tensor:
    """W (n, k), or one expert's."""
    words, factors = (matrix.words, matrix.factors) if expert is None else (matrix.words[expert], matrix.factors[expert])
    return _wide(matrix, words, factors).to(dtype)


def _wide(matrix: PackedMatrix, words: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    n, each, bits = words.shape[0], matrix.each, matrix.bits
    shifts = torch.arange(0, 16, bits, dtype=torch.int32, device=words.device)[:, None]
    numbers = (words.view(n, -1, 1, matrix.piece).int() >> shifts) & ((1 << bits) - 1)
    numbers = numbers - 8 if bits == 4 else numbers - ((numbers & 128) << 1)
    numbers = numbers.view(n, -1, each * matrix.piece // matrix.many).float()
    factors = factors.t()[..., None].contiguous()
    if factors.dtype == torch.float32:
        wide = numbers * factors
    else:
        both = factors.view(torch.float16 if factors.dtype == torch.int32 else torch.float32).float()
        # As a file says it: one product and one sum.
        wide = (numbers + matrix.centre) * both[..., :1] + both[..., 1:]
    return wide.view(n, -1)[:, : matrix.columns]
