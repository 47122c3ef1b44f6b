"""Steps → the integer arrays that are sent to a GPU: one set for decode rows, one for prompt chunks. Knows numpy and sequences; no torch.

A decode row's token may still be on the device; the row then carries its index there instead of its id. Rows that
stay as they were cost a few vector operations a step, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holynb.pool.engine.sequence import PrefillChunk, Seq

__all__ = ["DecodeBatch", "PrefillBatch", "pack_prefill", "pad_last", "pair_seeds"]

Ints = NDArray[np.int32]

#: Rows of an array of sampling parameters: temperature and top-p (bits of float32), top-k, position, seed (two halves).
SAMPLING_FIELDS = 6


def sampling_fields(seqs: Sequence[Seq]) -> Ints:
    """(SAMPLING_FIELDS, rows): the sampling parameters of each sequence's next token."""
    out = np.zeros((SAMPLING_FIELDS, len(seqs)), np.int32)
    jobs = [s.job for s in seqs]
    out[0] = np.array([max(j.temperature, 0.0) for j in jobs], np.float32).view(np.int32)
    out[1] = np.array([j.top_p for j in jobs], np.float32).view(np.int32)
    out[2] = [min(max(j.top_k, 0), 2**31 - 1) for j in jobs]
    out[3] = [s.size - 1 for s in seqs]
    seeds = np.array([j.seed or 0 for j in jobs], np.int64)
    out[4], out[5] = (seeds & 0xFFFFFFFF).astype(np.uint32).view(np.int32), (seeds >> 32).astype(np.int32)
    return out


class DecodeBatch:
    """One lane's decode batch, row by row in the order of `step.decode`. Written by the executor alone.

    `inputs` (4, rows): token index, token id, position, new block, as in `kernels_support.gpu.feeding.DecodeInputs.host`.
    `table` (rows, width): block tables, of which the first `columns` are in use. `sampling`: as `sampling_fields`.
    `order` (rows): the rows by length, longest first, which stays valid until rows come or go: all grow by one a step.
    `token_offset`: where this lane's tokens begin among the last tokens of all lanes on the device. `more_tables` (groups, rows, width)
    and `more_blocks` (groups, rows): block tables and new blocks of the cache's groups behind the first.
    """

    def __init__(self, rows: int, width: int, page: int, token_offset: int = 0, groups: int = 1) -> None:
        self.page, self.token_offset, self.groups = page, token_offset, groups
        self.more_tables = np.zeros((groups - 1, rows, width), np.int32)
        self.more_blocks = np.full((groups - 1, rows), -1, np.int32)
        self.inputs = np.full((4, rows), -1, np.int32)
        self.table = np.zeros((rows, width), np.int32)
        self.sampling = np.zeros((SAMPLING_FIELDS, rows), np.int32)
        self.order = np.arange(rows, dtype=np.int32)
        self.columns = 1
        self._indices = np.arange(rows, dtype=np.int32)
        self._seqs: list[Seq] = []
        self._token_index: dict[Seq, int] = {}
        self._rows_changed = False
        self._token_indices = self._indices + token_offset

    def reset(self) -> None:
        """Discard what is known about the device: every token of the next step comes from the host."""
        self._seqs, self._token_index = [], {}

    def fill(self, seqs: list[Seq], *, mixed: bool = False) -> bool:
        """Fill the arrays for these rows. Returns False if only `inputs` and new blocks changed: order, tables and sampling are as before.

        `mixed`: one of them was not in this batch's last step, so that its state here is stale.
        """
        n = len(seqs)
        if mixed:
            self._seqs = []
        if seqs != self._seqs:
            self._rebuild(seqs)
            return True
        inputs = self.inputs[:, :n]
        inputs[0] = self._token_indices[:n]
        inputs[2] += 1
        inputs[3] = -1
        if self.groups > 1:
            self.more_blocks[:, :n] = -1
        for i in np.flatnonzero(inputs[2] % self.page == 0).tolist():
            block = seqs[i].blocks[-1]
            column = int(inputs[2, i]) // self.page
            inputs[3, i] = self.table[i, column] = block
            self.columns = max(self.columns, column + 1)
            if self.groups > 1:
                self.more_blocks[:, i] = self.more_tables[:, i, column] = [table[-1] for table in seqs[i].tables[1:]]
        return False

    def fill_guesses(self, seqs: list[Seq], guesses: list[tuple[int, ...]]) -> bool:
        """Fill the arrays for these rows, each followed by its guesses, which are rows with the same blocks. Keeps nothing for later."""
        rows = [(i, guess, ahead) for i, its in enumerate(guesses) for ahead, guess in enumerate((-1, *its))]
        n, of, behind = len(rows), [i for i, _, _ in rows], np.array([ahead for _, _, ahead in rows], np.int32)
        self.reset()
        self._rebuild(seqs)
        for values in (self.table, self.more_tables.swapaxes(0, 1), self.sampling.T):
            values[:n] = values[of]
        self.inputs[:, :n] = self.inputs[:, of]
        self.inputs[1, :n] = [self.inputs[1, k] if ahead == 0 else guess for k, (_, guess, ahead) in enumerate(rows)]
        self.inputs[2, :n] += behind
        self.order[:n], self.order[n:] = np.argsort(-self.inputs[2, :n], kind="stable"), self._indices[n:]
        self.reset()
        return True

    def _rebuild(self, seqs: list[Seq]) -> None:
        n, before = len(seqs), {s: i for i, s in enumerate(self._seqs)}
        old = [before.get(s, -1) for s in seqs]
        source = np.array(old, np.int64)
        self.table[:n], self.sampling[:, :n] = self.table[source], self.sampling[:, source]
        if self.groups > 1:
            self._rebuild_more(seqs, old)
        fresh = [i for i, k in enumerate(old) if k < 0]
        if fresh:
            self.sampling[:, fresh] = sampling_fields([seqs[i] for i in fresh])
        self.inputs[:, :n] = -1
        for i, seq in enumerate(seqs):
            blocks = seq.blocks
            if old[i] < 0:
                self.table[i, : len(blocks)] = blocks
            else:
                self.table[i, len(blocks) - 1] = blocks[-1]
            if seq.pending > 1:
                self.inputs[0, i] = self.token_offset + self._token_index[seq]
            else:
                self.inputs[1, i] = seq.tokens[-1]
        self.inputs[2, :n] = [s.cached - 1 for s in seqs]
        self.order[:n], self.order[n:] = np.argsort(-self.inputs[2, :n], kind="stable"), self._indices[n:]
        self.columns = max(len(s.blocks) for s in seqs)
        self._seqs, self._rows_changed = list(seqs), True

    def _rebuild_more(self, seqs: list[Seq], old: list[int]) -> None:
        """The tables of further groups; `old`: where each row was, -1: nowhere."""
        n = len(seqs)
        self.more_tables[:, :n], self.more_blocks[:, :n] = self.more_tables[:, old], -1
        for i, seq in enumerate(seqs):
            for table, blocks in zip(self.more_tables, seq.tables[1:], strict=True):
                first = 0 if old[i] < 0 else len(blocks) - 1
                table[i, first : len(blocks)] = blocks[first:]

    def record_sampled(self, decode: list[Seq], prefilled: list[Seq], offset: int) -> list[int]:
        """Record where this step's tokens lie: decode rows' at their own index, prompts' from `offset` on. Returns the indices."""
        indices = [*range(len(decode)), *range(offset, offset + len(prefilled))]
        if not decode:
            self._seqs = []  # their tokens are gone, and one may come back as another row
        if prefilled or self._rows_changed or len(self._token_index) != len(decode):
            self._rows_changed = False
            self._token_index = dict(zip([*decode, *prefilled], indices, strict=True))
        return indices


