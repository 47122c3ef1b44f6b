"""Whether one route is better than another on the same rows, or only luckier: tests of pairs, and Holm's correction of several. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from holynb.quality.intervals import Interval, draws, percentile

__all__ = ["Difference", "holm", "mcnemar", "paired_bootstrap"]

#: Up to so many pairs that differ McNemar's p is summed term by term; beyond, from the middle outwards as far as terms count.
_NEGLIGIBLE = 1e-30


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of the second less that of the first, on the rows that both have; `p`: two-sided."""

    n: int
    mean: float
    interval: Interval | None
    p: float | None


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: how likely so uneven a split of the rows is that only one of two got right."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0 or only_first == only_second:
        return 1.0
    # From the largest term down: 2⁻ⁿ itself is 0 for a float beyond 1,074 rows, its logarithm never.
    term = math.exp(math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2))
    if n <= 1000:
        ways = sum(math.comb(n, i) for i in range(fewer + 1))
        return min(1.0, 2 * ways / (1 << n))
    total, i = 0.0, fewer
    while i >= 0 and term > total * _NEGLIGIBLE:
        total += term
        term *= i / (n - i + 1)
        i -= 1
    return min(1.0, 2 * total)


def paired_bootstrap(first: Sequence[float | None], second: Sequence[float | None]) -> Difference | None:
    """How much better the second scores, by a bootstrap over the rows that both have; None where there is none.

    p: twice the share of resamples on the other side of zero, those at zero counted half; never below what so many can tell.
    """
    import numpy as np

    apart = Counter(b - a for a, b in zip(first, second, strict=True) if a is not None and b is not None)
    n = apart.total()
    if n == 0:
        return None
    values, counts = np.array(list(apart)), list(apart.values())
    mean = float(values @ np.array(counts)) / n
    if n < 2:
        return Difference(n, mean, None, None)
    means = np.concatenate([piece @ values / n for piece in draws(counts)])
    below, at = float((means < 0).mean()), float((means == 0).mean())
    p = 2 * min(below + at / 2, 1 - below - at / 2)
    # Of n rows no split is rarer than all on one side: a resample of two rows that are alike tells nothing.
    return Difference(n, mean, percentile(means), min(1.0, max(p, 1 / len(means), 2.0 ** (1 - n))))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """The p values, corrected for how many there are (S. Holm, 1979); None stays None, and is no test."""
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        out[place] = largest
    return out
