"""Sampling outside of a CUDA graph, for rows that are not plain: from the logits that a graph has left to tokens and log probabilities.

Plain torch and the same kernels as inside; what it needs of the host is sent while the device computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holynb.pool.engine.sample import SamplingDevice, sample_rows, score
from holynb.pool.engine.scores import ScoreRow, Scores, score_rows
from holynb.pool.engine.sequence import Seq, Step
from kernels_support.gpu.sampler import sample
from kernels_support.gpu.sampling import SamplingParams

__all__ = ["StepScores", "device_of", "sample_decode", "sample_prefill"]


@dataclass(slots=True)
class StepScores:
    """The log probabilities of a step in flight: of `rows`, with up to `top` alternatives, in `parts` until they are together in `host`."""

    rows: list[ScoreRow]
    top: int
    parts: list[Tensor] = field(default_factory=list)
    host: Tensor | None = None

    @classmethod
    def of(cls, step: Step) -> StepScores | None:
        """Those that a step is to have; None where none are asked for."""
        if step.plain:
            return None
        rows, top = score_rows(step)
        return cls(rows, top) if rows else None

    def values(self, like: Tensor) -> Tensor:
        """All parts as one tensor; where another stage has them, one of the same size to receive them in."""
        if self.parts:
            return torch.cat(self.parts)
        return torch.zeros(len(self.rows), 1 + 2 * self.top, dtype=torch.int32, device=like.device)

    def read(self) -> Scores | None:
        return None if self.host is None else Scores(self.rows, self.host.numpy())


def device_of(like: Tensor) -> SamplingDevice:
    """How tokens are drawn and arrays sent where `like` is. torch keeps a pinned copy until the device has read it."""

    def send(values: NDArray[Any]) -> Tensor:
        host = torch.from_numpy(values)
        return host.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else host

    return SamplingDevice(sample, send)


def sample_decode(logits: Tensor, seqs: Sequence[Seq], params: SamplingParams, device: SamplingDevice, scores: StepScores | None) -> Tensor:
    """The tokens of a step's decode rows, whose logits come first."""
    count = len(seqs)
    mine = [] if scores is None else [r for r in scores.rows if r.logits < count]
    tokens = sample_rows(logits[:count], seqs, _first(params, count), device)
    if scores is not None and mine:
        scores.parts.append(score(logits, tokens, mine, first=0, top=scores.top, device=device))
    return tokens


def sample_prefill(logits: Tensor, step: Step, params: SamplingParams, device: SamplingDevice, scores: StepScores | None) -> Tensor:
    """The tokens of a step's prompt chunks, in whose logits those of scored chunks are all."""
    chunks, before = step.prefill, len(step.decode)
    seqs = [chunk.seq for chunk in chunks if chunk.samples]
    ends = np.cumsum([chunk.logit_rows for chunk in chunks])
    picks = np.array([end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.samples], np.int64)
    tokens = torch.zeros(0, dtype=torch.int32, device=logits.device)
    if seqs:
        tokens = sample_rows(logits.index_select(0, device.send(picks)), seqs, _first(params, len(seqs)), device)
    mine = [] if scores is None else [r for r in scores.rows if r.logits >= before]
    if scores is not None and mine:
        scores.parts.append(score(logits, tokens, mine, first=before, top=scores.top, device=device))
    return tokens


def _first(params: SamplingParams, count: int) -> SamplingParams:
    """The parameters of the first rows."""
    return SamplingParams(*(getattr(params, f.name)[:count] for f in fields(SamplingParams)))
