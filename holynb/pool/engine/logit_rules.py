"""Logits as a job's rules change them: allowed tokens, bias, penalties, minimum length. Plain torch, in place, on any device.

In transformers' order, and with its arithmetic; presence and frequency penalties as OpenAI defines them, after the repetition penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holynb.pool.engine.sequence import Seq
from holynb.pool.protocol import LogitRules

__all__ = ["apply_rules", "min_p_of"]

Send = Callable[[NDArray[Any]], Tensor]
"""Brings an array to the device of the logits."""

_NONE = LogitRules()


class TokenCounts:
    """The tokens of one sequence, each once, and how often each stands in the answer. Grows with the sequence."""

    def __init__(self, seq: Seq) -> None:
        self._index = {token: i for i, token in enumerate(dict.fromkeys(seq.job.ids))}
        self._counts = [0] * len(self._index)
        self._consumed = len(seq.job.ids)

    def update(self, tokens: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Take what is new in `tokens`, all of the sequence. Returns the tokens and their counts in the answer."""
        for token in tokens[self._consumed :]:
            i = self._index.setdefault(token, len(self._counts))
            if i == len(self._counts):
                self._counts.append(0)
            self._counts[i] += 1
        self._consumed = len(tokens)
        return np.fromiter(self._index, np.int64, len(self._index)), np.array(self._counts, np.float32)


def apply_rules(logits: Tensor, seqs: Sequence[Seq], send: Send) -> None:
    """Change `logits` (rows, vocabulary), float32, in place by the rules of their sequences, whose tokens are all known to the host."""
    rules = [s.job.rules or _NONE for s in seqs]
    for row, rule in enumerate(rules):
        if rule.allowed:
            _allow(logits[row], send(np.array(rule.allowed, np.int64)))
    _bias(logits, rules, send)
    _penalize(logits, seqs, rules, send)
    _mask_ends(logits, seqs, rules, send)


def min_p_of(seqs: Sequence[Seq], send: Send) -> Tensor | None:
    """(rows,) the min-p of each sequence; None where none has one."""
    values = np.array([(s.job.rules or _NONE).min_p for s in seqs], np.float32)
    return send(values) if values.any() else None


def _allow(logits: Tensor, tokens: Tensor) -> None:
    kept = logits[tokens]
    logits.fill_(-torch.inf)
    logits[tokens] = kept


def _bias(logits: Tensor, rules: Sequence[LogitRules], send: Send) -> None:
    entries = [(row, token, value) for row, rule in enumerate(rules) for token, value in rule.bias]
    if entries:
        rows, tokens, values = zip(*entries, strict=True)
        place = send(np.array(rows, np.int64)), send(np.array(tokens, np.int64))
        logits.index_put_(place, send(np.array(values, np.float32)), accumulate=True)


def _penalize(logits: Tensor, seqs: Sequence[Seq], rules: Sequence[LogitRules], send: Send) -> None:
    """Repetition penalty over prompt and answer; then frequency and presence penalty over the answer."""
    columns: list[tuple[NDArray[Any], ...]] = []
    for row, (seq, rule) in enumerate(zip(seqs, rules, strict=True)):
        if rule.counts_tokens:
            if seq.counts is None:
                seq.counts = TokenCounts(seq)
            tokens, counts = seq.counts.update(seq.tokens)
            amounts = [rule.repetition_penalty, rule.frequency_penalty, rule.presence_penalty]
            spread = [np.full(len(tokens), value, np.float32) for value in amounts]
            columns.append((np.full(len(tokens), row, np.int64), tokens, counts, *spread))
    if columns:
        rows, tokens, counts, repetition, frequency, presence = (send(np.concatenate(c)) for c in zip(*columns, strict=True))
        values = logits[rows, tokens]
        values = torch.where(values < 0, values * repetition, values / repetition)
        values -= frequency * counts
        values -= presence * (counts > 0)
        logits[rows, tokens] = values


def _mask_ends(logits: Tensor, seqs: Sequence[Seq], rules: Sequence[LogitRules], send: Send) -> None:
    """Before `min_tokens` no token ends the answer. The token that is chosen now counts as pending already."""
    places: list[tuple[int, int]] = []
    for row, (seq, rule) in enumerate(zip(seqs, rules, strict=True)):
        job = seq.job
        if seq.size - 1 - len(job.ids) < rule.min_tokens:
            ends = job.stop_ids if job.ignore_eos else (*job.eos, *job.stop_ids)
            places += [(row, token) for token in ends if token < logits.shape[-1]]
    if places:
        rows, tokens = zip(*places, strict=True)
        logits[send(np.array(rows, np.int64)), send(np.array(tokens, np.int64))] = -torch.inf
