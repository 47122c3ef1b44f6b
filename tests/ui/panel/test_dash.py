"""The dashboard: runs of the session and of the log, pools, spending. Its look: tests/browser."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import holynb
from holynb import loop, runlog
from holynb.config import settings
from holynb.engines import sim
from holynb.errors import BadRoute, BadSetting
from holynb.pricing.spending import SpendingLine
from holynb.run import session
from holynb.runlog import RunRecord
from holynb.ui.cell import sidecar
from holynb.ui.live import pulse
from holynb.ui.panel import dash
from holynb.ui.panel.dash import Dash


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    settings.reset()
    runlog.close()
    monkeypatch.setattr(session, "_session", type(session._session)(maxlen=50))
    yield tmp_path
    loop.close()
    runlog.close()


def spent(day: int, route: str, cost: str | None, unknown: int = 0) -> SpendingLine:
    return SpendingLine(dt.date(2026, 11, day), route, "m", 10, 1, 0, 100, 50, None if cost is None else Decimal(cost), unknown)


def test_it_shows_the_session_the_pools_and_what_was_spent(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/echo", name="mine<b>").wait()
    dashboard = Dash()
    assert asyncio.run(dashboard.refresh()) is False
    assert "mine&lt;b&gt;" in dashboard.runs.value
    assert "2 of 2" in dashboard.runs.value
    assert run.summary().money() in dashboard.spending.value
    assert "No pool of yours runs" in dashboard.pools.value
    assert dashboard.chart.value == "", "one day is no history"


def test_a_run_that_goes_on_shows_how_far_it_is(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/stream", cache=False)
    dashboard = Dash()
    assert asyncio.run(dashboard.refresh()) is True
    assert "0 of 2" in dashboard.runs.value
    assert "running" in dashboard.runs.value
    run.cancel()
    run.cancel()
    run.wait(10)
    asyncio.run(dashboard.refresh())
    ended = sum(o is not None and o.status != "cancelled" for o in run.rows())
    assert f"{ended} of 2" in dashboard.runs.value, "rows that were not answered are not done"
    assert "stopped" in dashboard.runs.value


def test_runs_of_the_log_that_nobody_ended_are_unfinished() -> None:
    records = [
        RunRecord("r1", None, "sim/echo", 9, 100.0, None, "running", ok=4),
        RunRecord("r2", "n", "sim/echo", 3, 100.0, 130.0, "done", ok=3, failed=0),
    ]
    page = dash.runs_table([], records, 400.0)
    assert "unfinished" in page
    assert "4 of 9" in page
    assert "30 s" in page
    assert "No run yet" in dash.runs_table([], [], 0.0)


def test_spending_says_what_has_no_price() -> None:
    page = dash.spending_table(
        [spent(1, "openai/x", "1.50"), spent(2, "openai/x", "0.50", unknown=3), spent(2, "vllm/y", None, unknown=10)]
    )
    assert "$2.00 + 3 unknown" in page
    assert page.index("openai/x") < page.index("vllm/y"), "the dearest first"
    assert ">?<" in page
    assert "Nothing was asked" in dash.spending_table([])


def test_dollars_of_the_simulator_are_called_so() -> None:
    page = dash.spending_table([spent(1, "openai/x", "1.50"), spent(2, "sim/y", "0.25"), spent(2, "sim/z", None)])
    assert ">$0.25 simulated<" in page
    assert page.count("simulated") == 1
    records = [
        RunRecord("r1", None, "sim/echo", 9, 100.0, 130.0, "done", ok=9, cost=Decimal("0.5")),
        RunRecord("r2", None, "a/b", 9, 100.0, 130.0, "done", ok=9, cost=Decimal("0.5")),
    ]
    assert dash.runs_table([], records, 400.0).count("simulated") == 1


def test_a_comparison_names_all_its_routes_and_tells_simulated_dollars_apart(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/echo", compare="sim/json,sim/echo", name="both").wait()
    (stored,) = runlog.log().runs()
    assert stored.cost == stored.simulated == run.summary().cost
    old = replace(stored, spec={"options": {"compare": ["sim/json"]}})  # before it was kept
    for page in (dash.runs_table([run], [], 0.0), dash.runs_table([], [stored], 0.0), dash.runs_table([], [old], 0.0)):
        assert ">sim/echo, sim/json<" in page
        assert "partly" not in page
    billed = replace(stored, cost=Decimal("0.5"), simulated=Decimal("0.1"))
    assert ">$0.50 partly simulated<" in dash.runs_table([], [billed], 0.0)
    assert "simulated" not in dash.runs_table([], [replace(billed, simulated=Decimal())], 0.0)


@pytest.mark.parametrize("more", [{}, {"compare": "sim/nonsense"}, {"fallback": "sim/nonsense"}])
def test_a_route_that_does_not_exist_leaves_no_run(home: Path, more: dict[str, Any]) -> None:
    with pytest.raises(BadRoute, match=r"There is no sim/nonsense\. The simulator has sim/echo"):
        holynb.infer(["a"], "sim/echo" if more else "sim/nonsense", **more)
    assert session.runs() == []
    assert runlog.log().runs() == []


def test_an_engine_that_cannot_be_made_leaves_no_run_in_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "check", lambda route: None if route.model == "echo" else pytest.fail("not asked"))
    monkeypatch.setattr(sim.Sim, "__init__", lambda *_: (_ for _ in ()).throw(BadSetting("no region")))
    with pytest.raises(BadSetting):
        holynb.infer(["a"], "sim/echo").wait().check()
    assert runlog.log().runs() == []


def test_history_is_bars_by_day_and_provider() -> None:
    page = dash.history([spent(1, "openai/x", "1.50"), spent(2, "openai/x", "0.5"), spent(2, "sim/y", "0.25"), spent(3, "vllm/z", None)])
    shown = [t.strip() for t in re.split(r"<[^>]*>", page) if t.strip()]
    assert shown == ["Dollars a day", "openai", "sim (simulated)", "2026-11-01", "$1.50", "2026-11-02", "$0.75"]
    assert dash.history([spent(1, "openai/x", "1.50")]) == "", "one day is no history"


def test_beside_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(pulse, "show", lambda *what: shown.append(what))
    monkeypatch.setattr(sidecar, "find_spec", lambda name: None)
    assert sidecar.show_beside("the box", "The dashboard", "%infer dash") == sidecar.MISSING_PACKAGE
    assert shown == [("the box", "The dashboard", "%infer dash")]


def test_beside_asks_the_page_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import ipywidgets as w

    shown: list[Any] = []
    monkeypatch.setattr(pulse, "show", lambda *what: shown.append(what[0]))
    monkeypatch.setattr(sidecar, "find_spec", lambda name: object())
    box = w.HTML("the dashboard")
    assert sidecar.show_beside(box, "The dashboard", "%infer dash") is None
    bridge, here = shown[0].children
    bridge._on_message(bridge, {"cmd": "where", "notebook": True}, [])
    assert sidecar.NO_SIDE_AREA in here.children[0].value
    assert here.children[1] is box
