"""Steps → the integers a GPU is fed: one array for decoding rows, one for prompt chunks. Knows numpy and sequences; knows no torch.

A decoding row's token may still be on the device; the row then says where it lies there instead of what it is. Rows that
stay as they were cost a few vector operations a step, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holynb.pool.engine.sequence import PrefillChunk, Seq

__all__ = ["DecodeBatch", "PromptChunks", "pack", "padded", "paired"]

Ints = NDArray[np.int32]

#: Rows of the array that says how to sample: temperature, top-p (bits of float32), top-k, position, seed (two halves).
SAMPLING = 6


def sampling(seqs: Sequence[Seq]) -> Ints:
    """(SAMPLING, rows): how each sequence's next token is drawn."""
    out = np.zeros((SAMPLING, len(seqs)), np.int32)
    jobs = [s.job for s in seqs]
    out[0] = np.array([max(j.temperature, 0.0) for j in jobs], np.float32).view(np.int32)
    out[1] = np.array([j.top_p for j in jobs], np.float32).view(np.int32)
    out[2] = [min(max(j.top_k, 0), 2**31 - 1) for j in jobs]
    out[3] = [s.size - 1 for s in seqs]
    seeds = np.array([j.seed or 0 for j in jobs], np.int64)
    out[4], out[5] = (seeds & 0xFFFFFFFF).astype(np.uint32).view(np.int32), (seeds >> 32).astype(np.int32)
    return out


class DecodeBatch:
    """The decode batch, row by row in the order of `step.decode`. Written by the engine alone.

    `order` (rows): the rows from the longest to the shortest, which stays so until rows come or go: all grow by one a step.
    `said` (4, rows): source, id, position, new block, as `kernels_support.gpu.feeding` wants them; `table` (rows, width) blocks.
    `used`: columns of `table` that say something. `first`: where this batch's tokens begin among those that the device keeps, where it keeps several batches'.
    """

    def __init__(self, rows: int, width: int, page: int, first: int = 0) -> None:
        self.page, self.first = page, first
        self.said = np.full((4, rows), -1, np.int32)
        self.table = np.zeros((rows, width), np.int32)
        self.how = np.zeros((SAMPLING, rows), np.int32)
        self.order = np.arange(rows, dtype=np.int32)
        self.used = 1
        self._count = np.arange(rows, dtype=np.int32)
        self._seqs: list[Seq] = []
        self._place: dict[Seq, int] = {}
        self._moved = False
        self._places = self._count + first

    def forget(self) -> None:
        """Nothing on the device counts any more: every token must come from the host."""
        self._seqs, self._place = [], {}

    def decode(self, seqs: list[Seq], *, mixed: bool = False) -> bool:
        """Fill the arrays for these rows. False where only positions and new blocks changed: table and sampling stand as they are.

        `mixed`: one of them was not in this batch's last step, and what is known of it here is old.
        """
        n = len(seqs)
        if mixed:
            self._seqs = []
        if seqs != self._seqs:
            self._change(seqs)
            return True
        said = self.said[:, :n]
        said[0] = self._places[:n]
        said[2] += 1
        said[3] = -1
        for i in np.flatnonzero(said[2] % self.page == 0).tolist():
            block = seqs[i].blocks[-1]
            column = int(said[2, i]) // self.page
            said[3, i] = self.table[i, column] = block
            self.used = max(self.used, column + 1)
        return False

    def _change(self, seqs: list[Seq]) -> None:
        n, before = len(seqs), {s: i for i, s in enumerate(self._seqs)}
        old = [before.get(s, -1) for s in seqs]
        kept = np.array(old, np.int64)
        self.table[:n], self.how[:, :n] = self.table[kept], self.how[:, kept]
        fresh = [i for i, k in enumerate(old) if k < 0]
        if fresh:
            self.how[:, fresh] = sampling([seqs[i] for i in fresh])
        self.said[:, :n] = -1
        for i, seq in enumerate(seqs):
            blocks = seq.blocks
            if old[i] < 0:
                self.table[i, : len(blocks)] = blocks
            else:
                self.table[i, len(blocks) - 1] = blocks[-1]
            if seq.pending > 1:
                self.said[0, i] = self.first + self._place[seq]
            else:
                self.said[1, i] = seq.tokens[-1]
        self.said[2, :n] = [s.cached - 1 for s in seqs]
        self.order[:n], self.order[n:] = np.argsort(-self.said[2, :n], kind="stable"), self._count[n:]
        self.used = max(len(s.blocks) for s in seqs)
        self._seqs, self._moved = list(seqs), True

    def sampled(self, decode: list[Seq], prefilled: list[Seq], offset: int) -> list[int]:
        """Remember where this step's tokens lie: decoding rows at their own place, prompts from `offset` on. Returns the places."""
        places = [*range(len(decode)), *range(offset, offset + len(prefilled))]
        if not decode:
            self._seqs = []  # their tokens are gone, and one may come back as another row
        if prefilled or self._moved or len(self._place) != len(decode):
            self._moved = False
            self._place = dict(zip([*decode, *prefilled], places, strict=True))
        return places


@dataclass(slots=True)
class PromptChunks:
    """Prompt chunks as integers: (3, tokens) ids, positions, slots; (n, 2) tiles; (rows, 3) spans; last queries; tables; sampling."""

    tokens: Ints
    tiles: Ints
    spans: Ints
    last: Ints
    table: Ints
    how: Ints


def pack(rows: list[PrefillChunk], page: int, queries: int) -> PromptChunks:
    """The integers of these rows; `queries` is what one program of the attention kernel takes."""
    total = sum(r.count for r in rows)
    tokens = np.empty((3, total), np.int32)
    tables = [np.array(r.seq.blocks[: -(-(r.start + r.count) // page)], np.int32) for r in rows]
    table = np.zeros((len(rows), max(map(len, tables))), np.int32)
    tiles: list[tuple[int, int]] = []
    spans: list[tuple[int, int, int]] = []
    at = 0
    for i, row in enumerate(rows):
        end = row.start + row.count
        positions = np.arange(row.start, end, dtype=np.int32)
        tokens[0, at : at + row.count] = row.seq.tokens[row.start : end]
        tokens[1, at : at + row.count] = positions
        tokens[2, at : at + row.count] = tables[i][positions // page] * page + positions % page
        table[i, : len(tables[i])] = tables[i]
        tiles += [(i, q) for q in range(0, row.count, queries)]
        spans.append((at, row.count, end))
        at += row.count
    samplers = [i for i, r in enumerate(rows) if r.samples]
    last = np.array([spans[i][0] + spans[i][1] - 1 for i in samplers], np.int32)
    return PromptChunks(
        tokens, np.array(tiles, np.int32), np.array(spans, np.int32), last, table, sampling([rows[i].seq for i in samplers])
    )


def paired(how: Ints) -> Ints:
    """The seeds' halves side by side, as the device reads them: one int64 each."""
    out = how.copy()
    out[4:6] = how[4:6].T.reshape(2, -1)
    return out


def padded(values: Ints, width: int, fill: int) -> Ints:
    """The last axis made `width` long."""
    out = np.full((*values.shape[:-1], width), fill, np.int32)
    out[..., : values.shape[-1]] = values
    return out
