"""The process group of one replica: hidden states from stage to stage, sampled tokens back, commands from the leader.

Every rank runs the same scheduler over the same jobs, so no plan of a step is sent: only what changed outside (jobs,
cancels), and on a pipeline the sampled tokens. Gloo carries what the host reads, NCCL what the devices do. Never pickle.
"""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from holynb.pool.engine.allreduce import AllReduce
from holynb.pool.engine.model import Collectives
from holynb.pool.engine.symmetric import SymmetricMemory, can_read_peers
from holynb.pool.fit import Mesh, Shard, Spec

__all__ = ["Group"]


class Group:
    """This rank's connections to the others of its replica. Rank 0 leads: only it gets jobs. Raises RuntimeError if a rank is gone."""

    def __init__(self, mesh: Mesh, device: str) -> None:
        # Collectives outside a captured graph never run beside one: NCCL need not pay for that case.
        os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")
        self.mesh, self.device = mesh, device
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, init_method=mesh.address, rank=mesh.rank, world_size=mesh.size, timeout=timedelta(days=30))
        groups = [distributed.new_group([stage * mesh.tensor + i for i in range(mesh.tensor)]) for stage in range(mesh.pipe)]
        self._tensor_group = groups[mesh.stage]
        # Sampled tokens have connections of their own: on those that carry hidden states the other way, each would wait for the other.
        self._token_group = distributed.new_group(list(range(mesh.size))) if mesh.pipe > 1 else None
        self._pending_sends: deque[tuple[Any, Tensor]] = deque()
        if device != "cpu" and mesh.pipe > 1:
            self._connect()

    def _connect(self) -> None:
        """Open all point-to-point connections, in the same order on every rank: a connection is made by both ends at once."""
        mesh, message = self.mesh, torch.zeros(1, device=self.device)
        links = [(stage, stage + 1, None) for stage in range(mesh.pipe - 1)] + [
            (mesh.pipe - 1, stage, self._token_group) for stage in range(mesh.pipe - 1)
        ]
        for source, target, group in links:
            if mesh.stage == source:
                distributed.send(message, target * mesh.tensor + mesh.tensor_rank, group=group)
            elif mesh.stage == target:
                distributed.recv(message, source * mesh.tensor + mesh.tensor_rank, group=group)

    def minimum(self, number: int) -> int:
        """The minimum of `number` over all ranks. A collective."""
        reduced = torch.tensor([number], dtype=torch.int64)
        distributed.all_reduce(reduced, distributed.ReduceOp.MIN)
        return int(reduced.item())

    def collectives(self, spec: Spec, shard: Shard, rows: int, dtype: torch.dtype) -> Collectives | None:
        """The model's tensor-parallel collectives; None without tensor parallelism. Up to `rows` rows are reduced over symmetric memory."""
        if self.mesh.tensor == 1:
            return None
        shared: SymmetricMemory | None = None
        if self.minimum(int(can_read_peers(self._tensor_group, self.device))):
            # A container may forbid what the devices can do: NCCL then reduces everything.
            with suppress(RuntimeError):
                shared = SymmetricMemory(self._tensor_group, self.device, (3, rows, spec.hidden), dtype)
        # Also a barrier: no rank writes to a peer's flags before all of them are zeroed.
        return AllReduce(self._tensor_group, spec, shard, shared if self.minimum(int(shared is not None)) else None)

    def send_commands(self, commands: list[Any]) -> None:
        """Leader: send commands to every other rank, without waiting for them."""
        body = torch.frombuffer(bytearray(json.dumps(commands).encode()), dtype=torch.uint8)
        for rank in range(1, self.mesh.size):
            self._isend(torch.tensor([body.numel()]), rank)
            self._isend(body, rank)

    def receive_commands(self) -> list[Any]:
        """Follower: wait for the leader's next commands."""
        length = torch.zeros(1, dtype=torch.int64)
        distributed.recv(length, 0)
        body = torch.empty(int(length.item()), dtype=torch.uint8)
        distributed.recv(body, 0)
        commands: list[Any] = json.loads(bytes(body.tolist()))
        return commands

    def send_hidden(self, hidden: Tensor) -> None:
        """Send hidden states to the next stage."""
        self._isend(hidden, self.mesh.rank + self.mesh.tensor)

    def receive_hidden(self, hidden: Tensor) -> Tensor:
        """Receive hidden states of the previous stage into `hidden`."""
        distributed.recv(hidden, self.mesh.rank - self.mesh.tensor)
        return hidden

    def send_tokens(self, tokens: Tensor) -> None:
        """Last stage: send sampled tokens from its device to those of all other stages. `tokens` must not be modified afterwards."""
        for stage in range(self.mesh.pipe - 1):
            self._isend(tokens, stage * self.mesh.tensor + self.mesh.tensor_rank, self._token_group)

    def receive_tokens(self, tokens: Tensor) -> None:
        """Other stages: receive the last stage's tokens into `tokens`, device to device."""
        distributed.recv(tokens, (self.mesh.pipe - 1) * self.mesh.tensor + self.mesh.tensor_rank, group=self._token_group)

    def close(self) -> None:
        """Wait for pending sends and leave the group. On GPUs the process should end next, by os._exit."""
        while self._pending_sends:
            self._pending_sends.popleft()[0].wait()
        # NCCL waits for ever for a communicator that a captured graph still holds; the end of the process frees both.
        if self.device == "cpu":
            distributed.destroy_process_group()

    def _isend(self, tensor: Tensor, rank: int, group: Any = None) -> None:
        """Send without waiting; a reference to the tensor is held until it is sent."""
        while self._pending_sends and self._pending_sends[0][0].is_completed():
            self._pending_sends.popleft()
        self._pending_sends.append((distributed.isend(tensor, rank, group=group), tensor))
