"""Figures against published worked examples, and against scikit-learn on random answers."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from holynb.quality import agreement, intervals, matching, paired
from holynb.quality.confusion import Confusion

NAMES = ["positive", "negative", "mixed", "none of it"]


def answers(n: int, seed: int, others: float = 0.0) -> tuple[list[str], list[str | None]]:
    rng = random.Random(seed)
    labels = [rng.choices(NAMES, [5, 3, 2, 0.2])[0] for _ in range(n)]
    given = [label if rng.random() < 0.7 else rng.choice(NAMES) for label in labels]
    return labels, [None if rng.random() < others else answer for answer in given]


@pytest.mark.parametrize(("seed", "others"), [(1, 0.0), (2, 0.1), (3, 0.9)])
def test_the_figures_are_those_of_scikit_learn_on_500_rows(seed: int, others: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that nothing was predicted as: it counts as 0 there, too
        from sklearn import metrics

        labels, given = answers(500, seed, others)
        ours = Confusion(NAMES, zip(labels, given, strict=True))
        theirs = [a or "another" for a in given]
        present = [c.name for c in ours.by_class]
        by_class = metrics.precision_recall_fscore_support(labels, theirs, labels=present)
        macro = metrics.precision_recall_fscore_support(labels, theirs, labels=present, average="macro")
        weighted = metrics.f1_score(labels, theirs, labels=present, average="weighted")
        kappa = metrics.cohen_kappa_score(labels, theirs)
        accuracy = metrics.accuracy_score(labels, theirs)
        table = metrics.confusion_matrix(labels, theirs, labels=[*NAMES, "another"])
    figures = [(c.precision or 0.0, c.recall or 0.0, c.f1, c.support) for c in ours.by_class]
    for of_class, column in zip(zip(*figures, strict=True), by_class, strict=True):
        assert of_class == pytest.approx(list(column), abs=1e-12)
    assert ours.macro == pytest.approx(macro[:3], abs=1e-12)
    assert (ours.weighted_f1, ours.kappa, ours.accuracy) == pytest.approx((weighted, kappa, accuracy), abs=1e-12)
    assert [ours.row(i) for i in range(4)] == [list(row) for row in table[:4]]


def test_two_raters_agree_as_scikit_learn_says() -> None:
    from sklearn.metrics import cohen_kappa_score

    a, b = answers(500, 5)
    assert agreement.kappa(list(zip(a, b, strict=True))) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


# -- published examples --------------------------------------------------------------------------------------------------


def test_cohens_kappa_of_fifty_proposals() -> None:
    """Two readers, 50 proposals: 20 twice yes, 15 twice no; κ is 0.4 (the example of most textbooks)."""
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert agreement.kappa(pairs) == pytest.approx(0.4, abs=1e-12)
    assert agreement.kappa([*pairs, (1, None), (None, None)]) == pytest.approx(0.4, abs=1e-12)
    assert agreement.kappa([(1, 1)] * 3) is None
    assert agreement.kappa([]) is None


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)])
def test_krippendorffs_alpha_of_four_observers(level: agreement.Level, alpha: float) -> None:
    """K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections C and D."""
    n = None
    observers = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3),
        (n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n),
    )
    units = list(zip(*observers, strict=True))
    assert agreement.alpha(units, level) == pytest.approx(alpha, abs=5e-4)
    interval = agreement.alpha_interval(units, level)
    assert interval is not None
    assert interval.low < alpha < interval.high == 1.0


@pytest.mark.parametrize(
    ("first", "second", "alpha"),
    [("0100000010", "1110010000", 0.095), ("aabbdcccedda", "babbbccceddd", 0.692)],
)
def test_krippendorffs_alpha_of_two_observers(first: str, second: str, alpha: float) -> None:
    """The same paper, sections A and B."""
    assert agreement.alpha(list(zip(first, second, strict=True))) == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_what_cannot_disagree_is_unknown() -> None:
    assert agreement.alpha([("a", "a"), ("a", "a")]) is None
    assert agreement.alpha([("a", None)]) is None
    assert agreement.alpha_interval([]) is None


def test_alpha_does_not_change_with_the_order_of_units_or_raters() -> None:
    rng = random.Random(4)
    units = [[rng.choice([1, 2, 3, 4, 5, None]) for _ in range(4)] for _ in range(40)]
    turned = [rng.sample(unit, 4) for unit in rng.sample(units, 40)]
    for level in agreement.LEVELS:
        assert agreement.alpha(units, level) == pytest.approx(agreement.alpha(turned, level), abs=1e-12)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)])
def test_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    assert intervals.wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert intervals.wilson(0, 0) is None


def test_mcnemars_exact_p() -> None:
    from scipy.stats import binomtest

    assert paired.mcnemar(1, 8) == pytest.approx(0.0390625, abs=1e-15)
    assert paired.mcnemar(0, 0) == paired.mcnemar(4, 4) == 1.0
    for a, b in [(0, 5), (12, 5), (600, 500), (9_000, 9_300), (0, 3_000), (70_000, 71_000)]:
        assert paired.mcnemar(a, b) == pytest.approx(binomtest(a, a + b).pvalue, rel=1e-8, abs=1e-300)


def test_holms_correction() -> None:
    """S. Holm's own steps: the smallest times 4, the next times 3, and never below the one before."""
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert paired.holm([]) == []


