"""What experts' kernels read 16-bit words as: numbers in MXFP4, or packed whole numbers. The same loops serve both."""

from __future__ import annotations

from typing import Any

import torch

from kernels_support.gpu.lang import has_pdl, jit, tl
from kernels_support.gpu.mxfp4_matrix import BLOCK, Mxfp4Matrices
from kernels_support.gpu.mxfp4_words import widened_fp4
from kernels_support.gpu.packed_matrix import PackedMatrix
from kernels_support.gpu.packed_words import native, pieces

__all__ = ["Words", "layout", "read_pieces"]

#: One matrix of each expert in words, with a factor or more for each row and step: `words` (experts, n, …), `factors` (experts, …, n).
Words = Mxfp4Matrices | PackedMatrix


def layout(matrices: Words, dtype: torch.dtype) -> dict[str, Any]:
    """What a kernel is told of it, whose x is of this type. `native`: the device computes pairs (bfloat16 from Hopper on, as `has_pdl`)."""
    if isinstance(matrices, Mxfp4Matrices):
        return {
            "words": matrices.words.shape[2],
            "piece": BLOCK,
            "bits": 4,
            "many": 1,
            "centre": 0,
            "fp4": True,
            "native": dtype == torch.bfloat16 and has_pdl(),
        }
    many = {"piece": matrices.piece, "bits": matrices.bits, "many": matrices.many, "centre": matrices.centre}
    return {"words": matrices.words.shape[2], **many, "fp4": False, "native": native(dtype)}


@jit
def read_pieces(  # noqa: PLR0917 - what a kernel needs
    words: tl.tensor,
    f0: tl.tensor,
    f1: tl.tensor,
    f2: tl.tensor,
    f3: tl.tensor,
    dtype: tl.constexpr,
    bits: tl.constexpr,
    centre: tl.constexpr,
    fp4: tl.constexpr,
    native: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """A tile of words and the factors of its rows, broadcastable → its pieces in `dtype`."""
    if fp4:
        a, b, c, d = widened_fp4(words, tl.broadcast_to(f0, words.shape), dtype, native)
    else:
        a, b, c, d = pieces(words, f0, f1, f2, f3, dtype, bits, centre, native)
    return a, b, c, d
