"""How far raters agree: Cohen's κ of two, Krippendorff's α of any number with gaps. Pure.

α is written from Krippendorff's own paper, "Computing Krippendorff's Alpha-Reliability" (2011), whose worked examples are the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from holynb.quality.intervals import Interval, bootstrap

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LEVELS", "Level", "alpha", "alpha_interval", "kappa", "kappa_interval"]

#: Level of measurement: names, ranks, distances, distances from zero.
Level = Literal["nominal", "ordinal", "interval", "ratio"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval", "ratio")

#: Values of one unit by rater; None where one has none.
Unit = Sequence[Hashable]
#: A figure of more kinds of units than this, times their values, has no interval: memory and seconds.
MAX_CELLS = 4_000_000


def kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's κ of two raters (1960); pairs with a gap are left out. None where chance alone would agree always, or there is none."""
    whole = [(a, b) for a, b in pairs if a is not None and b is not None]
    n, first, second = len(whole), Counter(a for a, _ in whole), Counter(b for _, b in whole)
    chance = sum(count * second[value] for value, count in first.items())
    return (sum(a == b for a, b in whole) * n - chance) / (n * n - chance) if chance < n * n else None


def kappa_interval(pairs: Sequence[tuple[Hashable, Hashable]]) -> Interval | None:
    """Of κ, by the percentile bootstrap over pairs."""
    import numpy as np

    kinds = Counter((a, b) for a, b in pairs if a is not None and b is not None)
    values = {v: i for i, v in enumerate(dict.fromkeys(v for pair in kinds for v in pair))}
    n, k = sum(kinds.values()), len(values)
    if n < 2 or k < 2 or len(kinds) * k > MAX_CELLS:
        return None
    first, second = (np.array([values[pair[side]] for pair in kinds]) for side in (0, 1))
    same = first == second

    def figure(resamples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        margins = (
            [resamples.astype(float) @ np.eye(k)[side] for side in (first, second)] if k <= 200 else _sparse(resamples, first, second, k)
        )
        chance = (margins[0] * margins[1]).sum(axis=1) / n**2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(chance < 1, (resamples[:, same].sum(axis=1) / n - chance) / (1 - chance), np.nan))

    return bootstrap(list(kinds.values()), figure)


def alpha(units: Sequence[Unit], level: Level = "nominal") -> float | None:
    """Krippendorff's α of `units`; one with fewer than two values is left out. None where only one value was ever given."""
    kinds, values, counts = _kinds(units)
    if not kinds:
        return None
    import numpy as np

    return _none_or_float(_alpha(np.array([kinds], dtype=float), counts, values, level)[0])


def alpha_interval(units: Sequence[Unit], level: Level = "nominal") -> Interval | None:
    """Of α, by the percentile bootstrap over units."""
    kinds, values, counts = _kinds(units)
    if not kinds or counts.size > MAX_CELLS:
        return None
    return bootstrap(kinds, lambda resamples: _alpha(resamples.astype(float), counts, values, level))


def _kinds(units: Sequence[Unit]) -> tuple[list[int], list[Any], np.ndarray[Any, Any]]:
    """How many units there are of each kind (the same values, whoever gave them), the values, and how often each kind has each."""
    import numpy as np

    order: dict[Any, int] = {}
    seen: Counter[tuple[tuple[int, int], ...]] = Counter()
    for unit in units:
        counted = Counter(order.setdefault(value, len(order)) for value in unit if value is not None)
        if counted.total() > 1:
            seen[tuple(sorted(counted.items()))] += 1
    values = list(order)
    ranks = {old: new for new, old in enumerate(sorted(range(len(values)), key=lambda i: _rank(values[i])))}
    counts = np.zeros((len(seen), len(values)))
    for row, kind in enumerate(seen):
        for place, n in kind:
            counts[row, ranks[place]] = n
    return list(seen.values()), [values[old] for old in ranks], counts


def _rank(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, int | float) else (type(value).__name__, str(value))


def _alpha(weights: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], values: Sequence[Any], level: Level) -> np.ndarray[Any, Any]:
    """α of each row of `weights`: how many units there are of each kind. NaN where it has none."""
    import numpy as np

    sizes = counts.sum(axis=1)
    marginals = weights @ counts  # n_c of each resample: every unit here has two values at least
    n = marginals.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        if level == "nominal":
            apart = weights @ ((sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1))
            by_chance = (n**2 - (marginals**2).sum(axis=1)) / (n - 1)
            return np.asarray(np.where(by_chance > 0, 1 - apart / by_chance, np.nan))
        apart, by_chance = np.zeros(len(weights)), np.zeros(len(weights))
        for c in range(len(values)):
            for k in range(c + 1, len(values)):
                far = _distance(level, values, marginals, c, k)
                together = 2 * (counts[:, c] * counts[:, k] / (sizes - 1))
                apart += (weights @ together) * far
                by_chance += 2 * marginals[:, c] * marginals[:, k] / (n - 1) * far
        return np.asarray(np.where(by_chance > 0, 1 - apart / by_chance, np.nan))


def _distance(level: Level, values: Sequence[Any], marginals: np.ndarray[Any, Any], c: int, k: int) -> Any:
    """δ² of the values at `c` and `k`; of ranks it depends on how often those between them were given."""
    if level == "ordinal":
        return (marginals[:, c : k + 1].sum(axis=1) - (marginals[:, c] + marginals[:, k]) / 2) ** 2
    a, b = float(values[c]), float(values[k])
    if level == "ratio":
        return ((a - b) / (a + b)) ** 2 if a + b else 0.0
    return (a - b) ** 2


def _sparse(resamples: np.ndarray[Any, Any], first: Any, second: Any, k: int) -> list[Any]:
    """Both raters' margins where there are many values: a matrix of ones would be larger than the sums."""
    import numpy as np

    out = []
    for side in (first, second):
        order = np.argsort(side, kind="stable")
        present, starts = np.unique(side[order], return_index=True)
        sums = np.zeros((len(resamples), k))
        sums[:, present] = np.add.reduceat(resamples[:, order], starts, axis=1)
        out.append(sums)
    return out


def _none_or_float(value: Any) -> float | None:
    return None if value != value else float(value)  # noqa: PLR0124 - NaN alone differs from itself
