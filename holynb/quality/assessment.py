"""How good a run's answers are: each route against the labels and by its scores, the routes against each other. Pure; knows no run.

Rows that failed are outside every figure, and counted; accuracy is also said with them as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from holynb.quality import agreement
from holynb.quality.confusion import Confusion
from holynb.quality.intervals import Interval, bootstrap, wilson
from holynb.quality.paired import Difference, holm, mcnemar, paired_bootstrap

__all__ = ["Agreement", "AnswerFacts", "Assessment", "Labelled", "PairTest", "Scored", "assess"]

#: Answers without labels are taken for names of classes where they are few, and come again and again.
MAX_NAMES = 50


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """The rows of a run: those of a prompt follow each other, one for each of `variants` (its route, and which of its answers it is).

    `answers`: folded; None where the row has none, or has not ended. `failed`: it ended without one. `labels`: folded; `names`: how each is
    written. `scores`: a judge's, None where it gave none. `scale`: the judge's.
    """

    variants: Sequence[tuple[str, int]]
    answers: Sequence[str | None]
    failed: Sequence[bool]
    labels: Sequence[str | None] | None = None
    names: dict[str, str] = field(default_factory=dict)
    scores: Sequence[int | None] | None = None
    scale: str = ""

    @property
    def routes(self) -> list[str]:
        return list(dict.fromkeys(route for route, _ in self.variants))

    @property
    def samples(self) -> int:
        return len({k for _, k in self.variants})

    def rows(self, route: str) -> list[int]:
        """The rows of a route."""
        places = [i for i, (name, _) in enumerate(self.variants) if name == route]
        return [start + i for start in range(0, len(self.answers), len(self.variants)) for i in places]

    def prompt(self, row: int) -> int:
        return row // len(self.variants)


@dataclass(frozen=True)
class Labelled:
    """One route against the labels. `failed` and `unlabelled`: rows that are in no figure."""

    route: str
    confusion: Confusion
    failed: int
    unlabelled: int

    @property
    def accuracy_of_all(self) -> float | None:
        """With rows that failed as wrong."""
        n = self.confusion.n + self.failed
        return self.confusion.hits / n if n else None

    @cached_property
    def accuracy_interval(self) -> Interval | None:
        return self.confusion.accuracy_interval()

    @cached_property
    def f1_interval(self) -> Interval | None:
        return self.confusion.macro_f1_interval()

    @cached_property
    def kappa_interval(self) -> Interval | None:
        return self.confusion.kappa_interval()


@dataclass(frozen=True, slots=True)
class Scored:
    """A judge's scores of one route's answers. `unscored`: answers without one; `counts`: score → answers; `mean`: of pass and fail, the
    share that passed.
    """

    route: str
    scale: str
    n: int
    unscored: int
    mean: float | None
    interval: Interval | None
    counts: dict[int, int]

    @classmethod
    def of(cls, route: str, scale: str, counts: Mapping[int, int], unscored: int) -> Scored:
        """Of scores that are counted already, without an interval."""
        n = sum(counts.values())
        mean = sum(score * k for score, k in counts.items()) / n if n else None
        return cls(route, scale, n, unscored, mean, None, dict(sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers agree. measure: `kappa` of two routes, `alpha` of several or of one's samples. n: of what both or all were asked."""

    between: str
    measure: str
    n: int
    value: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class PairTest:
    """Whether `second` is better than `first` on the rows that both answered. `p_holm`: corrected for how many pairs are tested."""

    what: str
    test: str
    first: str
    second: str
    n: int
    difference: float
    interval: Interval | None
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """All of it. Empty where nothing can be said."""

    labelled: Sequence[Labelled] = ()
    scored: Sequence[Scored] = ()
    agreed: Sequence[Agreement] = ()
    tested: Sequence[PairTest] = ()

    def __bool__(self) -> bool:
        return bool(self.labelled or self.scored or self.agreed)


def assess(facts: AnswerFacts) -> Assessment:
    """The figures of a run so far."""
    return Assessment(
        [_labelled(facts, facts.labels, route) for route in facts.routes] if facts.labels is not None else (),
        [_scored(facts, facts.scores, route) for route in facts.routes] if facts.scores is not None else (),
        _agreed(facts) if len(facts.variants) > 1 and _are_names(facts) else (),
        [*_tested(facts, "accuracy"), *_tested(facts, "score")] if len(facts.routes) > 1 else (),
    )


def _labelled(facts: AnswerFacts, labels: Sequence[str | None], route: str) -> Labelled:
    rows = facts.rows(route)
    with_label = [row for row in rows if labels[row] is not None]
    answered = [row for row in with_label if facts.answers[row] is not None]
    pairs = [(facts.names[labels[row] or ""], facts.names.get(facts.answers[row] or "")) for row in answered]
    units = [facts.prompt(row) for row in answered] if facts.samples > 1 else None
    failed = sum(facts.failed[row] for row in with_label)
    return Labelled(route, Confusion(list(facts.names.values()), pairs, units), failed, len(rows) - len(with_label))


