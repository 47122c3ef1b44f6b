"""Ranks of one replica talking: who they are to each other, hidden states from stage to stage, news from the leader.

Every rank runs the same scheduler over the same jobs, so a step needs no plan sent around: only what changed outside (jobs,
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
from holynb.pool.engine.model import Joins
from holynb.pool.engine.symmetric import SymmetricMemory, readable
from holynb.pool.fit import Cut, Mesh, Spec

__all__ = ["Group"]


class Group:
    """This rank among those of its replica. Rank 0 leads: it alone is told of jobs. Raises RuntimeError where another rank is gone."""

    def __init__(self, mesh: Mesh, device: str) -> None:
        # Collectives outside a captured graph never run beside one: NCCL need not pay for that case.
        os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")
        self.mesh, self.device = mesh, device
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, init_method=mesh.address, rank=mesh.rank, world_size=mesh.size, timeout=timedelta(days=30))
        every = [distributed.new_group([stage * mesh.tensor + i for i in range(mesh.tensor)]) for stage in range(mesh.pipe)]
        self._tensor = every[mesh.stage]
        # Sampled tokens have connections of their own: on the one that carries hidden states the other way they would wait for those, and those for them.
        self._home = distributed.new_group(list(range(mesh.size))) if mesh.pipe > 1 else None
        self._sent: deque[tuple[Any, Tensor]] = deque()
        if device != "cpu" and mesh.pipe > 1:
            self._connect()

    def _connect(self) -> None:
        """Meet each rank that tokens and hidden states go to or come from, in the same order everywhere: a connection is made by both ends at once."""
        mesh, one = self.mesh, torch.zeros(1, device=self.device)
        ways = [(stage, stage + 1, None) for stage in range(mesh.pipe - 1)] + [
            (mesh.pipe - 1, stage, self._home) for stage in range(mesh.pipe - 1)
        ]
        for source, target, group in ways:
            if mesh.stage == source:
                distributed.send(one, target * mesh.tensor + mesh.slice, group=group)
            elif mesh.stage == target:
                distributed.recv(one, source * mesh.tensor + mesh.slice, group=group)

    def least(self, number: int) -> int:
        """The smallest of what the ranks say."""
        said = torch.tensor([number], dtype=torch.int64)
        distributed.all_reduce(said, distributed.ReduceOp.MIN)
        return int(said.item())

    def joins(self, spec: Spec, cut: Cut, rows: int, dtype: torch.dtype) -> Joins | None:
        """What the model does where its share meets the others' (None: it has no others). `rows` at most are summed by reading the peers' memory."""
        if self.mesh.tensor == 1:
            return None
        shared: SymmetricMemory | None = None
        if self.least(int(readable(self._tensor, self.device))):
            # A container may forbid what the devices can do: the library then sums everything.
            with suppress(RuntimeError):
                shared = SymmetricMemory(self._tensor, self.device, (3, rows, spec.hidden), dtype)
        # Also a barrier: nobody writes to a peer's flags before all of them are down.
        return AllReduce(self._tensor, spec, cut, shared if self.least(int(shared is not None)) else None)

    def tell(self, news: list[Any]) -> None:
        """Leader: say what changed, to every other rank, without waiting for them."""
        body = torch.frombuffer(bytearray(json.dumps(news).encode()), dtype=torch.uint8)
        for rank in range(1, self.mesh.size):
            self._post(torch.tensor([body.numel()]), rank)
            self._post(body, rank)

    def hear(self) -> list[Any]:
        """Follower: wait for the leader's word."""
        length = torch.zeros(1, dtype=torch.int64)
        distributed.recv(length, 0)
        body = torch.empty(int(length.item()), dtype=torch.uint8)
        distributed.recv(body, 0)
        news: list[Any] = json.loads(bytes(body.tolist()))
        return news

    def pass_on(self, hidden: Tensor) -> None:
        """Hidden states to the next stage."""
        self._post(hidden, self.mesh.rank + self.mesh.tensor)

    def take_over(self, hidden: Tensor) -> Tensor:
        """Hidden states from the stage before, into `hidden`."""
        distributed.recv(hidden, self.mesh.rank - self.mesh.tensor)
        return hidden

    def send_home(self, tokens: Tensor) -> None:
        """Last stage: sampled tokens from its device to those of all stages before. `tokens` must stay as they are."""
        for stage in range(self.mesh.pipe - 1):
            self._post(tokens, stage * self.mesh.tensor + self.mesh.slice, self._home)

    def come_home(self, tokens: Tensor) -> None:
        """Another stage: tokens from the last one's device, into `tokens`."""
        distributed.recv(tokens, (self.mesh.pipe - 1) * self.mesh.tensor + self.mesh.slice, group=self._home)

    def close(self) -> None:
        """Leave the group, once what was posted is gone. On GPUs the process should end next, by os._exit."""
        while self._sent:
            self._sent.popleft()[0].wait()
        # NCCL waits for ever for a communicator that a captured graph still holds; the end of the process frees both.
        if self.device == "cpu":
            distributed.destroy_process_group()

    def _post(self, what: Tensor, rank: int, group: Any = None) -> None:
        """Send without waiting; what is sent is kept until it is gone."""
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()
        self._sent.append((distributed.isend(what, rank, group=group), what))
