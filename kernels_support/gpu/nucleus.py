"""Where top-k and top-p cut a row of logits, by Triton: the whole device looks at the rows once, then a program a row finds the edge among what could be it.

Exact, without a sort: `sampling.threshold_reference` is the plain torch side. The first look keeps the largest logit of each group and what the group weighs. The k-th
largest of those is no larger than the k-th largest of all, and a mass that those alone make up lies above the edge of the nucleus. So only groups that reach such a bound are
looked at again, and what reaches it there mostly fits into registers, where halving an interval costs little. A row that is too flat for that is narrowed over all of it until it is not.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, start, tl, triton

__all__ = ["FEW", "GROUP", "LANES", "edges", "raw"]

#: Logits of a group.
GROUP = 128

#: Groups that a program looks at together.
_TOGETHER = 16

#: Programs of the first look. Three times as many are a twelfth quicker, and take twice as long to come and go where nothing is cut.
_PROGRAMS = 1200

#: Logits that are kept as candidates, and how many of them a program halves quickest.
LANES, FEW = 4096, 512


def edges(logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, lanes: int = LANES) -> torch.Tensor:
    """(rows,) float32: the smallest logit over temperature that stays in; minus infinity where all do, or the row is greedy."""
    rows, vocab = logits.shape
    pieces = triton.cdiv(vocab, GROUP * _TOGETHER)
    groups, share = pieces * _TOGETHER, triton.cdiv(rows * pieces, _PROGRAMS)
    new = logits.new_empty
    edge, kept = new(rows, dtype=torch.float32), new(rows, lanes, dtype=torch.float32)
    tops, masses, found = new(rows, groups, dtype=torch.float32), new(rows, groups, dtype=torch.float32), new(rows, groups, dtype=torch.int32)
    how = temperature, top_k, top_p
    start(
        _survey, (rows, triton.cdiv(pieces, share)), logits, *how, tops, masses, vocab, pieces, share,
        groups=_TOGETHER, group=GROUP, num_warps=4,
    )  # fmt: skip
    start(
        _edge, (rows,), logits, *how, edge, tops, masses, found, kept, vocab, groups,
        group=GROUP, wide=triton.next_power_of_2(groups), lanes=lanes, few=min(FEW, lanes), num_warps=16,
    )  # fmt: skip
    return edge


@jit
def raw(logits_ptr: tl.tensor, row: tl.tensor, at: tl.tensor, vocab: tl.tensor) -> tl.tensor:
    """Logits; minus infinity beyond the vocabulary."""
    return tl.load(logits_ptr + row * vocab + at, mask=at < vocab, other=float("-inf")).to(tl.float32)


@jit
def _ordered(x: tl.tensor) -> tl.tensor:
    """Floats as integers of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def _floats(x: tl.tensor) -> tl.tensor:
    """`_ordered` undone."""
    return (x ^ ((x >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@jit
def _between(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """The middle of two integers, rounded down, without their sum. Not above `low` where nothing is between them, or they are the wrong way round: logits may be no numbers."""
    return (low & high) + ((low ^ high) >> 1)


@jit
def _survey(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, temperature_ptr: tl.tensor, k_ptr: tl.tensor, p_ptr: tl.tensor, top_ptr: tl.tensor, mass_ptr: tl.tensor,
    vocab: tl.tensor, pieces: tl.tensor, share: tl.tensor, groups: tl.constexpr, group: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    """Each group's largest logit over temperature and, where no top-k says what the nucleus is a part of, what the group weighs beside it."""
    after(pdl)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        return
    scale, which = 1.0 / temperature, tl.arange(0, groups)
    inside = which[:, None] * group + tl.arange(0, group)[None, :]
    for piece in range(part * share, tl.minimum(part * share + share, pieces)):
        x = raw(logits_ptr, row, piece * (groups * group) + inside, vocab) * scale
        top = tl.max(x, 1)
        place = (row * pieces + piece) * groups + which
        tl.store(top_ptr + place, top)
        if k <= 0:
            tl.store(mass_ptr + place, tl.sum(tl.exp(x - tl.where(top > float("-inf"), top, 0.0)[:, None]), 1))


@jit
def _edge(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, temperature_ptr: tl.tensor, k_ptr: tl.tensor, p_ptr: tl.tensor, edge_ptr: tl.tensor, top_ptr: tl.tensor, mass_ptr: tl.tensor, found_ptr: tl.tensor, kept_ptr: tl.tensor,
    vocab: tl.tensor, groups: tl.tensor, group: tl.constexpr, wide: tl.constexpr, lanes: tl.constexpr, few: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    after(pdl)
    row, which = tl.program_id(0).to(tl.int64), tl.arange(0, wide)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        tl.store(edge_ptr + row, float("-inf"))
        return
    scale = 1.0 / temperature
    tops = tl.load(top_ptr + row * groups + which, mask=which < groups, other=float("-inf"))
    peak = tl.max(tops, 0)
    total, least = tl.full((), 0.0, tl.float32), tl.full((), float("-inf"), tl.float32)
    if k > 0:
        bound = _bound(tops, tl.where(tops > float("-inf"), 1.0, 0.0), k.to(tl.float32), least)
    else:
        weights = tl.exp(tops - peak)
        total = tl.sum(tl.load(mass_ptr + row * groups + which, mask=which < groups, other=0.0) * weights, 0)
        # Where the groups' largest do not make up the nucleus: all that weigh less than this together make up less than what it leaves out.
        bound = _bound(tops, weights, p * total, peak + tl.log(total * (1 - p) / vocab))
    wanted = total * p
    low, most = _ordered(bound), _ordered(peak) + 1
    high, count, again = most, lanes + 1, True
    while again:
        count, mass = _gathered(logits_ptr, found_ptr, kept_ptr, row, tops, vocab, groups, scale, _floats(low), peak, group, lanes)
        again = False
        if count > lanes:
            # Narrowed over the row until what is left fits, or there is nothing between any more.
            while (count > lanes) & (_between(low, high) > low):
                low, high, count, mass = _quartered(logits_ptr, row, vocab, scale, low, high, count, mass, k, wanted, peak, lanes)
                again = count <= lanes
            if (count > lanes) & (k > 0) & (p < 1):  # top-k's edge, and now top-p's above it
                k, wanted, high, again = k * 0, mass * p, most, True
    if count <= few:
        low = _among(kept_ptr + row * lanes, count, k, p, wanted, peak, low, most, few)
    elif count <= lanes:
        low = _among(kept_ptr + row * lanes, count, k, p, wanted, peak, low, most, lanes)
    tl.store(edge_ptr + row, _floats(low))


@jit
def _bound(tops: tl.tensor, weights: tl.tensor, wanted: tl.tensor, otherwise: tl.tensor) -> tl.tensor:
    """Nearly the largest number such that those of `tops` which reach it weigh as much as is wanted, never more; `otherwise` where all of them do not."""
    high = tl.max(tops, 0)
    low = tl.min(tl.where(tops > float("-inf"), tops, high), 0)
    if tl.sum(weights, 0) < wanted:
        low = otherwise
    else:
        for _ in range(12):
            middle = 0.5 * (low + high)
            enough = tl.sum(tl.where(tops >= middle, weights, 0.0), 0) >= wanted
            low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low


@jit
def _gathered(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, found_ptr: tl.tensor, kept_ptr: tl.tensor, row: tl.tensor, tops: tl.tensor, vocab: tl.tensor, groups: tl.tensor, scale: tl.tensor, bound: tl.tensor, peak: tl.tensor,
    group: tl.constexpr, lanes: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Keeps the logits that reach `bound`, as many as there are lanes. Returns how many there were, and what they weigh."""
    tl.debug_barrier()  # what was found before has been read by all threads
    hit = ((tops >= bound) & (tops > float("-inf"))).to(tl.int32)
    tl.store(found_ptr + row * groups + tl.cumsum(hit, 0) - 1, tl.arange(0, tops.shape[0]), mask=hit > 0)
    many, lane, count, mass = tl.sum(hit, 0) * group, tl.arange(0, lanes), 0, tl.zeros((lanes,), tl.float32)
    tl.debug_barrier()
    for first in range(0, many, lanes):
        at = first + lane
        place = tl.load(found_ptr + row * groups + at // group, mask=at < many, other=0) * group + at % group
        x = raw(logits_ptr, row, place, vocab) * scale
        here = ((at < many) & (x >= bound) & (x > float("-inf"))).to(tl.int32)
        mass += tl.where(here > 0, tl.exp(x - peak), 0.0)
        place = count + tl.cumsum(here, 0) - 1
        tl.store(kept_ptr + row * lanes + place, x, mask=(here > 0) & (place < lanes))
        count += tl.sum(here, 0)
    tl.debug_barrier()
    return count, tl.sum(mass, 0)


@jit
def _among(  # noqa: PLR0917 - what a kernel needs
    kept_ptr: tl.tensor, count: tl.tensor, k: tl.tensor, p: tl.tensor, wanted: tl.tensor, peak: tl.tensor, low: tl.tensor, high: tl.tensor, lanes: tl.constexpr
) -> tl.tensor:  # fmt: skip
    """The edge, in order, among the candidates, which all reach `low`: top-k's, then top-p's among what is left of them."""
    lane = tl.arange(0, lanes)
    x = tl.load(kept_ptr + lane, mask=lane < count, other=float("-inf"))
    ordered, weights = _ordered(x), tl.exp(x - peak)
    if k > 0:
        top = high
        middle = _between(low, top)
        while middle > low:
            enough = tl.sum((ordered >= middle).to(tl.int32), 0) >= k
            low, top = tl.where(enough, middle, low), tl.where(enough, top, middle)
            middle = _between(low, top)
        wanted = tl.sum(tl.where(ordered >= low, weights, 0.0), 0) * p
    if p < 1:
        middle = _between(low, high)
        while middle > low:
            enough = tl.sum(tl.where(ordered >= middle, weights, 0.0), 0) >= wanted
            low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
            middle = _between(low, high)
    return low


@jit
def _quartered(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, row: tl.tensor, vocab: tl.tensor, scale: tl.tensor, low: tl.tensor, high: tl.tensor, count: tl.tensor, mass: tl.tensor, k: tl.tensor, wanted: tl.tensor, peak: tl.tensor, lanes: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """The quarter of an interval in which the edge lies, how many of the whole row reach its lower end and what they weigh: one look, two halvings."""
    middle = _between(low, high)
    first, third = _between(low, middle), _between(middle, high)
    lane = tl.arange(0, lanes)
    n_1, n_2, n_3 = tl.zeros((lanes,), tl.int32), tl.zeros((lanes,), tl.int32), tl.zeros((lanes,), tl.int32)
    m_1, m_2, m_3 = tl.zeros((lanes,), tl.float32), tl.zeros((lanes,), tl.float32), tl.zeros((lanes,), tl.float32)
    for begin in range(0, vocab, lanes):
        x = raw(logits_ptr, row, begin + lane, vocab) * scale
        ordered, weight = _ordered(x), tl.exp(x - peak)
        there = x > float("-inf")
        n_1 += ((ordered >= first) & there).to(tl.int32)
        n_2 += ((ordered >= middle) & there).to(tl.int32)
        n_3 += ((ordered >= third) & there).to(tl.int32)
        m_1 += tl.where(ordered >= first, weight, 0.0)
        m_2 += tl.where(ordered >= middle, weight, 0.0)
        m_3 += tl.where(ordered >= third, weight, 0.0)
    c_1, c_2, c_3, w_1, w_2, w_3 = tl.sum(n_1, 0), tl.sum(n_2, 0), tl.sum(n_3, 0), tl.sum(m_1, 0), tl.sum(m_2, 0), tl.sum(m_3, 0)
    e_1 = tl.where(k > 0, c_1 >= k, w_1 >= wanted)
    e_2 = tl.where(k > 0, c_2 >= k, w_2 >= wanted)
    e_3 = tl.where(k > 0, c_3 >= k, w_3 >= wanted)
    count = tl.where(e_3, c_3, tl.where(e_2, c_2, tl.where(e_1, c_1, count)))
    mass = tl.where(e_3, w_3, tl.where(e_2, w_2, tl.where(e_1, w_1, mass)))
    high = tl.where(e_3, high, tl.where(e_2, third, tl.where(e_1, middle, first)))
    return tl.where(e_3, third, tl.where(e_2, middle, tl.where(e_1, first, low))), high, count, mass
