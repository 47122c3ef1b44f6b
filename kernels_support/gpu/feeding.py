"""What a decode step reads, made on the device: token ids out of the step before, slots and lengths out of positions and the block table.

So the host never waits for a token to start the next step; it says only where each row's token lies and which rows got a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import after, jit, start, tl

__all__ = ["Feed", "feed", "feed_reference"]


@dataclass(frozen=True, slots=True)
class Feed:
    """`said` (4, rows) int32 from the host: source among `tokens` or -1, the id where it is -1, position (-1: no row), new block or -1.

    Written: `ids`, `positions`, `slots` (-1: no row), `lengths` (0: no row) and `following` (the position being sampled), each (rows,) int32.
    """

    said: torch.Tensor
    tokens: torch.Tensor
    table: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor
    following: torch.Tensor
    page: int


def feed_reference(f: Feed) -> None:
    """Plain torch, row by row."""
    for row in range(f.ids.shape[0]):
        source, known, position, block = (int(x) for x in f.said[:, row])
        there = position >= 0
        if there and block >= 0:
            f.table[row, position // f.page] = block
        f.ids[row] = (f.tokens[source] if source >= 0 else known) if there else 0
        f.positions[row] = max(position, 0)
        f.slots[row] = int(f.table[row, position // f.page]) * f.page + position % f.page if there else -1
        f.lengths[row] = f.following[row] = position + 1


def feed(f: Feed) -> None:
    """`feed_reference`, by Triton."""
    rows = f.ids.shape[0]
    start(
        _feed,
        (rows,),
        f.said,
        f.tokens,
        f.table,
        f.ids,
        f.positions,
        f.slots,
        f.lengths,
        f.following,
        f.said.stride(0),
        f.table.stride(0),
        page=f.page,
        num_warps=1,
    )


@jit
def _feed(  # noqa: PLR0917 - what a kernel needs
    said_ptr: tl.tensor, token_ptr: tl.tensor, table_ptr: tl.tensor, id_ptr: tl.tensor, position_ptr: tl.tensor, slot_ptr: tl.tensor, length_ptr: tl.tensor, following_ptr: tl.tensor,
    rows: tl.tensor, width: tl.tensor, page: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    after(pdl)
    row = tl.program_id(0)
    source, known = tl.load(said_ptr + row), tl.load(said_ptr + rows + row)
    position, block = tl.load(said_ptr + 2 * rows + row), tl.load(said_ptr + 3 * rows + row)
    there = position >= 0
    place = table_ptr + row.to(tl.int64) * width + tl.maximum(position, 0) // page
    old = tl.load(place, mask=there & (block < 0), other=0)
    tl.store(place, block, mask=there & (block >= 0))
    token = tl.load(token_ptr + source, mask=source >= 0, other=0)
    tl.store(id_ptr + row, tl.where(there, tl.where(source >= 0, token, known), 0))
    tl.store(position_ptr + row, tl.maximum(position, 0))
    tl.store(slot_ptr + row, tl.where(there, tl.where(block >= 0, block, old) * page + position % page, -1))
    tl.store(length_ptr + row, position + 1)
    tl.store(following_ptr + row, position + 1)
