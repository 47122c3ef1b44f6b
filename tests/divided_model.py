"""A model of several ranks in this process: its logits, beside those of transformers' own."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from holynb.pool.engine import allreduce
from holynb.pool.engine.cache import allocate_kv
from holynb.pool.engine.eager import forward_batch
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.model import Decoder
from holynb.pool.engine.sequence import PrefillChunk, Seq
from holynb.pool.fit import Mesh, read_spec
from holynb.pool.protocol import Job

PROMPTS = tiny.prompts(3, longest=110)
BLOCK = 16


def logits(theirs: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return theirs(torch.tensor([ids])).logits[0]


def likeliest(theirs: Any, prompt: list[int], said: list[int]) -> list[int]:
    """The token that each of `said` should be, after those before it: one pass, as good as one a token."""
    made: list[int] = logits(theirs, [*prompt, *said])[len(prompt) - 1 : -1].argmax(-1).tolist()
    return made


class Ranks:
    """The collectives of ranks that are threads of this process."""

    def __init__(self, count: int) -> None:
        self._barrier, self._parts, self._of = threading.Barrier(count), [torch.empty(0)] * count, threading.local()

    def run(self, forwards: list[Any]) -> list[Any]:
        """What each rank gives."""
        out: list[Any] = [None] * len(forwards)

        def work(rank: int) -> None:
            self._of.rank = rank
            with torch.inference_mode():
                out[rank] = forwards[rank]()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(forwards))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return out

    def _exchanged(self, x: Any) -> list[Any]:
        self._parts[self._of.rank] = x.clone()
        self._barrier.wait(30)
        parts = list(self._parts)
        self._barrier.wait(30)
        return parts

    def all_reduce(self, x: Any, group: Any = None) -> None:
        x.copy_(sum(self._exchanged(x)))

    def gather(self, out: Any, x: Any, group: Any = None) -> None:
        out.copy_(torch.cat(self._exchanged(x)))

    def get_world_size(self, group: Any) -> int:
        return len(self._parts)


def divided(folder: Path, ids: list[int], tensor: int, pipe: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Logits of a prompt, by so many ranks."""
    spec, ranks = read_spec(folder), Ranks(tensor)
    monkeypatch.setattr(allreduce, "distributed", ranks)
    monkeypatch.setattr(allreduce, "_gather", ranks.gather)
    hidden: list[Any] = [None] * tensor
    for stage in range(pipe):
        work = []
        for rank in range(tensor):
            shard = Mesh(tensor, pipe, stage * tensor + rank).shard(spec)
            with open_safetensors(folder) as source:
                weights = load(spec, shard, source, "cpu", torch.float32)
            together = allreduce.AllReduce(None, spec, shard, None) if tensor > 1 else None  # type: ignore[arg-type]
            made, kv_heads = Decoder(spec, weights, len(ids), together), shard.kv_heads[1] - shard.kv_heads[0]
            kv = allocate_kv((len(weights.layers), kv_heads, 160, spec.head_dim), torch.float32, "cpu")
            seq = Seq(Job(0, tuple(ids), 1))
            seq.tables = [list(range(9, -1, -1))]
            group = (shard.heads[1] - shard.heads[0]) // kv_heads
            batch = forward_batch([PrefillChunk(seq, 0, len(ids), scored=True)], BLOCK, group, torch.float32, made.windows)
            work.append(partial(made.forward, batch, kv, hidden[rank]))
        hidden = ranks.run(work)
    return hidden[0]