# -- how sure ------------------------------------------------------------------------------------------------------------


def test_the_bootstrap_by_kinds_is_that_of_the_rows() -> None:
    """Drawing rows one by one, as a textbook does, comes to the same interval, but for chance."""
    import numpy as np

    labels, given = answers(200, 7)
    ours = Confusion(NAMES, zip(labels, given, strict=True))
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, 200, 200)
        of_rows = Confusion(NAMES, [(labels[i], given[i]) for i in rows])
        assert of_rows.macro is not None
        drawn.append((of_rows.macro[2], of_rows.kappa))
    for interval, values in zip((ours.macro_f1_interval(), ours.kappa_interval()), zip(*drawn, strict=True), strict=True):
        assert interval == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=0.03)
    assert ours.macro_f1_interval() == ours.macro_f1_interval()  # seeded


def test_what_was_asked_several_times_is_no_news() -> None:
    """Five equal samples of a prompt say as much as one: taken for rows of their own, they would look five times as sure."""
    labels, given = answers(40, 9)
    once = [(a, b) for a, b in zip(labels, given, strict=True)]
    alone = Confusion(NAMES, once).accuracy_interval()
    together = Confusion(NAMES, once * 5, [*range(40)] * 5).accuracy_interval()
    apart = Confusion(NAMES, once * 5).accuracy_interval()
    assert alone is not None
    assert together is not None
    assert apart is not None
    assert together.high - together.low > 0.85 * (alone.high - alone.low)
    assert apart.high - apart.low < 0.55 * (alone.high - alone.low)


def test_a_paired_difference_is_surer_than_two_means() -> None:
    rng = random.Random(2)
    hard = [rng.uniform(1, 4) for _ in range(60)]
    better = paired.paired_bootstrap(hard, [h + rng.gauss(0.3, 0.4) for h in hard])
    assert better is not None
    assert better.interval is not None
    assert better.p is not None
    assert better.mean == pytest.approx(0.3, abs=0.15)
    assert better.interval.low > 0
    assert better.p < 0.01
    none = paired.paired_bootstrap(hard, hard)
    assert none is not None
    assert (none.mean, none.p) == (0.0, 1.0)


def test_two_rows_prove_nothing() -> None:
    difference = paired.paired_bootstrap([1, 1, None], [2, 2, 5])
    assert difference is not None
    assert (difference.n, difference.mean, difference.p) == (2, 1.0, 0.5)
    assert paired.paired_bootstrap([None], [1]) is None


def test_figures_of_nothing_are_unknown() -> None:
    empty = Confusion(["a"], [])
    assert (empty.accuracy, empty.macro, empty.kappa, empty.weighted_f1) == (None, None, None, None)
    assert empty.accuracy_interval() is empty.macro_f1_interval() is empty.kappa_interval() is None
    one = Confusion(["a"], [("a", "a")] * 5)
    assert (one.accuracy, one.kappa) == (1.0, None)


def test_a_million_rows_are_no_more_work_than_their_kinds() -> None:
    large = Confusion(NAMES, [])
    large.counts, large.n, large.hits = {(0, 0): 700_000, (1, 0): 300_000}, 1_000_000, 700_000
    large._kinds = [700_000, 300_000]
    interval = large.macro_f1_interval()
    assert interval is not None
    assert interval.high - interval.low < 0.001
    assert math.isclose(large.accuracy or 0, 0.7)


# -- when two texts are the same -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["Positive", " positive\n", "POSITIVE.", '"Positive"', "**positive**", "positive!?…", "„Positive“", "`positive`."]
)
def test_what_a_model_adds_around_a_label_does_not_count(text: str) -> None:
    assert matching.fold(text) == "positive"
    assert matching.fold(text, exact=True) == text


@pytest.mark.parametrize("text", ["not positive", "positive because", "posi tive", "-1", "C++", "(a)"])
def test_what_is_in_it_counts(text: str) -> None:
    assert matching.fold(text) == text.casefold()


def test_labels_of_punctuation_stay_apart() -> None:
    assert matching.fold("!") != matching.fold("?")
    assert matching.fold("STRASSE") == matching.fold("Straße")


def test_an_accent_is_one_character_or_two() -> None:
    assert matching.fold("caf\u00e9") == matching.fold("Cafe\u0301.")
    assert matching.fold("caf\u00e9", exact=True) != matching.fold("cafe\u0301", exact=True)


def test_classes_are_written_as_they_come_first_and_numbers_by_their_size() -> None:
    assert list(matching.classes(["Yes", "no", "yes.", "NO"]).values()) == ["no", "Yes"]
    assert list(matching.classes(["10", "9", "b", "-1"]).values()) == ["-1", "9", "10", "b"]
    assert list(matching.classes(["Yes", "yes"], exact=True).values()) == ["Yes", "yes"]
