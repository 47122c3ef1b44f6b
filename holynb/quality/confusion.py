"""Answers against labels, counted: which label was answered how, and the figures that follow. Pure.

The definitions are scikit-learn's, which a test holds them to: a precision of nothing predicted counts as 0 in an average. An answer that
is none of the labels is a class of its own that no row is of (`OTHER`): it is wrong, and lowers no class's precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holynb.quality.intervals import Interval, bootstrap, wilson

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClassFigures", "Confusion"]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class. None where there is nothing to divide by: nothing predicted, or no row of it."""

    name: str
    precision: float | None
    recall: float | None
    f1: float
    support: int
    predicted: int


class Confusion:
    """Pairs of (label, answer) over `names`: each label one of them, each answer one of them or None, which is any other.

    `counts`: pair of places among `names` (the answer's is their number where it is another) → how many rows.
    units: of each pair, what was asked; where something was asked several times, its rows are no news of each other, and are resampled
    together.
    """

    def __init__(self, names: Sequence[str], pairs: Iterable[tuple[str, str | None]], units: Sequence[Hashable] | None = None) -> None:
        self.names = tuple(names)
        place = {name: i for i, name in enumerate(self.names)}
        other = len(self.names)
        places = [(place[label], other if answer is None else place[answer]) for label, answer in pairs]
        self.counts = dict(sorted(Counter(places).items()))
        self._kinds: list[int] = list(self.counts.values())
        self._of_kind: np.ndarray[Any, Any] | None = None
        if units is not None:
            self._kinds, self._of_kind = _together(places, units, list(self.counts))
        self.n = sum(self.counts.values())
        self.hits = sum(n for (i, j), n in self.counts.items() if i == j)

    @classmethod
    def counted(cls, names: Sequence[str], counts: Mapping[tuple[int, int], int]) -> Confusion:
        """Of pairs that are counted already."""
        whole = cls(names, ())
        whole.counts = dict(sorted(counts.items()))
        whole.n, whole._kinds = sum(counts.values()), list(whole.counts.values())
        whole.hits = sum(n for (i, j), n in counts.items() if i == j)
        return whole

    def row(self, i: int) -> list[int]:
        """How rows of class `i` were answered; the last number is of other answers."""
        return [self.counts.get((i, j), 0) for j in range(len(self.names) + 1)]

    @property
    def others(self) -> int:
        """Answers that are none of the classes."""
        return sum(n for (_, j), n in self.counts.items() if j == len(self.names))

    # -- figures ---------------------------------------------------------------------------------------------------
    @property
    def accuracy(self) -> float | None:
        """The share of rows whose answer is their label."""
        return self.hits / self.n if self.n else None

    def accuracy_interval(self) -> Interval | None:
        """Wilson's; by the percentile bootstrap where something was asked several times."""
        if self._of_kind is None:
            return wilson(self.hits, self.n)

        def figure(resamples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            hit, support, _ = self._margins(resamples)
            return np.asarray(hit.sum(axis=1) / support.sum(axis=1))

        import numpy as np

        return bootstrap(self._kinds, figure)

    @cached_property
    def by_class(self) -> tuple[ClassFigures, ...]:
        """Precision, recall and F1 of each class that a row is of, or that was answered."""
        support, predicted = Counter[int](), Counter[int]()
        for (i, j), n in self.counts.items():
            support[i] += n
            predicted[j] += n
        out = []
        for k, name in enumerate(self.names):
            hit, of, as_ = self.counts.get((k, k), 0), support[k], predicted[k]
            if of or as_:
                out.append(ClassFigures(name, hit / as_ if as_ else None, hit / of if of else None, 2 * hit / (of + as_), of, as_))
        return tuple(out)

    @property
    def macro(self) -> tuple[float, float, float] | None:
        """Precision, recall and F1, each class counting alike."""
        figures = self.by_class
        if not figures:
            return None
        n = len(figures)
        return sum(c.precision or 0.0 for c in figures) / n, sum(c.recall or 0.0 for c in figures) / n, sum(c.f1 for c in figures) / n

    @property
    def weighted_f1(self) -> float | None:
        """F1, each row counting alike."""
        return sum(c.f1 * c.support for c in self.by_class) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's κ between labels and answers; None where chance alone would agree always."""
        if not self.n:
            return None
        support, predicted = Counter[int](), Counter[int]()
        for (i, j), n in self.counts.items():
            support[i] += n
            predicted[j] += n
        chance = sum(n * predicted[k] for k, n in support.items())  # in n², so that nothing is rounded before it must be
        return (self.hits * self.n - chance) / (self.n * self.n - chance) if chance < self.n * self.n else None

    # -- how sure --------------------------------------------------------------------------------------------------
    def macro_f1_interval(self) -> Interval | None:
        """By the percentile bootstrap. A class that a resample has no row of is no part of its mean."""
        import numpy as np

        def figure(resamples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            hit, support, predicted = self._margins(resamples)
            sizes = support + predicted
            with np.errstate(invalid="ignore", divide="ignore"):
                f1 = np.where(sizes > 0, 2 * hit / sizes, np.nan)
                return np.asarray(np.nansum(f1, axis=1) / (sizes > 0).sum(axis=1))

        return bootstrap(self._kinds, figure) if self.counts else None

    def kappa_interval(self) -> Interval | None:
        """By the percentile bootstrap."""
        import numpy as np

        def figure(resamples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            hit, support, predicted = self._margins(resamples)
            n = support.sum(axis=1).astype(float)
            with np.errstate(invalid="ignore", divide="ignore"):
                chance = (support.astype(float) * predicted).sum(axis=1) / n**2
                return np.asarray(np.where(chance < 1, (hit.sum(axis=1) / n - chance) / (1 - chance), np.nan))

        return bootstrap(self._kinds, figure) if self.kappa is not None else None

    def _margins(self, resamples: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        """Of each resample and class: hits, rows of it, answers of it. `resamples`: one row each, one column a kind of unit."""
        import numpy as np

        if self._of_kind is not None:
            resamples = resamples @ self._of_kind
        of, as_ = np.array([i for i, _ in self.counts]), np.array([j for _, j in self.counts])
        k = len(self.names)
        out = []
        for places in (np.where(of == as_, of, k), of, as_):
            order = np.argsort(places, kind="stable")
            present, starts = np.unique(places[order], return_index=True)
            sums = np.zeros((len(resamples), k + 1), dtype=np.int64)
            sums[:, present] = np.add.reduceat(resamples[:, order], starts, axis=1)
            out.append(sums[:, :k])
        return tuple(out)


def _together(
    places: Sequence[tuple[int, int]], units: Sequence[Hashable], cells: Sequence[tuple[int, int]]
) -> tuple[list[int], np.ndarray[Any, Any]]:
    """How many units there are of each kind (the same pairs), and how often each kind has each of `cells`."""
    import numpy as np

    column = {cell: i for i, cell in enumerate(cells)}
    of_unit: dict[Hashable, list[int]] = {}
    for cell, unit in zip(places, units, strict=True):
        of_unit.setdefault(unit, []).append(column[cell])
    kinds = Counter(tuple(sorted(columns)) for columns in of_unit.values())
    matrix = np.zeros((len(kinds), len(cells)), dtype=np.int64)
    for row, columns in enumerate(kinds):
        for c in columns:
            matrix[row, c] += 1
    return list(kinds.values()), matrix
