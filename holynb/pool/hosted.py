"""Lanes of a pipeline: one batch of rows for each step under way, whose tokens come by way of the host. Knows numpy and sequences; no torch.

A row that stays in its batch keeps its table and its sampling; what a step costs the host is a look at each row.
"""

from __future__ import annotations

import numpy as np

from holynb.pool.job import Seq
from holynb.pool.lanes import Lanes, sampling

__all__ = ["Hosted"]


class _Batch(Lanes):
    """The rows of one step under way."""

    def __init__(self, rows: int, width: int, page: int) -> None:
        super().__init__(rows, width, page)
        self.place: dict[Seq, int] = {}
        self._blocks: list[list[int]] = []
        self._written: list[int] = []

    def forget(self) -> None:
        super().forget()
        self.place, self._blocks, self._written = {}, [], []

    def decode(self, seqs: list[Seq]) -> bool:
        """Fill the arrays for these rows, whatever happened to them meanwhile. Always True: the device keeps nothing of a batch."""
        n = len(seqs)
        if seqs != self._seqs:
            self._change(seqs)
        for i, seq in enumerate(seqs):
            blocks, written = seq.blocks, self._written[i]
            # Blocks only grow at their end. A sequence that lost them and came back has another list.
            if blocks is not self._blocks[i]:
                self._blocks[i], written = blocks, 0
            if len(blocks) != written:
                self.table[i, written : len(blocks)] = blocks[written:]
                self._written[i] = len(blocks)
        self.said[0, :n] = self.said[3, :n] = -1
        self.said[1, :n] = [s.tokens[-1] for s in seqs]
        self.said[2, :n] = [s.cached - 1 for s in seqs]
        self.used = max(self._written)
        return True

    def _change(self, seqs: list[Seq]) -> None:
        n = len(seqs)
        old = [self.place.get(s, -1) for s in seqs]
        kept = np.array(old, np.int64)
        self.table[:n], self.how[:, :n] = self.table[kept], self.how[:, kept]
        fresh = [i for i, k in enumerate(old) if k < 0]
        if fresh:
            self.how[:, fresh] = sampling([seqs[i] for i in fresh])
        nothing: list[int] = []
        self._blocks = [nothing if k < 0 else self._blocks[k] for k in old]
        self._written = [0 if k < 0 else self._written[k] for k in old]
        lengths = np.array([s.cached for s in seqs])
        self.order[:n], self.order[n:] = np.argsort(-lengths, kind="stable"), self._count[n:]
        self._seqs, self.place = list(seqs), {s: i for i, s in enumerate(seqs)}


class Hosted(Lanes):
    """As many batches as steps are under way. After `decode` its arrays are those of the batch that these rows were in before."""

    def __init__(self, flights: int, rows: int, width: int, page: int) -> None:
        super().__init__(rows, width, page)
        self._all = [_Batch(rows, width, page) for _ in range(flights)]

    def forget(self) -> None:
        for batch in self._all:
            batch.forget()

    def decode(self, seqs: list[Seq]) -> bool:
        middle = seqs[len(seqs) // 2]
        batch = next((b for b in self._all if middle in b.place), self._all[0])
        # The one used longest ago stands first: rows that nobody knows take its place.
        self._all.remove(batch)
        self._all.append(batch)
        batch.decode(seqs)
        self.said, self.table, self.how, self.order, self.used = batch.said, batch.table, batch.how, batch.order, batch.used
        return True

    def sampled(self, decode: list[Seq], prefilled: list[Seq], offset: int) -> list[int]:
        """Where this step's tokens lie; nobody asks for them there again."""
        return [*range(len(decode)), *range(offset, offset + len(prefilled))]
