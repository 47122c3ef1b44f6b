"""One-shot all-reduce over symmetric memory, fused with the residual add and RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) that follow.

Each rank of a tensor-parallel group loads all ranks' partial sums straight from their memory (torch's symmetric memory, as peer
addresses) and reduces them itself. A library's all-reduce would write the sum for the next kernel to read again.
Ranks meet by the put/wait signals of torch's symmetric memory: a compare-and-swap 0 → 1 with release on the peer's flag, 1 → 0 with
acquire on the own one. There is no second barrier: two consecutive all-reduces never use the same buffer, and a rank that has met its
peers in the second one has finished reading the first, so nobody overwrites what another rank still reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.norms import rms_norm_reference

__all__ = ["FLAG_COUNT", "Peers", "allreduce_rms_norm", "allreduce_rms_norm_reference"]

#: All programs must be resident at the same time, because they wait for the peers' programs.
_MAX_PROGRAMS = 120

_MAX_RANKS = 16

#: int32 flags at the start of each rank's memory: one for each rank and program.
FLAG_COUNT = _MAX_RANKS * _MAX_PROGRAMS


@dataclass(frozen=True, slots=True)
class Peers:
    """The group's symmetric memory: `addresses` (world,) int64, one for each rank; flags come first, zero at the start. `rank`: our own."""

    addresses: torch.Tensor
    rank: int
    world: int


def allreduce_rms_norm_reference(
    parts: list[torch.Tensor], residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm of the sum, sum) of the ranks' parts, added in float32, and the residual stream (None at its beginning: the parts alone).

    Shapes (tokens, hidden).
    """
    total = torch.stack([p.float() for p in parts]).sum(0).to(parts[0].dtype)
    total = total if residual is None else residual + total
    return rms_norm_reference(total, weight, eps), total


def allreduce_rms_norm(  # noqa: PLR0917 - what a kernel needs
    part: torch.Tensor, offset: int, peers: Peers, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`allreduce_rms_norm_reference` of this rank's `part`, `offset` bytes into its symmetric memory, and the peers' at the same offset.

    Every rank of the group must call it, with the same shapes. All ranks get the same bits: they add in the same order.
    """
    rows, width = part.shape
    normed, total = part.new_empty(part.shape), part.new_empty(part.shape)
    block = triton.next_power_of_2(width)
    launch_kernel(
        _allreduce_rms_norm,
        (min(rows, _MAX_PROGRAMS),),
        peers.addresses,
        part if residual is None else residual,
        weight,
        normed,
        total,
        rows,
        width,
        offset,
        eps,
        has_residual=residual is not None,
        block=block,
        rank=peers.rank,
        world=peers.world,
        num_warps=4 if block <= 2048 else 8,
    )
    return normed, total


@jit
def _allreduce_rms_norm(  # noqa: PLR0917 - what a kernel needs
    address_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    out_ptr: tl.tensor,
    total_ptr: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    offset: tl.tensor,
    eps: tl.tensor,
    has_residual: tl.constexpr,
    block: tl.constexpr,
    rank: tl.constexpr,
    world: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    program = tl.program_id(0)
    dtype = out_ptr.dtype.element_ty
    # Signal each peer that our part is written (its flag for us 0 → 1), then wait for each peer's signal (our flag for it 1 → 0).
    for peer in tl.static_range(world):
        if peer != rank:
            flag = tl.load(address_ptr + peer).to(tl.pointer_type(tl.int32)) + program * world + rank
            while tl.atomic_cas(flag, 0, 1, sem="release", scope="sys") != 0:
                pass
    for peer in tl.static_range(world):
        if peer != rank:
            flag = tl.load(address_ptr + rank).to(tl.pointer_type(tl.int32)) + program * world + peer
            while tl.atomic_cas(flag, 1, 0, sem="acquire", scope="sys") != 1:
                pass
    column = tl.arange(0, block)
    in_row = column < width
    weight = tl.load(weight_ptr + column, mask=in_row, other=0.0)
    for row in range(program, rows, tl.num_programs(0)):
        place = row * width + column  # fits 32 bits: the memory is sized for decode batches
        x = tl.zeros((block,), tl.float32)
        for peer in tl.static_range(world):
            part = (tl.load(address_ptr + peer) + offset).to(tl.pointer_type(dtype))
            x += tl.load(part + place, mask=in_row, other=0.0).to(tl.float32)
        # Rounded to the stream's dtype after each sum, as an all-reduce and an addition would round.
        total = x.to(dtype)
        if has_residual:
            total = (total.to(tl.float32) + tl.load(residual_ptr + place, mask=in_row, other=0.0).to(tl.float32)).to(dtype)
        tl.store(total_ptr + place, total, mask=in_row)
        total_f32 = total.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(total_f32 * total_f32, axis=0) / width + eps)
        tl.store(out_ptr + place, ((total_f32 * scale).to(weight.dtype).to(tl.float32) * weight.to(tl.float32)).to(dtype), mask=in_row)
