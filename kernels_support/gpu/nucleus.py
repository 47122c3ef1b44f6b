"""The logit threshold of top-k (Fan et al. 2018, arXiv:1805.04833) and top-p (Holtzman et al. 2019, arXiv:1904.09751), by Triton.

Exact, without a sort; `sampling.threshold_reference` is the plain torch side. First the whole device reads each row once and keeps the
maximum and the mass (sum of exponentials) of every group of logits. Then one program per row bounds the threshold from below: the k-th
largest group maximum is no larger than the k-th largest logit, and where the maxima above a bound alone reach the mass of the nucleus,
its threshold is not below that bound. Only groups whose maximum reaches the bound are read again. Their logits above it are the
candidates; mostly they fit into registers, where bisection is cheap. A row too flat for that is narrowed over the whole row first
(`threshold_search.py`).
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import jit, launch_kernel, pdl_barrier, tl, triton
from kernels_support.gpu.threshold_search import (
    bisect_candidates,
    from_ordered_int,
    gather_candidates,
    load_logits,
    lower_bound,
    midpoint,
    narrow_interval,
    to_ordered_int,
)

__all__ = ["FAST_CANDIDATES", "GROUP_LOGITS", "MAX_CANDIDATES", "logit_thresholds"]

GROUP_LOGITS = 128

#: Groups that a program reads at once.
_GROUPS_PER_READ = 16

#: Programs of the first pass. Three times as many are a twelfth faster, and take twice as long to start and end where nothing is cut.
_MAX_PROGRAMS = 1200

#: Logits that are kept as candidates, and how many of them a program bisects fastest.
MAX_CANDIDATES, FAST_CANDIDATES = 4096, 512


def logit_thresholds(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, max_candidates: int = MAX_CANDIDATES
) -> torch.Tensor:
    """(rows,) float32: the smallest logit over temperature that is kept; minus infinity where all are, or the row is greedy."""
    rows, vocab = logits.shape
    reads = triton.cdiv(vocab, GROUP_LOGITS * _GROUPS_PER_READ)
    groups, reads_per_program = reads * _GROUPS_PER_READ, triton.cdiv(rows * reads, _MAX_PROGRAMS)
    new = logits.new_empty
    threshold, candidates = new(rows, dtype=torch.float32), new(rows, max_candidates, dtype=torch.float32)
    maxima, masses = new(rows, groups, dtype=torch.float32), new(rows, groups, dtype=torch.float32)
    hits = new(rows, groups, dtype=torch.int32)
    _launch_group_stats(logits, (temperature, top_k, top_p), maxima, masses, reads_per_program)
    launch_kernel(
        _threshold,
        (rows,),
        logits,
        temperature,
        top_k,
        top_p,
        threshold,
        maxima,
        masses,
        hits,
        candidates,
        vocab,
        groups,
        group=GROUP_LOGITS,
        groups_padded=triton.next_power_of_2(groups),
        max_candidates=max_candidates,
        fast_candidates=min(FAST_CANDIDATES, max_candidates),
        num_warps=16,
    )
    return threshold


def _launch_group_stats(
    logits: torch.Tensor, params: tuple[torch.Tensor, ...], maxima: torch.Tensor, masses: torch.Tensor, reads_per_program: int
) -> None:
    rows, vocab = logits.shape
    reads = maxima.shape[1] // _GROUPS_PER_READ
    launch_kernel(
        _group_stats,
        (rows, triton.cdiv(reads, reads_per_program)),
        logits,
        *params,
        maxima,
        masses,
        vocab,
        reads,
        reads_per_program,
        groups=_GROUPS_PER_READ,
        group=GROUP_LOGITS,
        num_warps=4,
    )


@jit
def _group_stats(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    k_ptr: tl.tensor,
    p_ptr: tl.tensor,
    max_ptr: tl.tensor,
    mass_ptr: tl.tensor,
    vocab: tl.tensor,
    reads: tl.tensor,
    reads_per_program: tl.tensor,
    groups: tl.constexpr,
    group: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    """Each group's largest logit over temperature and, for top-p without top-k, the group's mass relative to it."""
    pdl_barrier(pdl)
    row, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        return
    scale, index = 1.0 / temperature, tl.arange(0, groups)
    inside = index[:, None] * group + tl.arange(0, group)[None, :]
    for read in range(program * reads_per_program, tl.minimum(program * reads_per_program + reads_per_program, reads)):
        x = load_logits(logits_ptr, row, read * (groups * group) + inside, vocab) * scale
        maximum = tl.max(x, 1)
        place = (row * reads + read) * groups + index
        tl.store(max_ptr + place, maximum)
        if k <= 0:
            tl.store(mass_ptr + place, tl.sum(tl.exp(x - tl.where(maximum > float("-inf"), maximum, 0.0)[:, None]), 1))


@jit
def _threshold(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    k_ptr: tl.tensor,
    p_ptr: tl.tensor,
    threshold_ptr: tl.tensor,
    max_ptr: tl.tensor,
    mass_ptr: tl.tensor,
    hit_ptr: tl.tensor,
    candidate_ptr: tl.tensor,
    vocab: tl.tensor,
    groups: tl.tensor,
    group: tl.constexpr,
    groups_padded: tl.constexpr,
    max_candidates: tl.constexpr,
    fast_candidates: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_barrier(pdl)
    row, index = tl.program_id(0).to(tl.int64), tl.arange(0, groups_padded)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        tl.store(threshold_ptr + row, float("-inf"))
        return
    scale = 1.0 / temperature
    maxima = tl.load(max_ptr + row * groups + index, mask=index < groups, other=float("-inf"))
    peak = tl.max(maxima, 0)
    total, no_bound = tl.full((), 0.0, tl.float32), tl.full((), float("-inf"), tl.float32)
    if k > 0:
        bound = lower_bound(maxima, tl.where(maxima > float("-inf"), 1.0, 0.0), k.to(tl.float32), no_bound)
    else:
        weights = tl.exp(maxima - peak)
        total = tl.sum(tl.load(mass_ptr + row * groups + index, mask=index < groups, other=0.0) * weights, 0)
        # Where the maxima do not reach the nucleus's mass: all logits below this bound weigh less together than what the nucleus omits.
        bound = lower_bound(maxima, weights, p * total, peak + tl.log(total * (1 - p) / vocab))
    target_mass = total * p
    low, top = to_ordered_int(bound), to_ordered_int(peak) + 1
    high, count, again = top, max_candidates + 1, True
    while again:
        count, mass = gather_candidates(
            logits_ptr, hit_ptr, candidate_ptr, row, maxima, vocab, groups, scale, from_ordered_int(low), peak, group, max_candidates
        )
        again = False
        if count > max_candidates:
            # Narrowed over the whole row until the candidates fit, or no value is left in between.
            while (count > max_candidates) & (midpoint(low, high) > low):
                low, high, count, mass = narrow_interval(
                    logits_ptr, row, vocab, scale, low, high, count, mass, k, target_mass, peak, max_candidates
                )
                again = count <= max_candidates
            if (count > max_candidates) & (k > 0) & (p < 1):  # that was top-k's threshold; now top-p's above it
                k, target_mass, high, again = k * 0, mass * p, top, True
    if count <= fast_candidates:
        low = bisect_candidates(candidate_ptr + row * max_candidates, count, k, p, target_mass, peak, low, top, fast_candidates)
    elif count <= max_candidates:
        low = bisect_candidates(candidate_ptr + row * max_candidates, count, k, p, target_mass, peak, low, top, max_candidates)
    tl.store(threshold_ptr + row, from_ordered_int(low))
