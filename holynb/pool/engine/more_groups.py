"""What a GPU's step needs of the KV cache's groups behind the first: buffers that never move, and attention over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from holynb.pool.engine.inputs import DecodeBatch, PrefillBatch, pad_last
from holynb.pool.engine.model import Attend
from holynb.pool.engine.pinned import PinnedBuffers
from kernels_support.gpu.feeding_groups import GroupInputs, feed_groups
from kernels_support.gpu.paged import Decode, Prefill

__all__ = ["MoreGroups"]


class MoreGroups:
    """Block tables and slots of `groups` groups, for up to `rows` rows of `width` blocks and `chunk` prompt tokens."""

    def __init__(self, groups: int, rows: int, width: int, chunk: int, like: Tensor) -> None:
        ints = partial(torch.zeros, dtype=torch.int32, device=like.device)
        self.groups = groups
        self.decode_tables, self.prefill_tables = ints(groups, rows, width), ints(groups, rows, width)
        self.blocks, self.decode_slots, self.prompt_slots = ints(groups * rows), ints(groups, rows), ints(groups * chunk)
        #: Integers that one step sends at most.
        self.size = groups * (rows + chunk + 2 * rows * width)
        #: Its input buffers, and what each is filled with where there are no rows.
        self.blank = {self.blocks: -1, self.prompt_slots: -1} if groups else {}

    def send_tables(self, pinned: PinnedBuffers, batch: DecodeBatch, rows: int) -> None:
        """The tables of so many decode rows."""
        for table, target in zip(batch.more_tables, self.decode_tables, strict=True):
            pinned.send_table(table[:rows, : batch.columns], target)

    def send_blocks(self, pinned: PinnedBuffers, batch: DecodeBatch, size: int) -> None:
        """The new blocks of decode rows, of which there are `size` with the empty ones."""
        if self.groups:
            pinned.send(batch.more_blocks[:, :size], self.blocks)

    def send_prefill(self, pinned: PinnedBuffers, batch: PrefillBatch, size: int) -> None:
        """Slots and tables of prompt chunks, of which there are `size` tokens with the empty ones."""
        if self.groups:
            pinned.send(pad_last(batch.more_slots, size, -1), self.prompt_slots)
            for table, target in zip(batch.more_tables, self.prefill_tables, strict=True):
                pinned.send_table(table, target)

    def decode(self, inputs: Tensor, attend: Decode) -> Sequence[tuple[Tensor, Attend]]:
        """Slots, computed on the device from the decode rows' inputs (4, rows), and attention of each group."""
        rows = inputs.shape[1]
        if not self.groups:
            return ()
        blocks = self.blocks[: self.groups * rows].view(self.groups, rows)
        feed_groups(GroupInputs(inputs, blocks, self.decode_tables, self.decode_slots, attend.page))
        return [
            (slots[:rows], replace(attend, table=table[:rows])) for slots, table in zip(self.decode_slots, self.decode_tables, strict=True)
        ]

    def prefill(self, chunk: int, attend: Prefill) -> Sequence[tuple[Tensor, Attend]]:
        """Slots and attention of each group, of `chunk` prompt tokens."""
        slots, rows = self.prompt_slots[: self.groups * chunk].view(self.groups, chunk), len(attend.table)
        return [(its, replace(attend, table=table[:rows])) for its, table in zip(slots, self.prefill_tables, strict=True)]
