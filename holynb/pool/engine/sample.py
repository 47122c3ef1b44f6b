"""Jobs → sampling parameters as tensors, and logits → tokens and log probabilities, on any device. A row's token depends on the row alone.

What rows with rules, grammars or log probabilities take besides is plain torch and the same everywhere; how tokens are drawn and arrays
brought to the device is the executor's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holynb.pool.engine.constrained import token_masks
from holynb.pool.engine.logit_rules import apply_rules, min_p_of
from holynb.pool.engine.scores import ScoreRow
from holynb.pool.engine.sequence import Seq
from holynb.pool.protocol import Job
from kernels_support.gpu.masking import mask
from kernels_support.gpu.sampling import SamplingParams, marked, sample_reference

__all__ = ["CPU", "SamplingDevice", "sample_rows", "sample_tokens", "sampling_params", "score", "with_seed"]

#: Rows of logits whose log probabilities are computed at a time, in float32.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class SamplingDevice:
    """How tokens are drawn, from logits, parameters and min-p (None: nowhere one), and arrays sent, where the logits are."""

    sample: Callable[[Tensor, SamplingParams, Tensor | None], Tensor]
    send: Callable[[NDArray[Any]], Tensor]


CPU = SamplingDevice(sample_reference, torch.from_numpy)


def with_seed(job: Job) -> Job:
    """The job with a seed; a random one if it has none, so that every rank and every retry samples the same tokens."""
    seed = secrets.randbits(63) if job.seed is None else job.seed & 0x7FFFFFFFFFFFFFFF
    return replace(job, seed=seed)


def sampling_params(seqs: Sequence[Seq], ahead: Sequence[int] = ()) -> SamplingParams:
    """The sampling parameters of each sequence's next token. Its position is the number of tokens before it.

    `ahead`: how many guesses stand before it, too; empty: none.
    """
    jobs = [s.job for s in seqs]
    return SamplingParams(
        torch.tensor([max(j.temperature, 0.0) for j in jobs], dtype=torch.float32),
        torch.tensor([max(j.top_k, 0) for j in jobs], dtype=torch.int32),
        torch.tensor([j.top_p for j in jobs], dtype=torch.float32),
        torch.tensor([j.seed or 0 for j in jobs], dtype=torch.int64),
        torch.tensor([s.size - 1 + n for s, n in zip(seqs, ahead or [0] * len(seqs), strict=True)], dtype=torch.int32),
    )


def sample_tokens(logits: Tensor, seqs: Sequence[Seq], ahead: Sequence[int] = ()) -> Tensor:
    """One token for each row of logits, of sequences that are all plain. `ahead`: as in `sampling_params`."""
    if all(s.job.temperature <= 0 for s in seqs):
        tokens = logits.argmax(-1)
        return marked(tokens, logits, tokens)
    return sample_reference(logits, sampling_params(seqs, ahead))


def sample_rows(logits: Tensor, seqs: Sequence[Seq], params: SamplingParams, device: SamplingDevice) -> Tensor:
    """One token for each row of logits. Changes the rows that have a grammar and neither rules nor log probabilities.

    Rows whose logits are changed and needed as they were, or in float32, are sampled once more from a copy. What is thought follows no
    grammar; where a thought is being closed, the token is the one that is forced.
    """
    constrained = [i for i, s in enumerate(seqs) if s.constraint is not None and not (s.thought and s.thought.thinking)]
    apart = [i for i, s in enumerate(seqs) if s.job.rules is not None or (s.constraint is not None and s.job.logprobs is not None)]
    forced = [(i, s.thought.forced) for i, s in enumerate(seqs) if s.thought is not None and s.thought.forced is not None]
    masks = dict(zip(constrained, token_masks([seqs[i] for i in constrained]), strict=True)) if constrained else {}
    _mask(logits, {i: words for i, words in masks.items() if i not in set(apart)}, device)
    tokens = device.sample(logits, params, None)
    if apart:
        chosen, rows = [seqs[i] for i in apart], device.send(np.array(apart, np.int64))
        changed = logits.index_select(0, rows).float()
        _mask(changed, {k: masks[i] for k, i in enumerate(apart) if i in masks}, device)
        apply_rules(changed, chosen, device.send)
        theirs = SamplingParams(*(getattr(params, f.name).index_select(0, rows) for f in fields(SamplingParams)))
        tokens[rows] = device.sample(changed, theirs, min_p_of(chosen, device.send)).to(tokens.dtype)
    if forced:
        places, ids = (np.array(column, np.int64) for column in zip(*forced, strict=True))
        tokens[device.send(places)] = device.send(ids).to(tokens.dtype)
    return tokens


def _mask(logits: Tensor, masks: dict[int, NDArray[np.int32]], device: SamplingDevice) -> None:
    """Forbid the tokens that the masks of these rows do not allow, in place."""
    if masks:
        mask(logits, device.send(np.array(list(masks), np.int32)), device.send(np.stack(list(masks.values()))))


def score(logits: Tensor, tokens: Tensor, rows: Sequence[ScoreRow], *, first: int, top: int, device: SamplingDevice) -> Tensor:
    """Log probabilities of `rows`, as `Scores` reads them. `first`: the place of these logits, and of these tokens, among the step's."""
    at = device.send(np.array([r.logits - first for r in rows], np.int64))
    prompt = device.send(np.array([r.prompt_token for r in rows], np.int64))
    sampled = device.send(np.array([max(r.sampled - first, 0) for r in rows], np.int64))
    own = torch.where(prompt >= 0, prompt, tokens.long()[sampled].clamp(min=0) if len(tokens) else prompt)
    parts = []
    for i in range(0, len(rows), _SCORED_AT_ONCE):
        logs = logits.index_select(0, at[i : i + _SCORED_AT_ONCE]).float().log_softmax(-1)
        values, ids = logs.topk(min(top, logs.shape[-1]), -1)
        chosen = logs.gather(1, own[i : i + _SCORED_AT_ONCE, None])
        parts.append(torch.cat((chosen.view(torch.int32), ids.int(), values.view(torch.int32)), 1))
    return torch.cat(parts)
