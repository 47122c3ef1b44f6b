"""The inputs of a decode step, computed on the device: token ids from the previous step's output, slots and lengths from the block table.

So the host never waits for a token before it launches the next step: it sends only where each row's token lies and which rows got a new
block of the paged KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl

__all__ = ["DecodeInputs", "feed", "feed_reference"]


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """Read: `host` (4, rows) int32 from the host, `tokens` of the previous step, and `table`, the block table, which is also updated.

    The rows of `host`: index into `tokens` or -1, token id where that is -1, position (-1: the row is empty), new block or -1.
    Written: `ids`, `positions`, `slots` (-1: empty row), `lengths` (0: empty row) and `next_positions` (of the token being sampled);
    each (rows,) int32.
    """

    host: torch.Tensor
    tokens: torch.Tensor
    table: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor
    next_positions: torch.Tensor
    page: int


def feed_reference(inputs: DecodeInputs) -> None:
    """Plain torch, row by row."""
    page = inputs.page
    for row in range(inputs.ids.shape[0]):
        source, host_id, position, block = (int(x) for x in inputs.host[:, row])
        active = position >= 0
        if active and block >= 0:
            inputs.table[row, position // page] = block
        inputs.ids[row] = (max(int(inputs.tokens[source]), 0) if source >= 0 else host_id) if active else 0
        inputs.positions[row] = max(position, 0)
        inputs.slots[row] = int(inputs.table[row, position // page]) * page + position % page if active else -1
        inputs.lengths[row] = inputs.next_positions[row] = position + 1


def feed(inputs: DecodeInputs) -> None:
    """`feed_reference`, by Triton: one program per row."""
    rows = inputs.ids.shape[0]
    launch_kernel(
        _feed,
        (rows,),
        inputs.host,
        inputs.tokens,
        inputs.table,
        inputs.ids,
        inputs.positions,
        inputs.slots,
        inputs.lengths,
        inputs.next_positions,
        inputs.host.stride(0),
        inputs.table.stride(0),
        page=inputs.page,
        num_warps=1,
    )


@jit
def _feed(  # noqa: PLR0917 - what a kernel needs
    host_ptr: tl.tensor,
    token_ptr: tl.tensor,
    table_ptr: tl.tensor,
    id_ptr: tl.tensor,
    position_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    length_ptr: tl.tensor,
    next_position_ptr: tl.tensor,
    host_stride: tl.tensor,
    table_stride: tl.tensor,
    page: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    row = tl.program_id(0)
    source, host_id = tl.load(host_ptr + row), tl.load(host_ptr + host_stride + row)
    position, block = tl.load(host_ptr + 2 * host_stride + row), tl.load(host_ptr + 3 * host_stride + row)
    active = position >= 0
    entry_ptr = table_ptr + row.to(tl.int64) * table_stride + tl.maximum(position, 0) // page
    old_block = tl.load(entry_ptr, mask=active & (block < 0), other=0)
    tl.store(entry_ptr, block, mask=active & (block >= 0))
    # Of a row whose last logits were no numbers there is no token; it ends once the host knows.
    token = tl.maximum(tl.load(token_ptr + source, mask=source >= 0, other=0), 0)
    tl.store(id_ptr + row, tl.where(active, tl.where(source >= 0, token, host_id), 0))
    tl.store(position_ptr + row, tl.maximum(position, 0))
    tl.store(slot_ptr + row, tl.where(active, tl.where(block >= 0, block, old_block) * page + position % page, -1))
    tl.store(length_ptr + row, position + 1)
    tl.store(next_position_ptr + row, position + 1)
