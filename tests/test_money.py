"""The figures of money, in small: what `tests/benchmarks/money.py` measures holds in every run of the tests too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from benchmarks import money


@pytest.mark.parametrize(
    "measure",
    [
        partial(money.budgets, 10),
        partial(money.estimates, 1, 200),
        money.routes,
        partial(money.chunks, 40),
        partial(money.schemas, 300, 0.05),
        money.roi,
    ],
    ids=["budget", "estimate", "routing", "chunk", "schema", "roi"],
)
def test_figures_are_held(measure: Callable[[], Sequence[money.Figure]]) -> None:
    figures = measure()
    assert len(figures) > 1
    assert all(f.held for f in figures), "\n" + money.table(figures)


def test_a_figure_that_is_missed_is_seen() -> None:
    assert "MISSED" in money.table([money.Figure("x", "<= 2", "3", held=False)])
