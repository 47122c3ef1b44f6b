"""Which experts a token goes to (Shazeer et al. 2017, arXiv:1701.06538): softmax over all, the top few, and each expert's list of them.

Nothing here waits for the host, and no size depends on the tokens, so that it can be part of a CUDA graph: an expert's list has room for
all rows, and is as long as its count says. Within a list the order is whatever the device's atomics made of it; nothing depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton

__all__ = ["ExpertLists", "launch", "route_reference"]


@dataclass(frozen=True, slots=True)
class ExpertLists:
    """Where rows go. A pair is a row and one of its experts: row · top + place.

    `counts` (experts,) int32: pairs of each expert; `lists` (experts, rows) int32: which; `weights` (rows, top) float32: what each pair's
    result is multiplied by.
    """

    counts: torch.Tensor
    lists: torch.Tensor
    weights: torch.Tensor

    @property
    def top(self) -> int:
        return self.weights.shape[1]


def route_reference(logits: torch.Tensor, top: int, *, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights, experts), each (rows, top), of (rows, experts): in float32 up to the weights, which are rounded as transformers does.

    `renormalize`: the weights of the chosen ones add up to 1.
    """
    weights, experts = torch.topk(torch.softmax(logits, -1, dtype=torch.float32), top, dim=-1)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype).float(), experts


def launch(logits: torch.Tensor, counts: torch.Tensor, top: int, dtype: torch.dtype, *, renormalize: bool) -> ExpertLists:
    """One program, of one warp, a row. `counts`: zeros. `dtype`: what logits and weights are rounded to.

    Logits (rows, experts), or (splits, rows, experts) float32: the partial sums of a split-K product.
    """
    rows, experts = logits.shape[-2:]
    routes = ExpertLists(counts, counts.new_empty(experts, rows), logits.new_empty(rows, top, dtype=torch.float32))
    launch_kernel(
        _route,
        (rows,),
        logits,
        counts,
        routes.lists,
        routes.weights,
        logits.new_empty(0, dtype=dtype),
        rows,
        experts,
        splits=1 if logits.dim() == 2 else logits.shape[0],
        block=triton.next_power_of_2(experts),
        top=top,
        places=triton.next_power_of_2(top),
        renormalize=renormalize,
        num_warps=1,
    )
    return routes


@jit
def _route(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    lists_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    like_ptr: tl.tensor,
    rows: tl.tensor,
    experts: tl.tensor,
    splits: tl.constexpr,
    block: tl.constexpr,
    top: tl.constexpr,
    places: tl.constexpr,
    renormalize: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    row = tl.program_id(0)
    expert, place = tl.arange(0, block), tl.arange(0, places)
    dtype = like_ptr.dtype.element_ty
    logits = tl.load(logits_ptr + row * experts + expert, mask=expert < experts, other=-float("inf")).to(tl.float32)
    for split in tl.static_range(1, splits):
        logits += tl.load(logits_ptr + (split * rows + row) * experts + expert, mask=expert < experts, other=0.0)
    logits = logits.to(dtype).to(tl.float32)
    left = tl.exp(logits - tl.max(logits, 0))
    left = left / tl.sum(left, 0)
    # A row that is only there to fill a graph's size may hold anything, and must still name experts that there are.
    left = tl.where(expert < experts, tl.where(left == left, left, 0.0), -1.0)  # noqa: PLR0124 - false for what is not a number
    chosen = tl.zeros((places,), tl.int32)
    weights = tl.zeros((places,), tl.float32)
    for i in tl.static_range(top):
        weight, best = tl.max(left, 0), tl.argmax(left, 0)
        chosen = tl.where(place == i, best, chosen)
        weights = tl.where(place == i, weight, weights)
        left = tl.where(expert == best, -1.0, left)
    if renormalize:
        weights = weights / tl.sum(weights, 0)
    is_place = place < top
    tl.store(weights_ptr + row * top + place, weights.to(dtype).to(tl.float32), mask=is_place)
    rank = tl.atomic_add(counts_ptr + chosen, 1, mask=is_place, sem="relaxed")
    tl.store(lists_ptr + chosen.to(tl.int64) * rows + rank, row * top + place, mask=is_place)
