"""Tensors in pages of 2 MB: matrices that are read from end to end for each token leave what else is running its addresses.

A processor knows some two thousand pages by heart. In pages of 4 kB one token's weights are ten times as many, and after them every
small operation has to look its own up again; in a virtual machine each costs as much as the operation.
"""

from __future__ import annotations

import math
import mmap
import threading
from contextlib import suppress

import torch
from torch import Tensor

__all__ = ["LargePages"]

_PAGE = 2 << 20


class LargePages:
    """Hands out places in regions of `region` bytes, which are given back when the last tensor in them is gone."""

    def __init__(self, region: int = 16 * _PAGE) -> None:
        self._region, self._lock = region, threading.Lock()
        self._memory: mmap.mmap | None = None
        self._used = 0

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of it there, or itself where the system has no such pages."""
        if not hasattr(mmap, "MADV_HUGEPAGE") or not tensor.numel():
            return tensor
        with self._lock:
            memory, at = self._place(tensor.nbytes)
        count = tensor.numel()
        held = torch.frombuffer(memory, dtype=tensor.dtype, count=count, offset=at).view(tensor.shape)
        return held.copy_(tensor)

    def _place(self, size: int) -> tuple[mmap.mmap, int]:
        if self._memory is None or self._used + size > len(self._memory):
            # Private: what is shared comes from a file system in memory, with pages of its own.
            length = max(self._region, math.ceil(size / _PAGE) * _PAGE)
            self._memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._used = 0
            with suppress(OSError):  # a kernel that was built without them: it is memory all the same
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        at = self._used
        self._used += math.ceil(size / 64) * 64
        return self._memory, at
