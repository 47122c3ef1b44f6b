"""Host memory that a device reads and writes by itself: integers out to it, tokens back, each step in buffers that no step under way still needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Pinned"]


class Pinned:
    """`turns` sets of buffers, used one after the other: `size` integers to send and `back` to hear. Pinned where `like` is on a GPU, so that copies wait for nobody."""

    def __init__(self, size: int, back: int, turns: int, like: Tensor) -> None:
        def made(count: int) -> list[Tensor]:
            return [torch.zeros(count, dtype=torch.int32, pin_memory=like.is_cuda) for _ in range(turns)]

        self._out, self._back, self._staging = made(size), made(back), torch.zeros(size, dtype=torch.int32, device=like.device)
        self._turn = self._used = 0

    def turn(self) -> Tensor:
        """Begin a step; returns the buffer that its tokens come back to."""
        self._turn, self._used = (self._turn + 1) % len(self._out), 0
        return self._back[self._turn]

    def send(self, values: np.ndarray[Any, Any], target: Tensor) -> None:
        """Integers into the beginning of `target`."""
        flat = np.ascontiguousarray(values, np.int32).reshape(-1)
        host = self._out[self._turn][self._used : self._used + flat.size]
        self._used += flat.size
        host.numpy()[:] = flat
        target.view(-1)[: flat.size].copy_(host, non_blocking=True)

    def send_table(self, table: np.ndarray[Any, Any], target: Tensor) -> None:
        """(rows, columns) into the upper left of a wider `target`."""
        rows, columns = table.shape
        self.send(table, self._staging)
        target[:rows, :columns].copy_(self._staging[: rows * columns].view(rows, columns))
