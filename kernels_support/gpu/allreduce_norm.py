"""A tensor group's partial sums, added where they lie: each rank reads its peers' memory, adds the residual and norms, in one pass.

A library's all-reduce writes the sum so that the next kernel can read it again; here the kernel that needs the sum makes it. `peers` is memory that all ranks of
the group can read (torch's symmetric memory), as addresses: one for each rank. Two sums in a row never use the same part of it, so that
nobody overwrites what another still reads: to have met in the second one is to have finished the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import after, jit, start, tl, triton
from kernels_support.gpu.norms import rms_norm_reference

__all__ = ["FLAGS", "Peers", "sum_rms_norm", "sum_rms_norm_reference"]

#: Programs at most: all of them run at the same time, as those that wait for a peer must.
_PROGRAMS = 120

#: int32 flags that a group of `world` ranks needs at the start of its memory: world * _PROGRAMS, for up to 16 ranks.
FLAGS = 16 * _PROGRAMS


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the group's memory lies: `at` (world,) int64 addresses, one for each rank; flags first, zero at the start. `me`: which one is ours."""

    at: torch.Tensor
    me: int
    world: int


def sum_rms_norm_reference(
    parts: list[torch.Tensor], residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(normed sum, sum) of all parts, added in float32, and the residual stream (none yet: the parts alone). Shapes (tokens, hidden)."""
    total = torch.stack([p.float() for p in parts]).sum(0).to(parts[0].dtype)
    total = total if residual is None else residual + total
    return rms_norm_reference(total, weight, eps), total


def sum_rms_norm(  # noqa: PLR0917 - what a kernel needs
    part: torch.Tensor, offset: int, peers: Peers, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`sum_rms_norm_reference` of this rank's `part`, which lies `offset` bytes into its memory, and the peers' at the same place.

    Every rank of the group must call it, with the same shapes. All ranks get the same bits: they add in the same order.
    """
    rows, width = part.shape
    normed, total = part.new_empty(part.shape), part.new_empty(part.shape)
    block = triton.next_power_of_2(width)
    start(
        _sum_rms_norm, (min(rows, _PROGRAMS),), peers.at, part if residual is None else residual, weight, normed, total, rows, width, offset, eps,
        has_residual=residual is not None, block=block, me=peers.me, world=peers.world, num_warps=4 if block <= 2048 else 8,
    )  # fmt: skip
    return normed, total


@jit
def _sum_rms_norm(  # noqa: PLR0917 - what a kernel needs
    at_ptr: tl.tensor, r_ptr: tl.tensor, w_ptr: tl.tensor, out_ptr: tl.tensor, sum_ptr: tl.tensor, rows: tl.tensor, width: tl.tensor, offset: tl.tensor, eps: tl.tensor,
    has_residual: tl.constexpr, block: tl.constexpr, me: tl.constexpr, world: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    after(pdl)
    program = tl.program_id(0)
    dtype = out_ptr.dtype.element_ty
    # A handshake: say to each peer that our part is there (its flag for us 0 → 1), wait until each has said so (our flag for it 1 → 0).
    for other in tl.static_range(world):
        if other != me:
            flag = tl.load(at_ptr + other).to(tl.pointer_type(tl.int32)) + program * world + me
            while tl.atomic_cas(flag, 0, 1, sem="release", scope="sys") != 0:
                pass
    for other in tl.static_range(world):
        if other != me:
            flag = tl.load(at_ptr + me).to(tl.pointer_type(tl.int32)) + program * world + other
            while tl.atomic_cas(flag, 1, 0, sem="acquire", scope="sys") != 1:
                pass
    at = tl.arange(0, block)
    ok = at < width
    weight = tl.load(w_ptr + at, mask=ok, other=0.0).to(tl.float32)
    for row in range(program, rows, tl.num_programs(0)):
        place = row * width + at  # small: the memory is made for decode batches
        x = tl.zeros((block,), tl.float32)
        for other in tl.static_range(world):
            part = (tl.load(at_ptr + other) + offset).to(tl.pointer_type(dtype))
            x += tl.load(part + place, mask=ok, other=0.0).to(tl.float32)
        # Rounded to the stream's dtype after each sum, as an all-reduce and an addition would.
        total = x.to(dtype)
        if has_residual:
            total = (total.to(tl.float32) + tl.load(r_ptr + place, mask=ok, other=0.0).to(tl.float32)).to(dtype)
        tl.store(sum_ptr + place, total, mask=ok)
        wide = total.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
        tl.store(out_ptr + place, ((wide * scale).to(dtype).to(tl.float32) * weight).to(dtype), mask=ok)
