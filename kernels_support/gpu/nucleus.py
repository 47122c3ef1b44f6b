"""Where top-k and top-p cut a row of logits, by Triton: one program a row, three looks at the row, the rest over what could be the edge.

Exact, without a sort: `sampling.threshold_reference` is the plain torch side. A first look keeps the largest logit that each lane of the program met. The k-th
largest of those is no larger than the k-th largest of all, and a mass that those alone make up lies above the edge of the nucleus; what is below such a bound is
left out, and what remains fits into registers, where halving an interval 32 times costs little. A row that is too flat for that is halved over all of it until it is not.
"""

from __future__ import annotations

import torch

from kernels_support.gpu.lang import after, jit, start, tl

__all__ = ["LANES", "edges", "raw"]

#: Lanes of a program, and logits that are kept as candidates.
LANES = 4096


def edges(logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, lanes: int = LANES) -> torch.Tensor:
    """(rows,) float32: the smallest logit over temperature that stays in; minus infinity where all do, or the row is greedy."""
    rows, vocab = logits.shape
    edge = torch.empty(rows, dtype=torch.float32, device=logits.device)
    kept = torch.empty(rows, lanes, dtype=torch.float32, device=logits.device)
    start(_edge, (rows,), logits, temperature, top_k, top_p, edge, kept, vocab, lanes=lanes, num_warps=16)
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
def _edge(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, temperature_ptr: tl.tensor, k_ptr: tl.tensor, p_ptr: tl.tensor, edge_ptr: tl.tensor, kept_ptr: tl.tensor,
    vocab: tl.tensor, lanes: tl.constexpr, pdl: tl.constexpr,
) -> None:  # fmt: skip
    after(pdl)
    row, lane = tl.program_id(0).to(tl.int64), tl.arange(0, lanes)
    temperature, k, p = tl.load(temperature_ptr + row), tl.load(k_ptr + row), tl.load(p_ptr + row)
    if (temperature <= 0) | ((k <= 0) & (p >= 1)):
        tl.store(edge_ptr + row, float("-inf"))
        return
    scale = 1.0 / temperature
    tops = tl.full((lanes,), float("-inf"), tl.float32)
    for first in range(0, vocab, lanes):
        tops = tl.maximum(tops, raw(logits_ptr, row, first + lane, vocab) * scale)
    peak = tl.max(tops, 0)
    least = tl.full((), -2139095041, tl.int32)  # minus infinity, so ordered: it always keeps enough
    most = _ordered(peak) + 1
    total = tl.full((), 0.0, tl.float32)
    if k > 0:
        bound = _counted(_ordered(tops), k, least, most)
    else:
        mass = tl.zeros((lanes,), tl.float32)
        for first in range(0, vocab, lanes):
            mass += tl.exp(raw(logits_ptr, row, first + lane, vocab) * scale - peak)
        total = tl.sum(mass, 0)
        weights = tl.exp(tops - peak)
        # Where the lanes' largest do not make up the nucleus: all that weigh less than this together make up less than what it leaves out.
        bound = _ordered(peak + tl.log(total * (1 - p) / vocab))
        if tl.sum(weights, 0) >= p * total:
            bound = _weighed(_ordered(tops), weights, p * total, least, most)
    wanted = total * p
    count = _gathered(logits_ptr, kept_ptr, row, vocab, scale, bound, lanes)
    if count > lanes:
        # Halved over the row until what is left fits, or there is nothing left to halve.
        high = most
        middle = (bound & high) + ((bound ^ high) >> 1)
        while (count > lanes) & (middle != bound):
            n, mass = _reach(logits_ptr, row, vocab, scale, middle, peak, lanes)
            enough = tl.where(k > 0, n >= k, mass >= wanted)
            bound, high, count = tl.where(enough, middle, bound), tl.where(enough, high, middle), tl.where(enough, n, count)
            middle = (bound & high) + ((bound ^ high) >> 1)
        if count <= lanes:
            count = _gathered(logits_ptr, kept_ptr, row, vocab, scale, bound, lanes)
    low = bound
    if count <= lanes:
        tl.debug_barrier()  # what other threads of this program have kept
        x = tl.load(kept_ptr + row * lanes + lane, mask=lane < count, other=float("-inf"))
        ordered, weights, low = _ordered(x), tl.exp(x - peak), least
        if k > 0:
            low = _counted(ordered, k, least, most)
            wanted = tl.sum(tl.where(ordered >= low, weights, 0.0), 0) * p
        if p < 1:
            low = _weighed(ordered, weights, wanted, low, most)
    elif (k > 0) & (p < 1):
        _, mass = _reach(logits_ptr, row, vocab, scale, low, peak, lanes)
        wanted, high = mass * p, most
        for _ in range(32):
            middle = (low & high) + ((low ^ high) >> 1)
            _, mass = _reach(logits_ptr, row, vocab, scale, middle, peak, lanes)
            low, high = tl.where(mass >= wanted, middle, low), tl.where(mass >= wanted, high, middle)
    tl.store(edge_ptr + row, _floats(low))


@jit
def _gathered(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, kept_ptr: tl.tensor, row: tl.tensor, vocab: tl.tensor, scale: tl.tensor, least: tl.tensor, lanes: tl.constexpr
) -> tl.tensor:  # fmt: skip
    """Keeps the logits that reach `least`, as many as there are lanes. Returns how many there were."""
    lane, count = tl.arange(0, lanes), 0
    for first in range(0, vocab, lanes):
        x = raw(logits_ptr, row, first + lane, vocab) * scale
        here = ((_ordered(x) >= least) & (x > float("-inf"))).to(tl.int32)
        more = tl.sum(here, 0)
        if more > 0:
            place = count + tl.cumsum(here, 0) - 1
            tl.store(kept_ptr + row * lanes + place, x, mask=(here > 0) & (place < lanes))
            count += more
    return count


@jit
def _reach(  # noqa: PLR0917 - what a kernel needs
    logits_ptr: tl.tensor, row: tl.tensor, vocab: tl.tensor, scale: tl.tensor, least: tl.tensor, peak: tl.tensor, lanes: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """How many of the whole row reach `least`, and what they weigh."""
    lane = tl.arange(0, lanes)
    count, mass = tl.zeros((lanes,), tl.int32), tl.zeros((lanes,), tl.float32)
    for first in range(0, vocab, lanes):
        x = raw(logits_ptr, row, first + lane, vocab) * scale
        here = (_ordered(x) >= least) & (x > float("-inf"))
        count += here.to(tl.int32)
        mass += tl.where(here, tl.exp(x - peak), 0.0)
    return tl.sum(count, 0), tl.sum(mass, 0)


@jit
def _counted(ordered: tl.tensor, k: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """The largest number that at least `k` reach; `low` where fewer are there. Exact after 32 halvings."""
    for _ in range(32):
        middle = (low & high) + ((low ^ high) >> 1)
        enough = tl.sum((ordered >= middle).to(tl.int32), 0) >= k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low


@jit
def _weighed(ordered: tl.tensor, weights: tl.tensor, wanted: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """The largest number such that those which reach it weigh as much as is wanted."""
    for _ in range(32):
        middle = (low & high) + ((low ^ high) >> 1)
        enough = tl.sum(tl.where(ordered >= middle, weights, 0.0), 0) >= wanted
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low
