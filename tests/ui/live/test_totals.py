"""The running fold: equal to the fold of the whole, at every moment."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from ui.facts import failed, ok

from holynb.events import Ended, Noted
from holynb.results.summary import summarize
from holynb.types import Outcome, Usage
from holynb.ui.live.totals import SPEED_WINDOW_S, Totals

OUTCOMES = st.sampled_from(
    [
        ok(),
        ok(cost=None),
        ok(cost=None, route="pool/x"),
        ok(cached=True, attempts=0, cost=Decimal(0)),
        ok(usage=Usage()),
        replace(ok(), finish_reason="length"),
        ok(cost=Decimal("0.3"), route="openai/x"),
        failed("timeout"),
        failed(),
        failed("quota", cost=Decimal("0.2")),
        Outcome("cancelled", attempts=1),
        Outcome("cancelled"),
        Outcome("skipped"),
    ]
)


@given(st.lists(OUTCOMES, max_size=30), st.integers(0, 30))
def test_it_counts_as_the_summary_does(outcomes: list[Outcome], cut: int) -> None:
    totals = Totals(len(outcomes))
    events = [Ended(i, o, 1.0) for i, o in enumerate(outcomes)]
    totals.fold(events[:cut])
    totals.fold(events[cut:])
    whole = summarize(outcomes, 3.0)
    assert totals.summary(3.0) == whole
    part = Totals(len(outcomes))
    part.fold(events[:cut])
    rows = [o if i < cut else None for i, o in enumerate(outcomes)]
    assert replace(part.summary(3.0), saved=None) == summarize(rows, 3.0)


def test_speed_is_of_the_last_seconds_and_leaves_the_log_out() -> None:
    totals = Totals(100)
    assert totals.speed(0.0) == (None, None)
    totals.fold([Ended(i, ok(cached=True, attempts=0), 0.0) for i in range(50)])
    assert totals.speed(1.0) == (None, None)
    totals.fold([Ended(50 + i, ok(), 0.0) for i in range(10)])
    assert totals.speed(2.0) == (5.0, 25.0)
    for second in range(3, 60):
        rate = totals.speed(float(second))
    assert rate == (None, None), f"nothing was answered for {SPEED_WINDOW_S} s"


def test_the_last_note_is_kept() -> None:
    totals = Totals(1)
    totals.fold([Noted("pool starts", 0.0), Noted("pool is ready", 1.0)])
    assert totals.note == "pool is ready"
