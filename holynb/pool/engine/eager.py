"""The step executor in plain torch, without graphs or kernels of ours: what a CPU runs, and a GPU until its kernels are compiled.

Knows tensors and steps, no schedule. Tokens are sampled on the CPU, also where the model is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from holynb.pool.engine.model import Decoder, ForwardBatch
from holynb.pool.engine.pipeline import SingleStage
from holynb.pool.engine.sample import CPU, sample_rows, sample_tokens, sampling_params, score
from holynb.pool.engine.scores import ScoreRow, Scores, score_rows
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step
from kernels_support.gpu.attention import AttentionKind, Span, attend_reference, causal, runs

__all__ = ["EagerExecutor", "forward_batch"]


def forward_batch(  # noqa: PLR0917 - what a batch is made of
    rows: list[PrefillChunk],
    size: int,
    group: int,
    dtype: torch.dtype,
    windows: Sequence[Sequence[int]] = ((0,),),
    device: torch.device | str = "cpu",
) -> ForwardBatch:
    """The tensors of these chunks. `size`: tokens of a block; `group`: query heads per KV head; `dtype`: what is computed in.

    `windows`: of each of the cache's groups, how many tokens the layers see (0: all before), each number once.
    """
    ids: list[int] = []
    positions: list[Tensor] = []
    slots: list[list[Tensor]] = [[] for _ in windows]
    spans: list[dict[int, list[Span]]] = [{window: [] for window in mine} for mine in windows]
    last: list[int] = []
    for row in rows:
        seq, end = row.seq, row.start + row.count
        at = torch.arange(row.start, end)
        masks: dict[int, Tensor | None] = {}
        for table, by_window, places in zip(seq.tables, spans, slots, strict=True):
            for window, mine in by_window.items():
                first = max(0, row.start + 1 - window) if window else 0
                if window not in masks:
                    masks[window] = causal(row.count, end - first, group, dtype, device, window=window)
                mine.append(Span(len(ids), len(ids) + row.count, runs(table, size, end, first), masks[window]))
            blocks = torch.tensor(table[row.start // size : (end - 1) // size + 1])
            places.append(blocks[at // size - row.start // size] * size + at % size)
        ids += row.ids
        positions.append(at)
        last += range(len(ids) - row.logit_rows, len(ids))
    picked = None if len(last) == len(ids) else torch.tensor(last, dtype=torch.int64, device=device)
    groups = [(torch.cat(places).to(device), partial(_attend, spans=mine)) for places, mine in zip(slots, spans, strict=True)]
    where = torch.cat(positions).to(device)
    return ForwardBatch(torch.tensor(ids, device=device), where, *groups[0], picked, others=groups[1:])


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, scales: Tensor | None, kind: AttentionKind, *, spans: Mapping[int, Sequence[Span]]
) -> Tensor:
    """Attention of one layer, over what its window lets it see."""
    return attend_reference(q, keys, values, scales, kind, spans=spans[kind.window])


def _places(step: Step) -> tuple[list[Seq], list[int]]:
    """The sequence of each token that a step samples, and how many guesses stand before it."""
    if not step.guesses:
        return step.sampled, []
    pairs = [(seq, i) for seq, guess in zip(step.decode, step.guesses, strict=True) for i in range(1 + len(guess))]
    return [seq for seq, _ in pairs], [i for _, i in pairs]


@dataclass(slots=True)
class EagerStep:
    """A step that has run. `tokens`, and `values` (log probabilities of `rows`, with up to `top` alternatives): None on another stage."""

    count: int
    rows: list[ScoreRow]
    top: int = 0
    tokens: Tensor | None = None
    values: Tensor | None = None


class EagerExecutor:
    """Runs each step when it is launched. On a pipeline its tokens are known only once the last stage has run it."""

    def __init__(self, model: Decoder, kv: Tensor, block: int, stage: SingleStage | None = None) -> None:
        self.model, self.kv, self.block, self.stage = model, kv, block, stage or SingleStage()
        self._cache = model.cache_of(kv)
        self.lookahead = self.stage.lookahead
        layer = model.weights.layers[0]
        self._group = layer.out.shape[1] // model.spec.head_dim // kv.shape[2]

    def launch(self, step: Step) -> EagerStep:
        """Run a step. `read_back` returns its tokens, in the order of `step.sampled`."""
        guesses = step.guesses or [()] * len(step.decode)
        rows = [PrefillChunk(s, s.cached - 1, 1 + len(g), guesses=g) for s, g in zip(step.decode, guesses, strict=True)] + step.prefill
        launched = EagerStep(step.rows if step.guesses else len(step.sampled), *(([], 0) if step.plain else score_rows(step)))
        with torch.inference_mode():
            batch = forward_batch(rows, self.block, self._group, self.model.dtype, self.model.windows, self.kv.device)
            hidden = self.stage.receive_hidden(len(batch.ids))
            with self.stage.timed():
                output = self.model.forward(batch, self._cache, hidden)
            if not self.stage.last:
                self.stage.send_hidden(output)
            elif step.plain:
                launched.tokens = sample_tokens(output.cpu(), *_places(step)) if launched.count else None
            else:
                self._sample(step, rows, output.cpu(), launched)
        return launched

    @staticmethod
    def _sample(step: Step, rows: list[PrefillChunk], logits: Tensor, launched: EagerStep) -> None:
        """Sample rows of which some are not plain, and compute log probabilities."""
        ends = np.cumsum([chunk.logit_rows for chunk in rows])
        picks = torch.from_numpy(np.array([end - 1 for chunk, end in zip(rows, ends, strict=True) if chunk.samples], np.int64))
        tokens = torch.zeros(0, dtype=torch.int64)
        if launched.count:
            tokens = sample_rows(logits[picks], step.sampled, sampling_params(step.sampled), CPU)
        launched.tokens = tokens
        if launched.rows:
            launched.values = score(logits, tokens, launched.rows, first=0, top=launched.top, device=CPU)

    def warm(self) -> int:
        """Nothing to prepare."""
        return 0

    def reset(self) -> None:
        """Nothing to reset: no state is kept from one step to the next."""

    def read_back(self, launched: EagerStep) -> list[int]:
        """The tokens of a launched step."""
        tokens = torch.zeros(launched.count, dtype=torch.int64) if launched.tokens is None else launched.tokens
        if launched.count:
            self.stage.broadcast_tokens(tokens)
        ids: list[int] = tokens.tolist()
        return ids

    def scores(self, launched: EagerStep) -> Scores | None:
        """The log probabilities of a step that was read back; None where none were asked for."""
        if not launched.rows:
            return None
        values = launched.values
        if values is None:
            values = torch.zeros(len(launched.rows), 1 + 2 * launched.top, dtype=torch.int32)
        self.stage.broadcast_tokens(values)
        return Scores(launched.rows, values.numpy())
