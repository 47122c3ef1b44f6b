"""What the charts show: sums and percentiles of what is known, as many points as a chart has room for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from ui.facts import failed, ok

from holynb.events import Ended, Failed, Gauge, Noted
from holynb.types import Outcome, Usage
from holynb.ui.live import memory
from holynb.ui.output import series
from holynb.ui.output.series import MAX_PERCENTILES


def test_ends_are_timed_from_the_start_and_leave_out_what_was_not_sent() -> None:
    rows = [ok(), ok(cached=True, attempts=0), Outcome("skipped"), failed()]
    events = [Noted("x", 10.0), *(Ended(i, o, 11.0 + i) for i, o in enumerate(rows))]
    assert [(x, o.status) for x, o in series.ends(events, rows, 10.0)] == [(1.0, "ok"), (4.0, "error")]
    assert [x for x, _ in series.ends((), rows, 10.0)] == [0.0, 3.0], "by place where no times are known"
    assert series.ends((), [None], 10.0) == []


def test_cost_adds_up_what_is_known() -> None:
    done = [(1.0, ok(cost=Decimal("0.5"))), (2.0, ok(cost=None)), (3.0, failed(cost=Decimal("0.25")))]
    assert series.cost(done) == [(0.0, 0.0), (1.0, 0.5), (3.0, 0.75)]
    assert series.cost([(1.0, ok(cost=None))]) == []
    assert series.cost([(1.0, ok(cost=Decimal(0)))]) == [], "nothing was spent, so there is no line to draw"


def test_latency_is_of_answered_rows_over_the_last_fifty() -> None:
    done = [(float(i), ok(latency_s=float(i), ttft_s=None)) for i in range(101)]
    drawn = series.latency([*done[:50], (49.5, failed(latency_s=1e9)), *done[50:]])
    assert set(drawn) == {"p50", "p95"}
    assert drawn["p50"][-1] == (100.0, 75.5)
    assert drawn["p95"][-1][1] > 97
    assert "TTFT" in series.latency([(0.0, ok())])
    assert series.latency([]) == {}


def test_many_rows_make_few_points() -> None:
    drawn = series.latency([(float(i), ok()) for i in range(10_000)])
    assert len(drawn["p50"]) <= MAX_PERCENTILES + 3
    assert drawn["p50"][-1][0] == 9_999.0


def test_memory_is_what_ours_hold_where_that_is_known() -> None:
    events = [Gauge("cuda:0", 900, 1000, 11.0, ours=300), Gauge("cuda:1", 500, 1000, 11.0), Gauge("cuda:0", 950, 1000, 12.0, ours=350)]
    assert series.memory(events, 10.0) == {
        "cuda:0": [(1.0, 300.0), (2.0, 350.0)],
        "cuda:1": [(1.0, 500.0)],
        "cuda:0 all": [(1.0, 900.0), (2.0, 950.0)],
    }
    alone = [Gauge("cuda:0", 310, 1000, 11.0, ours=300)]
    assert list(series.memory(alone, 10.0)) == ["cuda:0"], "what a driver holds is no line"
    assert list(series.memory([Gauge("RAM", 900, 1000, 11.0, ours=300)], 10.0)) == ["RAM"], "a machine runs other things"


def test_a_pool_whose_memory_runs_out_and_comes_back_is_marked() -> None:
    monitor = memory.ShortageMonitor("two")
    metrics = [{"oom": 0, "batch": 8, "running": 8}, {"oom": 1, "batch": 4, "running": 4}, {"oom": 1, "batch": 8, "running": 8}]
    notes = [note for replica in metrics for note in monitor.update([replica])]
    assert [series.mark_name(e) for e in notes] == ["OOM", "recovered"]
    assert "ran out 1 time," in notes[1].text
    events = [Failed(0, 1, "r", "rate_limit", "slow", 12.0, 1.0), *notes, Noted("a price is unknown", 13.0)]
    assert series.marks(events, 10.0, Failed) == {"429": [2.0]}
    assert set(series.marks(events, 10.0, Noted)) == {"OOM", "recovered"}


def test_tokens_are_spread_over_the_time_an_answer_took() -> None:
    outcome = Outcome("ok", "x", attempts=1, usage=Usage(1, 100), latency_s=12.0, ttft_s=2.0)
    line = series.tokens([Ended(0, outcome, 112.0)], 100.0)
    assert all(abs(rate - 10.0) < 0.01 for x, rate in line if 2.5 < x < 11.5)
    width = line[1][0] - line[0][0]
    assert sum(rate for _, rate in line) * width == pytest.approx(100.0)
    assert all(rate == 0 for x, rate in line if x < 1.9), "nothing came before the first token"
    assert series.tokens([Ended(0, replace(outcome, latency_s=0.1, ttft_s=None), 100.1)], 100.0) == [], "one dot tells nothing"
