"""Buffers on each device of a tensor-parallel group that its peers can read: torch's symmetric memory, if the devices have peer access."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor, distributed

from kernels_support.gpu.allreduce_norm import FLAG_COUNT, Peers
from kernels_support.gpu.lang import HAS_TRITON

__all__ = ["SymmetricMemory", "can_read_peers"]


def can_read_peers(group: distributed.ProcessGroup, device: str) -> bool:
    """Whether this rank's device can read the memory of all its peers. A collective: all ranks of the group must call it."""
    own = -1 if device == "cpu" else int(torch.device(device).index)
    gathered = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(gathered, torch.tensor([own]), group=group)
    devices = [int(index.item()) for index in gathered]
    # Two ranks on one device, as tests have it, or peer access that is turned off: NCCL finds its own way.
    if own < 0 or not HAS_TRITON or len(set(devices)) < len(devices) or os.environ.get("NCCL_P2P_DISABLE") == "1":
        return False
    return all(torch.cuda.can_device_access_peer(own, peer) for peer in devices if peer != own)


class SymmetricMemory:
    """Buffers of `shape` (buffers, rows, width) that every rank of the group can read; the flags of `Peers` lie before them.

    Constructed by all ranks together; none may use it before all have it. Raises RuntimeError if the driver refuses.
    """

    def __init__(self, group: distributed.ProcessGroup, device: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        self._dtype, self._shape = dtype, shape
        self._buffer_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._memory, addresses = self._map(group, 4 * FLAG_COUNT + shape[0] * self._buffer_bytes, device)
        self.peers = Peers(torch.tensor(addresses, dtype=torch.int64, device=device), distributed.get_rank(group), len(addresses))
        if self._memory.is_cuda:
            torch.cuda.synchronize()
        self._offsets = {self.buffer(i, 1).data_ptr(): 4 * FLAG_COUNT + i * self._buffer_bytes for i in range(shape[0])}

    def _map(self, group: distributed.ProcessGroup, size: int, device: str) -> tuple[Tensor, list[int]]:
        """`size` zeroed bytes of this rank, and the addresses of every rank's bytes as this one sees them."""
        import torch.distributed._symmetric_memory as symmetric

        memory: Tensor = symmetric.empty(size, dtype=torch.uint8, device=torch.device(device))
        memory.zero_()
        self._handle = symmetric.rendezvous(memory, group)
        return memory, list(self._handle.buffer_ptrs)

    def buffer(self, index: int, rows: int) -> Tensor:
        """(rows, width), at the start of one buffer."""
        begin, width = 4 * FLAG_COUNT + index * self._buffer_bytes, self._shape[2]
        view: Tensor = self._memory[begin : begin + rows * width * self._dtype.itemsize].view(self._dtype).view(rows, width)
        return view

    @property
    def rows(self) -> int:
        """Rows of a buffer."""
        return self._shape[1]

    def offset(self, part: Tensor) -> int | None:
        """Offset of this tensor in the memory, in bytes; None if it does not start at the start of a buffer."""
        return self._offsets.get(part.data_ptr())
