"""The batch sizes that CUDA graphs are captured for, and kernels compiled for in advance. Numbers only; knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holynb.pool.fit import Spec

__all__ = ["BATCH_SIZES", "CHUNK_SIZES", "MIXED_BATCH_SIZES", "batch_sizes", "sizes_up_to"]

#: Rows of a decode batch and tokens of a prefill that are captured; each takes the next larger size.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256)

#: The same where cuBLAS multiplies large batches: its kernels for 224 rows are slower than for 256 (8B, one H200: 181 and 169 µs a layer).
_LIBRARY_BATCH_SIZES = tuple(size for size in BATCH_SIZES if size != 224)

CHUNK_SIZES = (64, 256, 1024, 2048, 4096, 8192)

#: Rows of a decode batch beside prompt tokens. Few: padding costs next to nothing there, and each pair of sizes has a graph.
MIXED_BATCH_SIZES = (16, 64, 256)


def batch_sizes(spec: Spec) -> Sequence[int]:
    """Those of a model's decode batches. By the whole model, not by a stage's layers: what stages send each other is padded alike."""
    return _LIBRARY_BATCH_SIZES if spec.experts is None and spec.quantization is None else BATCH_SIZES


def sizes_up_to(sizes: Sequence[int], limit: int) -> list[int]:
    """The sizes up to `limit`, which is always one of them."""
    return [size for size in sizes if size < limit] + [limit]
