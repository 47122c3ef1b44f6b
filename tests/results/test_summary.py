"""What a run comes to, in one line; unknown money is never counted as nothing."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from holynb.results.summary import AlternativeCost, Tally, summarize
from holynb.types import Outcome, Route, Usage


def ok(cost: str | None = "0.1", **more: object) -> Outcome:
    return Outcome("ok", "x", attempts=1, usage=Usage(10, 5), cost=None if cost is None else Decimal(cost), **more)


def failed(kind: str) -> Outcome:
    return Outcome("error", error_type=kind, error="no", attempts=4)


def test_the_failures_line_is_the_contracts():
    summary = summarize([ok()] * 193 + [failed("timeout")] * 5 + [failed("content_filter")] * 2, 3.0)
    assert summary.failures() == "7 of 200 failed: 5 timeout, 2 content_filter. %infer run --only failed"
    assert summary.line().endswith(summary.failures())


def test_answers_that_were_cut_off_are_told_where_they_are_more_than_a_tenth():
    cut = [replace(ok(), finish_reason="length")]
    summary = summarize([ok()] * 9 + cut * 2 + [failed("timeout")], 3.0)
    assert summary.cut_off() == "2 of 11 answers were cut off at the token limit: raise --max-tokens."
    assert summary.line().split("\n")[1:] == [summary.failures(), summary.cut_off()]
    assert summarize([ok()] * 9 + cut, 3.0).cut_off() == ""
    assert summarize(cut, 3.0).cut_off() == "1 of 1 answer was cut off at the token limit: raise --max-tokens."
    assert summarize([], 3.0).cut_off() == summarize([ok(), replace(failed("truncated"), finish_reason="length")], 3.0).cut_off() == ""


def test_counts_tokens_and_money():
    summary = summarize([ok(), ok(), Outcome("skipped"), Outcome("cancelled"), None], 2.0)
    assert (summary.n, summary.ok, summary.skipped, summary.cancelled, summary.running) == (5, 2, 1, 1, 1)
    assert (summary.tokens_in, summary.tokens_out, summary.cost) == (20, 10, Decimal("0.2"))
    assert "2 of 5 rows" in summary.line()
    assert "20 + 10 tokens" in summary.line()


def test_unknown_cost_is_shown_not_summed_as_zero():
    assert summarize([ok(None)], 1.0).money() == "?"
    assert " · cost ? · " in summarize([ok(None)], 1.0).line()
    assert summarize([ok(), ok(None), ok(None)], 1.0).money() == "$0.10 + 2 unknown"
    assert summarize([Outcome("skipped")], 1.0).money() == "$0.00"


@pytest.mark.parametrize("kind", ["timeout", "server", "malformed"])
def test_a_row_that_failed_at_work_may_be_billed(kind: str):
    assert summarize([replace(failed(kind), attempts=2)], 1.0).money() == "?"
    assert summarize([replace(failed(kind), attempts=2, route="pool/x")], 1.0).money() == "$0.00"
    assert summarize([replace(failed(kind), attempts=0)], 1.0).money() == "$0.00", "never sent"


def test_a_row_that_was_stopped_under_way_may_be_billed_and_a_refused_one_is_not():
    assert summarize([Outcome("cancelled", "half", route="a/b", attempts=1)], 1.0).money() == "?"
    assert summarize([Outcome("cancelled")], 1.0).money() == "$0.00"
    assert summarize([replace(failed("auth"), attempts=1)], 1.0).money() == "$0.00"


def test_dollars_of_the_simulator_are_told_apart():
    assert summarize([ok(route="sim/echo")], 1.0).money() == "$0.10 simulated"
    assert summarize([ok(route="sim/echo"), ok(route="a/b"), ok(None, route="a/b")], 1.0).money() == "$0.20 partly simulated + 1 unknown"


def test_a_pool_without_a_price_has_no_dollars_to_show():
    summary = summarize([ok(None, route="pool/x")], 1.0)
    assert (summary.unknown_cost, summary.money()) == (0, "free")
    assert "$" not in summary.line()


def test_cached_rows_do_not_make_a_pools_time_cost_nothing():
    cached = Outcome("ok", "x", route="pool/x", usage=Usage(10, 5), cost=Decimal(0), cached=True)
    summary = summarize([cached, cached, ok(None, route="pool/x")], 1.0)
    assert (summary.cost, summary.unknown_cost, summary.money()) == (None, 0, "free")
    assert summarize([cached, ok("0.1"), ok(None)], 1.0).money() == "$0.10 + 1 unknown"
    assert summarize([cached, failed("auth")], 1.0).money() == "$0.00"
    assert summarize([cached, failed("timeout")], 1.0).money() == "?", "four attempts may be billed"


def test_cached_rows_cost_nothing_and_say_what_they_saved():
    row = Outcome("ok", "x", usage=Usage(10, 5), cost=Decimal(0), cached=True)
    summary = summarize([row, row], 0.1, saved=Decimal("0.012"))
    assert (summary.cached, summary.cost, summary.tokens_in) == (2, Decimal(0), 0)
    assert "2 cached (saved $0.012)" in summary.line()


def test_a_stopped_run_says_so():
    assert "stopped" in summarize([ok(), None], 1.0, stopped=True).line()


def test_what_it_would_have_cost_elsewhere():
    route = Route("openai", "gpt-4.1")
    counted, uncounted = replace(ok(), usage=Usage(1_000_000, 100_000)), replace(ok(), usage=Usage())
    summary = summarize([counted, counted, replace(counted, cached=True)], 1.0, price_as=route)
    assert summary.alternative == AlternativeCost(route, Decimal("5.6"), 0), "2.00 in, 8.00 out, for the two that were paid for"
    assert "· $5.60 as openai/gpt-4.1 ·" in summary.line()
    assert summarize([counted, uncounted], 1.0, price_as=route).alternative.describe() == "$2.80 + 1 unknown as openai/gpt-4.1"
    assert summarize([uncounted], 1.0, price_as=route).alternative.describe() == "cost ? as openai/gpt-4.1"
    assert summarize([], 1.0, price_as=route).alternative.describe() == "$0.00 as openai/gpt-4.1"
    assert summarize([counted], 1.0).alternative is None


def test_vectors_are_described_outcome_by_outcome():
    unit, twice = (np.array([x, 0, 0], "<f4").tobytes() for x in (1.0, 2.0))
    tally = Tally()
    for vector in [unit] * 300:
        tally.add(replace(ok(), vector=vector))
    assert tally.summary(300, 1.0).vectors == "3 dimensions, normalized"
    tally.add(replace(ok(), vector=twice))
    assert summarize([ok()], 1.0).vectors == ""
    assert summarize([replace(ok(), vector=v) for v in (unit, twice)], 1.0).vectors == "3 dimensions, not normalized (norm 1 to 2)"
    assert summarize([failed("timeout"), replace(ok(), vector=twice)], 1.0).vectors == "3 dimensions, not normalized (norm 2)"