def _scored(facts: AnswerFacts, scores: Sequence[int | None], route: str) -> Scored:
    answered = [row for row in facts.rows(route) if facts.answers[row] is not None]
    given = [(facts.prompt(row), score) for row in answered if (score := scores[row]) is not None]
    counts, n = Counter(score for _, score in given), len(given)
    mean = sum(score for _, score in given) / n if n else None
    shares = facts.scale == "pass/fail" and facts.samples == 1
    interval = wilson(counts[1], n) if shares else _mean_interval(given)
    return Scored(route, facts.scale, n, len(answered) - n, mean, interval, dict(sorted(counts.items())))


def _mean_interval(given: Sequence[tuple[int, int]]) -> Interval | None:
    """Of a mean, by the percentile bootstrap over prompts."""
    import numpy as np

    of_prompt: dict[int, list[int]] = {}
    for prompt, score in given:
        of_prompt.setdefault(prompt, []).append(score)
    kinds = Counter((sum(scores), len(scores)) for scores in of_prompt.values())
    sums: np.ndarray[Any, Any] = np.array(list(kinds) or [(0, 0)])
    return bootstrap(list(kinds.values()), lambda r: np.asarray((r @ sums[:, 0]) / (r @ sums[:, 1]))) if len(of_prompt) > 1 else None


# -- routes and samples against each other -----------------------------------------------------------------------------
def _are_names(facts: AnswerFacts) -> bool:
    """Whether answers are names of classes, so that two of them can agree. Whole sentences never do, and κ would say so of any two."""
    if facts.labels is not None:
        return True
    given = [a for a in facts.answers if a is not None]
    return 0 < len(set(given)) <= min(MAX_NAMES, len(given) // 2)


def _agreed(facts: AnswerFacts) -> list[Agreement]:
    n, routes, out = len(facts.variants), facts.routes, list[Agreement]()
    prompts = range(0, len(facts.answers), n)
    by_sample: dict[int, list[int]] = {}
    for place, (_, k) in enumerate(facts.variants):
        by_sample.setdefault(k, []).append(place)
    if len(routes) > 1:  # of each sample, the answers of all routes, in order
        units = [[facts.answers[start + place] for place in places] for places in by_sample.values() for start in prompts]
        for i, j in combinations(range(len(routes)), 2):
            pairs = [(unit[i], unit[j]) for unit in units]
            whole = sum(a is not None and b is not None for a, b in pairs)
            between = f"{routes[i]} and {routes[j]}"
            out.append(Agreement(between, "kappa", whole, agreement.kappa(pairs), agreement.kappa_interval(pairs)))
        if len(routes) > 2:
            out.append(_alpha(f"all {len(routes)} routes", units))
    if facts.samples > 1:
        for route in routes:
            places = [place for place, (name, _) in enumerate(facts.variants) if name == route]
            units = [[facts.answers[start + place] for place in places] for start in prompts]
            out.append(_alpha(f"{len(places)} samples" + (f" of {route}" if len(routes) > 1 else ""), units))
    return out


def _alpha(between: str, units: Sequence[Sequence[str | None]]) -> Agreement:
    n = sum(sum(value is not None for value in unit) > 1 for unit in units)
    return Agreement(between, "alpha", n, agreement.alpha(units), agreement.alpha_interval(units))


def _tested(facts: AnswerFacts, what: str) -> list[PairTest]:
    """Every pair of routes, by what each prompt came to: right or wrong, or its score; the mean of its samples."""
    worth: dict[str, list[float | None]] = {}
    for route in facts.routes:
        of_prompt: dict[int, list[int]] = {}
        for row in facts.rows(route):
            if (value := _worth(facts, row, what)) is not None:
                of_prompt.setdefault(facts.prompt(row), []).append(value)
        prompts = range(len(facts.answers) // len(facts.variants))
        worth[route] = [sum(of_prompt[p]) / len(of_prompt[p]) if p in of_prompt else None for p in prompts]
    tests = []
    for first, second in combinations(facts.routes, 2):
        pairs = [(a, b) for a, b in zip(worth[first], worth[second], strict=True) if a is not None and b is not None]
        if pairs and (difference := paired_bootstrap(*zip(*pairs, strict=True))) is not None:
            tests.append(_pair_test(facts, what, (first, second), pairs, difference))
    corrected = holm([t.p for t in tests])
    return [replace(t, p_holm=p) for t, p in zip(tests, corrected, strict=True)] if len(tests) > 1 else tests


def _pair_test(
    facts: AnswerFacts, what: str, routes: tuple[str, str], pairs: Sequence[tuple[float, float]], difference: Difference
) -> PairTest:
    test, p = "paired bootstrap", difference.p
    if what == "accuracy" and facts.samples == 1:
        test, p = "exact McNemar", mcnemar(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
    return PairTest(what, test, *routes, difference.n, difference.mean, difference.interval, p)


def _worth(facts: AnswerFacts, row: int, what: str) -> int | None:
    if facts.answers[row] is None:
        return None
    if what == "score":
        return None if facts.scores is None else facts.scores[row]
    label = None if facts.labels is None else facts.labels[row]
    return None if label is None else int(facts.answers[row] == label)
