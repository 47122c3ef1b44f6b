"""Jobs' sampling wishes → tensors, and logits → tokens. A row's token depends on its own seed and position alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

import torch

from holynb.pool.engine.constrained import masks
from holynb.pool.engine.sequence import Seq
from holynb.pool.protocol import Job
from kernels_support.gpu.masking import mask
from kernels_support.gpu.sampling import SamplingParams, sample_reference

__all__ = ["choice", "choose", "settled"]


def settled(job: Job) -> Job:
    """The job with a seed of its own: drawn now where none was given, so that every rank and every retry draws the same tokens."""
    seed = secrets.randbits(63) if job.seed is None else job.seed & 0x7FFFFFFFFFFFFFFF
    return replace(job, seed=seed)


def choice(seqs: Sequence[Seq]) -> SamplingParams:
    """How to sample the next token of each sequence. Its position is the number of tokens before it."""
    jobs = [s.job for s in seqs]
    return SamplingParams(
        torch.tensor([max(j.temperature, 0.0) for j in jobs], dtype=torch.float32),
        torch.tensor([max(j.top_k, 0) for j in jobs], dtype=torch.int32),
        torch.tensor([j.top_p for j in jobs], dtype=torch.float32),
        torch.tensor([j.seed or 0 for j in jobs], dtype=torch.int64),
        torch.tensor([s.size - 1 for s in seqs], dtype=torch.int32),
    )


def choose(logits: torch.Tensor, seqs: Sequence[Seq]) -> list[int]:
    """One token for each row of logits; what a row's grammar does not allow is struck out there, in place."""
    constrained = [i for i, s in enumerate(seqs) if s.constraint is not None]
    if constrained:
        mask(logits, torch.tensor(constrained), torch.from_numpy(masks([seqs[i] for i in constrained])))
    if all(s.job.temperature <= 0 for s in seqs):
        return [int(t) for t in logits.argmax(-1).tolist()]
    return [int(t) for t in sample_reference(logits, choice(seqs)).tolist()]
