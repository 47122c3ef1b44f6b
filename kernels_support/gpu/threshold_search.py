"""Device functions of the top-k and top-p threshold search (`nucleus.py`).

Floats are bisected as ordered integers, among candidates in registers or over a whole row of logits.
"""

from __future__ import annotations

from kernels_support.gpu.lang import jit, tl

__all__ = [
    "bisect_candidates",
    "from_ordered_int",
    "gather_candidates",
    "load_logits",
    "lower_bound",
    "midpoint",
    "narrow_interval",
    "to_ordered_int",
]


@jit
def load_logits(logits_ptr: tl.tensor, row: tl.tensor, token: tl.tensor, vocab: tl.tensor) -> tl.tensor:
    """Logits as float32; minus infinity beyond the vocabulary."""
    return tl.load(logits_ptr + row * vocab + token, mask=token < vocab, other=float("-inf")).to(tl.float32)


@jit
def to_ordered_int(x: tl.tensor) -> tl.tensor:
    """Float bits as integers that compare as the floats do."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def from_ordered_int(x: tl.tensor) -> tl.tensor:
    """The inverse of `to_ordered_int`."""
    return (x ^ ((x >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@jit
def midpoint(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """The mean of two integers, rounded down, without overflow.

    Not above `low` where nothing lies between them or `high` < `low` (as NaN logits may leave them), so that every bisection ends.
    """
    return (low & high) + ((low ^ high) >> 1)


@jit
def lower_bound(maxima: tl.tensor, weights: tl.tensor, target: tl.tensor, default: tl.tensor) -> tl.tensor:
    """Approximately, never above, the largest bound such that the `maxima` that reach it weigh `target`; `default` where all weigh less."""
    high = tl.max(maxima, 0)
    low = tl.min(tl.where(maxima > float("-inf"), maxima, high), 0)
    if tl.sum(weights, 0) < target:
        low = default
    else:
        for _ in range(12):
            middle = 0.5 * (low + high)
            reached = tl.sum(tl.where(maxima >= middle, weights, 0.0), 0) >= target
            low, high = tl.where(reached, middle, low), tl.where(reached, high, middle)
    return low


@jit
def gather_candidates(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    hit_ptr: tl.tensor,
    candidate_ptr: tl.tensor,
    row: tl.tensor,
    maxima: tl.tensor,
    vocab: tl.tensor,
    groups: tl.tensor,
    scale: tl.tensor,
    bound: tl.tensor,
    peak: tl.tensor,
    group: tl.constexpr,
    max_candidates: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Store the logits that reach `bound`, at most `max_candidates`. Returns how many there are, and their mass."""
    tl.debug_barrier()  # all threads have read the previous candidates
    hit = ((maxima >= bound) & (maxima > float("-inf"))).to(tl.int32)
    tl.store(hit_ptr + row * groups + tl.cumsum(hit, 0) - 1, tl.arange(0, maxima.shape[0]), mask=hit > 0)
    to_read, slot, count, mass = tl.sum(hit, 0) * group, tl.arange(0, max_candidates), 0, tl.zeros((max_candidates,), tl.float32)
    tl.debug_barrier()
    for first in range(0, to_read, max_candidates):
        at = first + slot
        place = tl.load(hit_ptr + row * groups + at // group, mask=at < to_read, other=0) * group + at % group
        x = load_logits(logits_ptr, row, place, vocab) * scale
        kept = ((at < to_read) & (x >= bound) & (x > float("-inf"))).to(tl.int32)
        mass += tl.where(kept > 0, tl.exp(x - peak), 0.0)
        place = count + tl.cumsum(kept, 0) - 1
        tl.store(candidate_ptr + row * max_candidates + place, x, mask=(kept > 0) & (place < max_candidates))
        count += tl.sum(kept, 0)
    tl.debug_barrier()
    return count, tl.sum(mass, 0)


@jit
def bisect_candidates(  # noqa: PLR0917 - what a kernel needs
    candidate_ptr: tl.tensor,
    count: tl.tensor,
    k: tl.tensor,
    p: tl.tensor,
    target_mass: tl.tensor,
    peak: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    size: tl.constexpr,
) -> tl.tensor:
    """The threshold, as an ordered integer, among the candidates, all of which reach `low`: top-k's, then top-p's over what that keeps."""
    slot = tl.arange(0, size)
    x = tl.load(candidate_ptr + slot, mask=slot < count, other=float("-inf"))
    ordered, weights = to_ordered_int(x), tl.exp(x - peak)
    if k > 0:
        top = high
        middle = midpoint(low, top)
        while middle > low:
            reached = tl.sum((ordered >= middle).to(tl.int32), 0) >= k
            low, top = tl.where(reached, middle, low), tl.where(reached, top, middle)
            middle = midpoint(low, top)
        target_mass = tl.sum(tl.where(ordered >= low, weights, 0.0), 0) * p
    if p < 1:
        middle = midpoint(low, high)
        while middle > low:
            reached = tl.sum(tl.where(ordered >= middle, weights, 0.0), 0) >= target_mass
            low, high = tl.where(reached, middle, low), tl.where(reached, high, middle)
            middle = midpoint(low, high)
    return low


@jit
def narrow_interval(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor,
    row: tl.tensor,
    vocab: tl.tensor,
    scale: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    count: tl.tensor,
    mass: tl.tensor,
    k: tl.tensor,
    target_mass: tl.tensor,
    peak: tl.tensor,
    block: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """The quarter of the interval with the threshold, and the row's count and mass above its lower end: two bisections in one pass."""
    middle = midpoint(low, high)
    first, third = midpoint(low, middle), midpoint(middle, high)
    offset = tl.arange(0, block)
    n_1, n_2, n_3 = tl.zeros((block,), tl.int32), tl.zeros((block,), tl.int32), tl.zeros((block,), tl.int32)
    m_1, m_2, m_3 = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for begin in range(0, vocab, block):
        x = load_logits(logits_ptr, row, begin + offset, vocab) * scale
        ordered, weight = to_ordered_int(x), tl.exp(x - peak)
        finite = x > float("-inf")
        n_1 += ((ordered >= first) & finite).to(tl.int32)
        n_2 += ((ordered >= middle) & finite).to(tl.int32)
        n_3 += ((ordered >= third) & finite).to(tl.int32)
        m_1 += tl.where(ordered >= first, weight, 0.0)
        m_2 += tl.where(ordered >= middle, weight, 0.0)
        m_3 += tl.where(ordered >= third, weight, 0.0)
    c_1, c_2, c_3, w_1, w_2, w_3 = tl.sum(n_1, 0), tl.sum(n_2, 0), tl.sum(n_3, 0), tl.sum(m_1, 0), tl.sum(m_2, 0), tl.sum(m_3, 0)
    reached_1 = tl.where(k > 0, c_1 >= k, w_1 >= target_mass)
    reached_2 = tl.where(k > 0, c_2 >= k, w_2 >= target_mass)
    reached_3 = tl.where(k > 0, c_3 >= k, w_3 >= target_mass)
    count = tl.where(reached_3, c_3, tl.where(reached_2, c_2, tl.where(reached_1, c_1, count)))
    mass = tl.where(reached_3, w_3, tl.where(reached_2, w_2, tl.where(reached_1, w_1, mass)))
    high = tl.where(reached_3, high, tl.where(reached_2, third, tl.where(reached_1, middle, first)))
    return tl.where(reached_3, third, tl.where(reached_2, middle, tl.where(reached_1, first, low))), high, count, mass
