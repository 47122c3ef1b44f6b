"""The page of /metrics counts what happened, leaves out what is unknown, and parses as Prometheus reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from holynb.pool.server.metrics import Histogram, Metrics, device_memory, render

STATS: dict[str, Any] = {
    "running": 2,
    "waiting": 1,
    "kv_used": 10,
    "kv_total": 100,
    "weights_bytes": 40,
    "kv_bytes": 30,
    "device": "cuda:0",
    "memory_used": 90,
    "memory_total": 100,
    "memory_ours": 80,
    "oom": 0,
}


def values(page: str) -> dict[str, float]:
    return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))}


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.add(seconds)
    histogram.add(0.2, times=3)
    lines = dict(line.rsplit(" ", 1) for line in histogram.lines("x"))
    assert lines['x_bucket{le="0.1"}'] == "2"
    assert lines['x_bucket{le="1.0"}'] == "6"
    assert lines['x_bucket{le="+Inf"}'] == lines["x_count"] == "7"
    assert float(lines["x_sum"]) == pytest.approx(8.25)


def test_first_tokens_and_later_ones_are_told_apart() -> None:
    metrics = Metrics()
    metrics.tokens(1, created_at=10.0, before=0.0, now=10.5)
    metrics.tokens(4, created_at=10.0, before=10.5, now=10.9)
    assert metrics.tokens_out == 5
    assert metrics.ttft.sum == pytest.approx(0.5)
    assert metrics.inter_token.sum == pytest.approx(0.4)
    assert sum(metrics.inter_token.counts) == 4


def test_a_replica_is_called_by_its_number_also_where_one_before_it_has_died() -> None:
    page = render(Metrics(), "ready", [{**STATS, "replica": 2, "stages": [0.5]}, {**STATS, "replica": 0}])
    figures = values(page)
    assert {k for k in figures if "requests_running" in k} == {
        'holynb_requests_running{replica="0"}',
        'holynb_requests_running{replica="2"}',
    }
    assert figures['holynb_stage_busy_share{replica="2",stage="0"}'] == 0.5
    assert figures['holynb_device_memory_bytes{device="cuda:0",part="ours",replica="2"}'] == 80


def test_guesses_are_counted_where_a_replica_makes_some() -> None:
    figures = values(render(Metrics(), "ready", [{**STATS, "tokens_guessed": 9, "tokens_accepted": 4}, STATS]))
    assert {k: v for k, v in figures.items() if "guessed" in k or "accepted" in k} == {
        'holynb_guessed_tokens_total{replica="0"}': 9,
        'holynb_accepted_tokens_total{replica="0"}': 4,
    }


def test_the_page_has_every_figure_once_and_is_well_formed() -> None:
    metrics = Metrics()
    metrics.finish("stop", 1.0)
    metrics.finish("cancelled", 0.0)
    page = render(metrics, "ready", [STATS, {**STATS, "device": "cuda:1"}])
    figures = values(page)
    assert figures["holynb_pool_ready"] == 1
    assert figures["holynb_pool_replicas"] == 2
    assert figures['holynb_requests_running{replica="1"}'] == 2
    assert figures['holynb_device_memory_bytes{device="cuda:1",part="rest",replica="1"}'] == 10
    assert figures['holynb_requests_total{how="stop"}'] == 1
    assert figures["holynb_request_seconds_count"] == 1, "a cancelled request has no whole time"
    for line in page.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{[^}]*\})? [0-9.e+-]+", line), line
    names = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_what_is_unknown_is_left_out_not_zero() -> None:
    page = render(Metrics(), "starting", [{}])
    assert "holynb_device_memory_bytes" not in page
    assert "holynb_requests_running" not in page
    assert values(page)["holynb_pool_ready"] == 0
    assert device_memory({}) is None
    part = device_memory({"device": "cpu", "memory_used": 5, "memory_total": 9})
    assert part is not None
    assert part["ours"] is None


def test_a_cache_that_is_not_in_memory_yet_is_not_counted() -> None:
    """On CPU the cache's pages are taken as they are used, so they may be more than the process holds."""
    part = device_memory({**STATS, "memory_ours": 60})
    assert part is not None
    assert (part["ours"], part["weights"], part["kv"], part["rest"]) == (60, 40, None, None)


def test_ranks_of_one_replica_and_stages_are_told_apart() -> None:
    ranks = [{"device": "cpu", "memory_ours": 10 + n, "weights_bytes": 4, "kv_bytes": 2} for n in range(2)]
    figures = dict(
        line.split(" ") for line in render(Metrics(), "ready", [{"ranks": ranks, "stages": [0.9, 0.25]}]).splitlines() if line[0] != "#"
    )
    assert figures['holynb_device_memory_bytes{device="cpu",part="ours",replica="0",rank="1"}'] == "11"
    assert figures['holynb_stage_busy_share{replica="0",stage="1"}'] == "0.25"
