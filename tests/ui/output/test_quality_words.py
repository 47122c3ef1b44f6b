"""What is said of figures: whole sentences, whatever the numbers are."""

from __future__ import annotations

from holynb.quality.assessment import Assessment, Labelled, PairTest
from holynb.quality.confusion import Confusion
from holynb.quality.intervals import Interval
from holynb.ui.output import quality


def test_no_interval_begins_at_less_than_nothing() -> None:
    worse = PairTest("accuracy", "paired bootstrap", "a/x", "b/y", 3, -2 / 3, Interval(-1.0, 0.0), 0.25)
    assert quality.tested(worse) == (
        "a/x is better than b/y in accuracy by 66.7 points (0.0 to 100.0) on 3 rows, p = 0.25 (paired bootstrap): this may be chance."
    )


def test_one_answer_is_and_several_are() -> None:
    for others, words in ((1, "1 of 1 answer is none of the labels."), (2, "2 of 2 answers are none of the labels.")):
        confusion = Confusion(["yes"], [("yes", None)] * others)
        said = quality.parts(Assessment([Labelled("a/x", confusion, 0, 0)]))
        assert any(isinstance(part, str) and part.startswith(words) for part in said)
