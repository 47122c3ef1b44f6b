"""Jobs → sampling parameters as tensors, and logits → tokens, in plain torch. A row's token depends on its own seed and position alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

import torch

from holynb.pool.engine.constrained import token_masks
from holynb.pool.engine.sequence import Seq
from holynb.pool.protocol import Job
from kernels_support.gpu.masking import mask
from kernels_support.gpu.sampling import SamplingParams, sample_reference

__all__ = ["sample_tokens", "sampling_params", "with_seed"]


def with_seed(job: Job) -> Job:
    """The job with a seed; a random one if it has none, so that every rank and every retry samples the same tokens."""
    seed = secrets.randbits(63) if job.seed is None else job.seed & 0x7FFFFFFFFFFFFFFF
    return replace(job, seed=seed)


def sampling_params(seqs: Sequence[Seq]) -> SamplingParams:
    """The sampling parameters of each sequence's next token. Its position is the number of tokens before it."""
    jobs = [s.job for s in seqs]
    return SamplingParams(
        torch.tensor([max(j.temperature, 0.0) for j in jobs], dtype=torch.float32),
        torch.tensor([max(j.top_k, 0) for j in jobs], dtype=torch.int32),
        torch.tensor([j.top_p for j in jobs], dtype=torch.float32),
        torch.tensor([j.seed or 0 for j in jobs], dtype=torch.int64),
        torch.tensor([s.size - 1 for s in seqs], dtype=torch.int32),
    )


def sample_tokens(logits: torch.Tensor, seqs: Sequence[Seq]) -> list[int]:
    """One token for each row of logits. Tokens that a row's grammar does not allow are masked in place."""
    constrained = [i for i, s in enumerate(seqs) if s.constraint is not None]
    if constrained:
        mask(logits, torch.tensor(constrained), torch.from_numpy(token_masks([seqs[i] for i in constrained])))
    if all(s.job.temperature <= 0 for s in seqs):
        return [int(t) for t in logits.argmax(-1).tolist()]
    return [int(t) for t in sample_reference(logits, sampling_params(seqs)).tolist()]
