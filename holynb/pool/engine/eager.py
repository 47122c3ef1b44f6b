"""The step executor in plain torch, without graphs or kernels of ours: what a CPU runs. Knows tensors and steps, no schedule."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from holynb.pool.engine.model import Decoder, ForwardBatch
from holynb.pool.engine.pipeline import SingleStage
from holynb.pool.engine.sample import sample_tokens
from holynb.pool.engine.sequence import PrefillChunk, Step
from kernels_support.gpu.attention import Span, attend_reference, causal, runs

__all__ = ["EagerExecutor", "forward_batch"]


def forward_batch(rows: list[PrefillChunk], size: int, group: int, like: Tensor) -> ForwardBatch:
    """The tensors of these chunks. `size`: tokens of a block; `group`: query heads per KV head; `like` has the dtype."""
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
    return ForwardBatch(torch.tensor(ids), torch.cat(positions), torch.cat(slots), partial(attend_reference, spans=spans), picked)


class EagerExecutor:
    """Runs each step when it is launched. On a pipeline its tokens are known only once the last stage has run it."""

    def __init__(self, model: Decoder, kv: Tensor, block: int, stage: SingleStage | None = None) -> None:
        self.model, self.kv, self.block, self.stage = model, kv, block, stage or SingleStage()
        self.lookahead = self.stage.lookahead
        layer = model.weights.layers[0]
        self._group = layer.out.shape[1] // model.spec.head_dim // kv.shape[2]

    def launch(self, step: Step) -> tuple[list[int] | None, int]:
        """The sampled tokens, in the order of `step.sampled` (None if another stage samples), and their number."""
        rows = [PrefillChunk(s, s.cached - 1, 1) for s in step.decode] + step.prefill
        with torch.inference_mode():
            batch = forward_batch(rows, self.block, self._group, self.kv)
            hidden = self.stage.receive_hidden(len(batch.ids))
            with self.stage.timed():
                output = self.model.forward(batch, self.kv, hidden)
            if not self.stage.last:
                self.stage.send_hidden(output)
                return None, len(step.sampled)
            return sample_tokens(output, step.sampled) if step.sampled else [], len(step.sampled)

    def warm(self) -> int:
        """Nothing to prepare."""
        return 0

    def reset(self) -> None:
        """Nothing to reset: no state is kept from one step to the next."""

    def read_back(self, launched: tuple[list[int] | None, int]) -> list[int]:
        """The tokens of a launched step."""
        sampled, count = launched
        tokens = torch.zeros(count, dtype=torch.int64) if sampled is None else torch.tensor(sampled, dtype=torch.int64)
        if count:
            self.stage.broadcast_tokens(tokens)
        ids: list[int] = tokens.tolist()
        return ids
