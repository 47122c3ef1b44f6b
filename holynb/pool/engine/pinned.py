"""Pinned host memory for asynchronous copies: integers to a device, tokens back, in buffers that no step in flight needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["PinnedBuffers"]


class PinnedBuffers:
    """A ring of `count` buffer sets: `size` int32 to send and `tokens` to read back. Pinned if `like` is on a GPU: copies do not block."""

    def __init__(self, size: int, tokens: int, count: int, like: Tensor) -> None:
        def allocate(length: int) -> list[Tensor]:
            return [torch.zeros(length, dtype=torch.int32, pin_memory=like.is_cuda) for _ in range(count)]

        self._out, self._tokens = allocate(size), allocate(tokens)
        self._staging = torch.zeros(size, dtype=torch.int32, device=like.device)
        self._current = self._used = 0

    def begin_step(self) -> Tensor:
        """Switch to the next set; returns the buffer that the step's tokens are read back into."""
        self._current, self._used = (self._current + 1) % len(self._out), 0
        return self._tokens[self._current]

    def send(self, values: np.ndarray[Any, Any], target: Tensor) -> None:
        """Copy integers to the start of `target`, without waiting."""
        flat = np.ascontiguousarray(values, np.int32).reshape(-1)
        host = self._out[self._current][self._used : self._used + flat.size]
        self._used += flat.size
        host.numpy()[:] = flat
        target.view(-1)[: flat.size].copy_(host, non_blocking=True)

    def send_table(self, table: np.ndarray[Any, Any], target: Tensor) -> None:
        """Copy (rows, columns) into the upper left of a wider `target`, without waiting."""
        rows, columns = table.shape
        self.send(table, self._staging)
        target[:rows, :columns].copy_(self._staging[: rows * columns].view(rows, columns))
