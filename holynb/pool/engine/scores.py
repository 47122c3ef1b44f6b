"""Log probabilities of one step: which rows of logits they are of, and what came of them. Knows numpy and sequences; no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.protocol import Emit, TokenScore

__all__ = ["ScoreRow", "Scores", "score_rows"]


@dataclass(slots=True)
class ScoreRow:
    """A token whose log probability is wanted, and its row among the logits: decode rows first, then those of prompt chunks.

    `sampled`: its index among the step's sampled tokens; -1: it is the prompt's token at `position`.
    """

    seq: Seq
    logits: int
    sampled: int = -1
    position: int = 0

    @property
    def prompt_token(self) -> int:
        """The prompt's token; -1 where it is a sampled one."""
        return -1 if self.sampled >= 0 else self.seq.tokens[self.position]


def score_rows(step: Step) -> tuple[list[ScoreRow], int]:
    """The tokens of a step that are to be scored, and how many alternatives there are for each at most."""
    rows = [ScoreRow(s, i, sampled=i) for i, s in enumerate(step.decode) if s.job.logprobs is not None]
    logits = sampled = len(step.decode)
    for chunk in step.prefill:
        seq, end = chunk.seq, chunk.start + chunk.count
        if chunk.scored:
            known = range(chunk.start + 1, min(end + 1, len(seq.job.ids)))
            rows += [ScoreRow(seq, logits + position - 1 - chunk.start, position=position) for position in known]
        logits += chunk.logit_rows
        if chunk.samples:
            if seq.job.logprobs is not None:
                rows.append(ScoreRow(seq, logits - 1, sampled=sampled))
            sampled += 1
    return rows, max((r.seq.job.logprobs or 0 for r in rows), default=0)


class Scores:
    """The log probabilities of a step's `rows`. `values` (rows, 1 + 2 × alternatives): the token's own, then ids, then theirs.

    All int32; log probabilities are the bits of float32.
    """

    def __init__(self, rows: list[ScoreRow], values: NDArray[np.int32]) -> None:
        self._rows = rows
        self._ids = values[:, 1 : 1 + values.shape[1] // 2]
        self._logs = values.view(np.float32)
        self._sampled = {row.sampled: i for i, row in enumerate(rows) if row.sampled >= 0}

    def put(self, emit: Emit, seq: Seq, sampled: int) -> None:
        """Add to an emit those of the token that its sequence has just got, the step's `sampled`th, and with the first one the prompt's."""
        emit.scores = (self._score(self._sampled[sampled], seq.tokens[-1]),)
        if len(seq.tokens) == len(seq.job.ids) + 1:
            emit.prompt_scores = tuple(seq.prompt_scores)

    def keep_prompts(self) -> None:
        """Add those of prompts' tokens to their sequences; a prompt that is computed again has some already."""
        for i, row in enumerate(self._rows):
            if row.sampled < 0 and not row.seq.finished and row.position == len(row.seq.prompt_scores) + 1:
                row.seq.prompt_scores.append(self._score(i, row.prompt_token))

    def _score(self, i: int, token: int) -> TokenScore:
        top, width = self._rows[i].seq.job.logprobs or 0, self._ids.shape[1]
        logs = self._logs[i, 1 + width : 1 + width + top].tolist()
        return token, float(self._logs[i, 0]), tuple(zip(self._ids[i, :top].tolist(), logs, strict=True))