@dataclass(slots=True)
class PrefillBatch:
    """A step's prompt chunks, one after the other. `tokens` (3, tokens): ids, positions, slots.

    `tiles` (n, 2), `spans` (rows, 3) and `table` (rows, blocks) are as in `kernels_support.gpu.paged.Prefill`. `last`: indices of the
    tokens whose logits are wanted; `sampling`: the parameters of those that are sampled, as `sampling_fields`. `more_slots` (groups,
    tokens) and `more_tables` (groups, rows, blocks) are of the cache's groups behind the first.
    """

    tokens: Ints
    tiles: Ints
    spans: Ints
    last: Ints
    table: Ints
    sampling: Ints
    more_slots: Ints
    more_tables: Ints


def pack_prefill(rows: list[PrefillChunk], page: int, queries: int) -> PrefillBatch:
    """The arrays of these chunks; `queries` is the size of the attention kernel's tile."""
    total = sum(r.count for r in rows)
    tokens = np.empty((2, total), np.int32)
    slots = np.empty((len(rows[0].seq.tables), total), np.int32)
    tables = np.zeros((len(slots), len(rows), max(-(-(r.start + r.count) // page) for r in rows)), np.int32)
    tiles: list[tuple[int, int]] = []
    spans: list[tuple[int, int, int]] = []
    at = 0
    for i, row in enumerate(rows):
        end = row.start + row.count
        positions, blocks = np.arange(row.start, end, dtype=np.int32), -(-end // page)
        tokens[0, at : at + row.count] = row.seq.tokens[row.start : end]
        tokens[1, at : at + row.count] = positions
        for table, its, mine in zip(tables, slots, row.seq.tables, strict=True):
            table[i, :blocks] = mine[:blocks]
            its[at : at + row.count] = table[i, positions // page] * page + positions % page
        tiles += [(i, q) for q in range(0, row.count, queries)]
        spans.append((at, row.count, end))
        at += row.count
    ends = [(start + count, r.logit_rows) for (start, count, _), r in zip(spans, rows, strict=True)]
    last = np.array([i for end, wanted in ends for i in range(end - wanted, end)], np.int32)
    sampling = sampling_fields([r.seq for r in rows if r.samples])
    return PrefillBatch(
        np.concatenate((tokens, slots[:1])),
        np.array(tiles, np.int32),
        np.array(spans, np.int32),
        last,
        tables[0],
        sampling,
        slots[1:],
        tables[1:],
    )


def pair_seeds(sampling: Ints) -> Ints:
    """`sampling` with the two halves of each seed adjacent, so that the device reads them as one int64."""
    out = sampling.copy()
    out[4:6] = sampling[4:6].T.reshape(2, -1)
    return out


def pad_last(values: Ints, width: int, fill: int) -> Ints:
    """The last axis padded to `width` with `fill`."""
    out = np.full((*values.shape[:-1], width), fill, np.int32)
    out[..., : values.shape[-1]] = values
    return out
