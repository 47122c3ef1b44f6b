"""Memory on each device of a tensor group that the others can read: torch's symmetric memory, where the devices reach each other."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor, distributed

from kernels_support.gpu.allreduce_norm import FLAG_COUNT, Peers
from kernels_support.gpu.lang import HAS_TRITON

__all__ = ["SymmetricMemory", "readable"]


def readable(group: distributed.ProcessGroup, device: str) -> bool:
    """Whether this rank's device can read all the others' memory. All ranks of the group must ask."""
    mine = -1 if device == "cpu" else int(torch.device(device).index)
    said = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(said, torch.tensor([mine]), group=group)
    others = [int(s.item()) for s in said]
    # One device for two ranks, as tests have it, or a driver told to keep devices apart: NCCL finds its own way.
    if mine < 0 or not HAS_TRITON or len(set(others)) < len(others) or os.environ.get("NCCL_P2P_DISABLE") == "1":
        return False
    return all(torch.cuda.can_device_access_peer(mine, other) for other in others if other != mine)


class SymmetricMemory:
    """`rooms`: (rooms, rows, width) that every rank of the group can read. All ranks make it at once, and none uses it before all have it.

    Raises RuntimeError where the driver refuses.
    """

    def __init__(self, group: distributed.ProcessGroup, device: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        self._dtype, self._shape = dtype, shape
        self._room = math.prod(shape[1:]) * dtype.itemsize
        self._memory, addresses = self._map(group, 4 * FLAG_COUNT + shape[0] * self._room, device)
        self.peers = Peers(torch.tensor(addresses, dtype=torch.int64, device=device), distributed.get_rank(group), len(addresses))
        if self._memory.is_cuda:
            torch.cuda.synchronize()
        self._places = {self.room(i, 1).data_ptr(): 4 * FLAG_COUNT + i * self._room for i in range(shape[0])}

    def _map(self, group: distributed.ProcessGroup, size: int, device: str) -> tuple[Tensor, list[int]]:
        """So many zero bytes of this rank's, and where each rank's lie as this one sees them."""
        import torch.distributed._symmetric_memory as symmetric

        memory: Tensor = symmetric.empty(size, dtype=torch.uint8, device=torch.device(device))
        memory.zero_()
        self._handle = symmetric.rendezvous(memory, group)
        return memory, list(self._handle.buffer_ptrs)

    def room(self, which: int, rows: int) -> Tensor:
        """(rows, width), at the beginning of one room."""
        begin, width = 4 * FLAG_COUNT + which * self._room, self._shape[2]
        found: Tensor = self._memory[begin : begin + rows * width * self._dtype.itemsize].view(self._dtype).view(rows, width)
        return found

    @property
    def rows(self) -> int:
        """The most that a room holds."""
        return self._shape[1]

    def place(self, part: Tensor) -> int | None:
        """How many bytes into the memory this tensor begins; None where it is not the beginning of a room."""
        return self._places.get(part.data_ptr())
