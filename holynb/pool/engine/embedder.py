"""Texts to vectors: the hidden states of whole prompts, pooled. Knows tensors; knows no KV cache, no steps and no sampling.

A prompt goes through the model once, beside the batch that decodes, and leaves nothing behind: keys and values of one layer are enough.
What is pooled are the states behind the last norm, as transformers gives them (`last_hidden_state`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from holynb.pool.engine.turns import Turns
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Emit, Job
from kernels_support.jupyter import shortage

if TYPE_CHECKING:
    from torch import Tensor

    from holynb.pool.engine.model import Decoder
    from kernels_support.gpu.attention import AttentionKind

__all__ = ["Embedder"]


class Embedder:
    """The texts that wait, and what becomes of them. Not thread-safe. `divided`: other ranks compute the same at the same time.

    `budget`: tokens of one pass; a longer text has one of its own. It halves where memory runs out.
    """

    def __init__(self, model: Decoder, like: Tensor, limits: BatchLimits, *, divided: bool) -> None:
        self._model, self._like, self._limits, self._divided = model, like, limits, divided
        self._waiting: Turns[Job] = Turns(lambda job: job)
        self._jobs: dict[int, Job] = {}
        """Those that wait, by number."""
        self.budget = limits.chunk

    def add(self, job: Job) -> None:
        """Queue a text. Raises ValueError, with the sizes, if it can never fit."""
        if not job.ids:
            raise ValueError("nothing to do: a text without tokens")
        if len(job.ids) > self._limits.max_len:
            raise ValueError(f"{len(job.ids)} tokens are more than the {self._limits.max_len} that one text can have")
        self._waiting.append(job)
        self._jobs[job.id] = job

    def cancel(self, id: int) -> None:  # noqa: A002 - the protocol's name
        """Drop a text that waits. Unknown ids are ignored."""
        if (job := self._jobs.pop(id, None)) is not None:
            self._waiting.remove(job)

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def take(self) -> list[Job]:
        """The texts of the next pass, in order."""
        jobs: list[Job] = []
        tokens = 0
        while self._waiting and (not jobs or tokens + len(self._waiting.first.ids) <= self.budget):
            jobs.append(self._waiting.take())
            del self._jobs[jobs[-1].id]
            tokens += len(jobs[-1].ids)
        return jobs

    def run(self, jobs: Sequence[Job]) -> list[Emit]:
        """One pass. Where memory runs out, fewer texts go together; one alone ends as an error."""
        if not jobs:
            return []
        try:
            return [Emit(job.id, finish="stop", vector=vector) for job, vector in zip(jobs, self._vectors(jobs), strict=True)]
        except (RuntimeError, MemoryError) as exc:
            if self._divided or not shortage.is_out_of_memory(exc):  # ranks of one replica must agree
                raise
        self.budget = max(1, min(self.budget, sum(len(job.ids) for job in jobs)) // 2)
        if len(jobs) == 1:
            return [Emit(jobs[0].id, finish="error", note="oom")]
        for job in reversed(jobs):
            self._waiting.put_back(job)
            self._jobs[job.id] = job
        return [Emit(job.id, note="oom") for job in jobs]

    def _vectors(self, jobs: Sequence[Job]) -> list[str]:
        """The vector of each text: float32 of little-endian bytes, in base64."""
        import torch

        from holynb.pool.engine.model import ForwardBatch

        like, spans, total = self._like, [], 0
        for job in jobs:
            spans.append((total, total + len(job.ids)))
            total += len(job.ids)
        ids = torch.tensor([token for job in jobs for token in job.ids], device=like.device)
        positions = torch.cat([torch.arange(b - a, device=like.device) for a, b in spans])
        slots = torch.arange(total, device=like.device, dtype=torch.int32 if like.is_cuda else torch.int64)
        _, _, heads, _, size = like.shape
        keys, values = (torch.empty(heads, total, size, dtype=self._model.dtype, device=like.device) for _ in range(2))
        attend = partial(_attend, spans=spans)
        others = [(slots, attend)] * (len(self._model.windows) - 1)
        batch = ForwardBatch(ids, positions, slots, attend, hidden=True, others=others)
        with torch.inference_mode():
            states = self._model.forward(batch, [(keys, values)] * len(self._model.weights.layers)).float()
            pooled = [states[b - 1] if job.pooling == "last" else states[a:b].mean(0) for job, (a, b) in zip(jobs, spans, strict=True)]
            rows = torch.stack(pooled).cpu().numpy().astype("<f4")
        return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]


def _attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: Tensor | None,  # noqa: ARG001
    kind: AttentionKind,
    *,
    spans: Sequence[tuple[int, int]],
) -> Tensor:
    """Causal attention of each text to itself, over keys and values as they were computed. (tokens, heads, size) → the same shape."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from kernels_support.gpu.attention import attend_span, causal

    out, group = torch.empty_like(q), q.shape[1] // keys.shape[0]
    for a, b in spans:
        query, k, v = q[a:b].transpose(0, 1)[None], keys[None, :, a:b], values[None, :, a:b]
        if kind.cap or kind.sinks is not None or 0 < kind.window < b - a:
            mask = causal(b - a, b - a, 1, q.dtype, q.device, kind.window)
            attended = attend_span(query, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), mask, kind)
        else:
            attended = scaled_dot_product_attention(query, k, v, is_causal=True, enable_gqa=True, scale=kind.scale)
        out[a:b] = attended[0].transpose(0, 1)
    return out
