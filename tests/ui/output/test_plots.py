"""Charts that stay: plotly's JSON with SVG beside it, small, and without plotly until somebody asks for figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from itertools import combinations, pairwise
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from holynb.events import Ended, Event, Failed, Gauge, Noted, Started
from holynb.results.summary import summarize
from holynb.types import Outcome, Usage
from holynb.ui.output import plots, report, series, static


def record(n: int = 30, *, events: bool = True, cost: Decimal | None = Decimal("0.001"), route: str = "sim/flaky") -> report.Report:
    rows = [
        Outcome("ok", "fine", route=route, attempts=1, usage=Usage(3, 5), cost=cost, latency_s=0.5 + i / n, ttft_s=0.1) for i in range(n)
    ]
    happenings: list[Event] = []
    for i, outcome in enumerate(rows):
        happenings += [Started(i, 1, route, 100 + i / 10), Ended(i, outcome, 100.5 + i / 10)]
    happenings += [
        Failed(0, 1, route, "rate_limit", "slow", 103.0, 1.0),
        Failed(0, 1, route, "oom", "full", 103.1, 1.0),
        *(Gauge("GPU 0", 5 * 2**30, 80 * 2**30, at, 2**30) for at in (103.0, 103.5)),
    ]
    return report.Report("a run", ["p"] * n, rows, summarize(rows, 4.0), happenings if events else (), None, 100.0)


def test_the_charts_are_one_figure_side_by_side() -> None:
    drawn = plots.charts(record())
    assert list(drawn) == ["cost", "latency", "tokens", "memory"]
    figure = plots.spec(drawn)
    domains = [figure["layout"][f"xaxis{i}"]["domain"] for i in ("", "2", "3", "4")]
    assert all(a[1] < b[0] for a, b in pairwise(domains)), "no two charts overlap"
    assert {t["name"] for t in figure["data"]} == {"this run", "p50", "p95", "TTFT", "429", "OOM", "GPU 0", "GPU 0 all"}
    cost = figure["data"][0]
    assert (cost["x"][-1], cost["y"][-1]) == (3.4, 0.03)
    assert "simulated" in figure["layout"]["annotations"][0]["text"]


def test_on_a_narrow_page_two_stand_side_by_side() -> None:
    """Four in 560 pixels write their figures over each other."""
    drawn = plots.charts(record())
    layout = plots.spec(drawn, columns=2)["layout"]
    assert layout["height"] == 2 * plots.spec(drawn)["layout"]["height"]
    ids = [trace["uid"] for trace in plots.spec(drawn)["data"]]
    assert len(set(ids)) == len(ids)
    assert all(f"trace{uid}".startswith("traceholynb-wide") for uid in ids), "plotly makes a class of it, which static.STYLE knows"
    assert not any("uid" in trace for trace in plots.spec(drawn, columns=2)["data"])
    assert "traceholynb-wide" in static.STYLE
    places = [(layout[f"xaxis{i}"]["domain"], layout[f"yaxis{i}"]["domain"]) for i in ("", "2", "3", "4")]
    for (x, y), (u, v) in combinations(places, 2):
        assert x[1] < u[0] or u[1] < x[0] or y[1] < v[0] or v[1] < y[0], "no two charts overlap"
    assert all(0 <= low < high <= 1 for place in places for low, high in place)
    assert plots.bundle(record(), width=559)[plots.MIME]["layout"]["height"] == layout["height"]
    assert plots.bundle(record())[plots.MIME]["layout"]["height"] == layout["height"], "where nobody knows how wide it is"
    assert plots.bundle(record(), width=1200)[plots.MIME] == plots.spec(drawn)
    assert plots.bundle(record(), width=300)[plots.MIME]["layout"]["height"] == 2 * layout["height"]
    title, key = layout["annotations"][0], layout["legend"]
    assert title["yshift"] >= 2 * 1.5 * key["font"]["size"], "a key of two lines is below its title"
    assert layout["margin"]["t"] > title["yshift"]


def test_what_is_not_known_is_not_drawn() -> None:
    assert "cost" not in plots.charts(record(cost=None))
    assert plots.charts(record(1)) == {}
    assert plots.bundle(record(1)) == {}
    assert plots.bundle(record(0)) == {}


def test_a_run_from_the_log_has_no_times_and_is_drawn_by_row() -> None:
    figure = plots.bundle(record(events=False))[plots.MIME]
    assert list(figure["data"][0]["x"][:3]) == [0, 1, 2]
    assert figure["layout"]["xaxis"]["ticksuffix"] == ""


@pytest.mark.parametrize("n", [2, 100, 5000])
def test_table_and_charts_stay_small(n: int) -> None:
    shown = record(n)
    size = len(json.dumps(plots.bundle(shown))) + len(json.dumps(static.bundle(shown, "table")))
    assert size < 100_000


def test_the_fallback_has_the_same_charts_and_no_script() -> None:
    html = plots.bundle(record())["text/html"]
    assert html.count("data:image/svg+xml") == 4
    assert "<script" not in html


def test_no_plotly_is_imported_for_what_stays() -> None:
    code = "import sys, holynb.ui.output.plots; print([m for m in sys.modules if m.split('.')[0] in ('plotly', 'pandas', 'numpy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout.strip() == "[]"


def test_plotly_takes_what_is_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "of", lambda run: record())
    drawn = plots.figures(SimpleNamespace())  # type: ignore[arg-type]
    assert list(drawn) == ["cost", "latency", "tokens", "memory"]
    assert all(isinstance(f, go.Figure) for f in drawn.values())
    assert drawn["latency"].data[1].name == "p95"
    whole = plots.spec(plots.charts(record()))
    go.Figure(data=whole["data"], layout=whole["layout"])  # raises where a name is not plotly's


def test_marks_and_what_others_hold_are_drawn_in_both() -> None:
    """Whoever reads it on GitHub sees when the memory ran out, and that it was somebody else's doing."""
    shown = record()
    shown = replace(
        shown,
        events=[
            *shown.events,
            Noted(f"pool/two {series.OUT_OF_MEMORY_TEXT}: it waits", 103.2),
            Noted(f"pool/two {series.RECOVERED_TEXT}.", 103.4),
        ],
    )
    memory = plots.charts(shown)["memory"]
    assert list(memory.lines) == ["GPU 0", "GPU 0 all"]
    assert {name: len(xs) for name, xs in memory.marks.items()} == {"OOM": 1, "recovered": 1}
    drawn = {t["name"]: t for t in plots.spec(plots.charts(shown))["data"] if t["mode"] == "markers"}
    assert set(drawn) == {"429", "OOM", "recovered"}
    assert len({t["marker"]["color"] for t in drawn.values()}) == 3
    svgs = static.charts(shown)
    assert "▾ 429" in svgs["tokens"]
    assert "▾ OOM" in svgs["memory"]
    assert "GPU 0 all" in svgs["memory"]
    assert plots.charts(record(cost=None))["memory"].title == "Memory"


def test_answers_that_all_come_at_once_are_dots() -> None:
    """Thirty of them, each at two seconds: a line through them has no length, and was not there to see."""
    shown = record()
    at_once = [Ended(e.row, e.outcome, 102.0 + e.row / 1000) for e in shown.events if isinstance(e, Ended)]
    traces = {t["name"]: t["mode"] for t in plots.spec(plots.charts(replace(shown, events=at_once)))["data"]}
    assert traces["p50"] == "lines+markers"
    assert {t["name"]: t["mode"] for t in plots.spec(plots.charts(shown))["data"]}["p50"] == "lines"
