"""How sure a figure is: Wilson's interval of a share, and the percentile bootstrap of anything that is counted. Pure.

A bootstrap draws as many units as there are, with replacement. Units that are alike need no draw each: how often each kind comes is one
multinomial draw, so that a million rows cost what their few kinds do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DRAWS", "SEED", "Interval", "Z", "bootstrap", "draws", "percentile", "wilson"]

#: Resamples of a bootstrap, and what it is seeded with: the same rows have the same interval.
DRAWS, SEED = 2_000, 0
#: Of a level of 95 %.
Z = 1.959963984540054
LOW, HIGH = 2.5, 97.5
#: Numbers in one piece of the draws.
PIECE = 1 << 20


class Interval(NamedTuple):
    """95 %: `low` to `high`."""

    low: float
    high: float


def wilson(hits: int, n: int, z: float = Z) -> Interval | None:
    """The interval of a share of `hits` in `n` (E. B. Wilson, 1927). None of nothing."""
    if n <= 0:
        return None
    p, zz = hits / n, z * z
    centre, half = (p + zz / (2 * n)) / (1 + zz / n), z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # At the ends the formula is exact, and a float is not.
    return Interval(0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == n else min(1.0, centre + half))


def draws(counts: Sequence[int], n: int = DRAWS) -> Iterator[np.ndarray[Any, Any]]:
    """How often each kind of unit comes in each of `n` resamples, in pieces: one row a resample. `counts`: of the kinds."""
    import numpy as np

    rng, size = np.random.default_rng(SEED), sum(counts)
    shares = np.asarray(counts, dtype=float) / size
    step = max(1, PIECE // max(1, len(counts)))
    for first in range(0, n, step):
        yield rng.multinomial(size, shares, size=min(step, n - first))


def bootstrap(counts: Sequence[int], figure: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Interval | None:
    """The percentile interval of `figure`, which takes resamples (one a row) and gives a number for each, NaN where it has none.

    None where most resamples have no such figure.
    """
    import numpy as np

    if sum(counts) < 2:
        return None
    return percentile(np.concatenate([figure(piece) for piece in draws(counts)]))


def percentile(values: np.ndarray[Any, Any]) -> Interval | None:
    """The interval that holds the middle of these values."""
    import numpy as np

    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values):
        return None
    low, high = np.percentile(known, [LOW, HIGH])
    return Interval(float(low), float(high))
