"""A step through the model in plain torch, nothing captured: what the CPU runs. Knows tensors and steps, no schedule."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from holynb.pool.engine.model import Decoder, Pass
from holynb.pool.engine.pipeline import Alone
from holynb.pool.engine.sample import choose
from holynb.pool.engine.sequence import PrefillChunk, Step
from kernels_support.gpu.attention import Span, attend_reference, causal, runs

__all__ = ["Eager", "part_of"]


def part_of(rows: list[PrefillChunk], size: int, group: int, like: Tensor) -> Pass:
    """The tensors of these rows. `size` is a block's, `group` the query heads to a KV head, `like` has dtype and device."""
    ids: list[int] = []
    positions: list[Tensor] = []
    slots: list[Tensor] = []
    spans: list[Span] = []
    last: list[int] = []
    for row in rows:
        seq, end = row.seq, row.start + row.count
        spans.append(Span(len(ids), len(ids) + row.count, runs(seq.blocks, size, end), causal(row.count, end, group, like.dtype)))
        ids += seq.tokens[row.start : end]
        at = torch.arange(row.start, end)
        blocks = torch.tensor(seq.blocks[row.start // size : (end - 1) // size + 1])
        positions.append(at)
        slots.append(blocks[at // size - row.start // size] * size + at % size)
        if row.samples:
            last.append(len(ids) - 1)
    picked = None if len(last) == len(ids) else torch.tensor(last, dtype=torch.int64)
    return Pass(torch.tensor(ids), torch.cat(positions), torch.cat(slots), partial(attend_reference, spans=spans), picked)


class Eager:
    """Runs steps as they come. Alone, a step's tokens are there when it returns; as a stage, when all stages are through."""

    def __init__(self, model: Decoder, kv: Tensor, block: int, stage: Alone | None = None) -> None:
        self.model, self.kv, self.block, self.stage = model, kv, block, stage or Alone()
        self.ahead = self.stage.ahead
        layer = model.weights.layers[0]
        self._group = layer.out.shape[1] // model.spec.head_dim // kv.shape[2]

    def launch(self, step: Step) -> tuple[list[int] | None, int]:
        """The sampled tokens, in the order of `step.sampled` (None where another stage samples), and how many there are."""
        rows = [PrefillChunk(s, s.cached - 1, 1) for s in step.decode] + step.prefill
        with torch.inference_mode():
            part = part_of(rows, self.block, self._group, self.kv)
            hidden = self.stage.before(len(part.ids))
            with self.stage.working():
                made = self.model.forward(part, self.kv, hidden)
            if not self.stage.last:
                self.stage.after(made)
                return None, len(step.sampled)
            return choose(made, step.sampled) if step.sampled else [], len(step.sampled)

    def warm(self) -> int:
        """Nothing to prepare."""
        return 0

    def forget(self) -> None:
        """A step failed. Nothing is kept from one to the next."""

    def land(self, flight: tuple[list[int] | None, int]) -> list[int]:
        """The tokens of a launched step."""
        found, count = flight
        tokens = torch.zeros(count, dtype=torch.int64) if found is None else torch.tensor(found, dtype=torch.int64)
        if count:
            self.stage.ids(tokens)
        said: list[int] = tokens.tolist()
        return said
