"""The slots of a decode step in a cache of several groups of layers, each with a block table: what `feeding` does for the first of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_wait, tl

__all__ = ["GroupInputs", "feed_groups", "feed_groups_reference"]


@dataclass(frozen=True, slots=True)
class GroupInputs:
    """Read: of `host`, as in `feeding.DecodeInputs`, the positions; `blocks` (groups, rows): a new block or -1; and `tables` (groups, all
    rows, blocks), which are also updated. Written: `slots` (groups, all rows), -1 of an empty row. All are int32.
    """

    host: torch.Tensor
    blocks: torch.Tensor
    tables: torch.Tensor
    slots: torch.Tensor
    page: int


def feed_groups_reference(inputs: GroupInputs) -> None:
    """Plain torch, row by row."""
    page = inputs.page
    for group, (table, slots) in enumerate(zip(inputs.tables, inputs.slots, strict=True)):
        for row, position in enumerate(inputs.host[2].tolist()):
            block = int(inputs.blocks[group, row])
            if position >= 0 and block >= 0:
                table[row, position // page] = block
            slots[row] = int(table[row, position // page]) * page + position % page if position >= 0 else -1


def feed_groups(inputs: GroupInputs) -> None:
    """`feed_groups_reference`, by Triton: one program per row and group."""
    launch_kernel(
        _feed_groups,
        (inputs.host.shape[1], inputs.blocks.shape[0]),
        inputs.host,
        inputs.blocks,
        inputs.tables,
        inputs.slots,
        inputs.host.stride(0),
        inputs.tables.stride(0),
        inputs.tables.stride(1),
        inputs.slots.stride(0),
        page=inputs.page,
        num_warps=1,
    )


@jit
def _feed_groups(  # noqa: PLR0917 - what a kernel needs
    host_ptr: tl.tensor,
    block_ptr: tl.tensor,
    table_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    host_stride: tl.tensor,
    group_stride: tl.tensor,
    table_stride: tl.tensor,
    slot_stride: tl.tensor,
    page: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_wait(pdl)
    row, group = tl.program_id(0), tl.program_id(1)
    # The rows of what the host sent lie as far from each other as the groups' new blocks.
    position, block = tl.load(host_ptr + 2 * host_stride + row), tl.load(block_ptr + group * host_stride + row)
    active = position >= 0
    entry_ptr = table_ptr + group.to(tl.int64) * group_stride + row.to(tl.int64) * table_stride + tl.maximum(position, 0) // page
    old_block = tl.load(entry_ptr, mask=active & (block < 0), other=0)
    tl.store(entry_ptr, block, mask=active & (block >= 0))
    slot = tl.where(block >= 0, block, old_block) * page + position % page
    tl.store(slot_ptr + group * slot_stride + row, tl.where(active, slot, -1))
