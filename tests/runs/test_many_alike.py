"""What lies in a spool once rows are many says what objects say while they are few: runs, what is shown of them, what goes on with them."""

from __future__ import annotations

import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from holynb import infer, loop, runlog
from holynb.outcome_rows import OutcomeRows
from holynb.run import Run, resume, session
from holynb.run.stored_requests import StoredRequests
from holynb.spool import Spool
from holynb.types import Outcome, Usage
from holynb.ui.output import report, series

DF = pd.DataFrame(
    {
        "what": ["one", "two", None, "one", "five"],
        "want": ["one", "x", "x", "one", None],
        "max_tokens": [3, 4, 3, 3, 4],
    },
    index=pd.Index(["a", "b", "c", "a", "e"], name="key"),
)
FAULT = {"fault": "500", "times": 9}
CELLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "by a column": {"params_from": ("max_tokens",), "into": "said", "label": "want"},
    "several": {"samples": 2, "label": "want"},
    "failing": {"p": FAULT, "retries": 0},
    "limited": {"limit": 2, "label": "want", "exact": True},
    "no log": {"cache": False},
}


def facts(run: Run) -> dict[str, Any]:
    """All that a run says, but for times."""
    frame = run.frame()
    columns = [c for c in frame.columns if c not in ("latency_s", "ttft_s")]
    plans = {"resumed": resume.resumed(run.id), "failed": resume.failed_again(run.id)}
    session._session.clear()
    plans["failed, of the log"] = resume.failed_again(run.id)
    logged = report._from_log(run.id)
    shown = report.of(run)
    assert of_report(shown)["quality"] == of_report(logged)["quality"]
    return {
        "frame": frame[columns].to_dict("split"),
        "dtypes": frame.dtypes[columns].astype(str).tolist(),
        "groups": [r and (r.row, r.messages, r.sampling, r.sample, r.route) for r in run.requests],
        "keys": [run.plan.keys.of(row) for row in range(run.n)],
        "expected": run.plan.labels and [run.plan.labels.of(row) for row in range(run.n)],
        **{name: of_report(one) for name, one in (("shown", shown), ("logged", logged))},
        **{name: of_plan(plan) for name, plan in plans.items()},
        "record": replace(resume.stored(run.id), id="", started=0, ended=0),
    }


def of_report(one: report.Report) -> dict[str, Any]:
    summary = replace(one.summary, elapsed=0.0)
    return {
        "prompts": list(one.prompts),
        "previews": one.prompt_previews(),
        "rows": [o and (o.status, o.text, o.error, o.route, o.cached) for o in one.rows],
        "labels": [one.label(row) for row in range(len(one.rows))],
        "quality": [(of.route, of.confusion.names, of.confusion.counts, of.failed, of.unlabelled) for of in one.quality.labelled],
        "agreed": list(one.quality.agreed),
        "more": (summary, one.notes, one.columns, one.route_column, one.failed_alike),
    }


def of_plan(plan: Any) -> dict[str, Any]:
    index = plan.rows.index
    return {
        "requests": [r and (r.row, r.messages, r.sampling, r.sample, r.route, r.default_limit) for r in plan.rows.requests],
        "prompts": [(p.messages, p.empty) for p in plan.rows.prompts],
        "index": None if index is None else (index.tolist(), list(index.names)),
        "kept": {row: plan.earlier.kept[row].status for row in plan.earlier.kept},
        "expected": plan.labels and [plan.labels.of(row) for row in range(len(plan.rows.prompts))],
        "notes": plan.notes,
    }


def of_cell(cell: str, home: Path, many: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Run]:
    """What this cell says where so many rows are many."""
    for module in [m for name, m in sys.modules.items() if name.startswith("holynb") and hasattr(m, "MANY")]:
        monkeypatch.setattr(module, "MANY", many)
    monkeypatch.setenv("HOLYNB_HOME", str(home))
    session._session.clear()
    run = infer("{{ what or '' }}", "sim/echo", df=DF, **CELLS[cell])
    run._future.result(60)  # also where every row failed
    said = facts(run)
    loop.close()
    runlog.close()
    return said, run


@pytest.mark.parametrize("cell", list(CELLS))
def test_many_rows_say_what_few_say(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, run = of_cell(cell, tmp_path / "few", 5_000, monkeypatch)
    many, other = of_cell(cell, tmp_path / "many", 2, monkeypatch)
    assert (type(run.requests), type(other.requests)) == (list, StoredRequests)
    assert many == few


@pytest.mark.parametrize("many", [5_000, 2])
def test_a_name_that_was_asked_with_other_samples_is_resumed_as_it_was_last(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    for module in [m for name, m in sys.modules.items() if name.startswith("holynb") and hasattr(m, "MANY")]:
        monkeypatch.setattr(module, "MANY", many)
    infer(["a", "b"], "sim/echo", name="n").wait()
    infer(["a", "b"], "sim/echo", name="n", samples=2).wait()
    plan = resume.resumed("n")
    assert [r and (r.row, r.sample, r.messages[-1].content) for r in plan.rows.requests] == [
        (0, 0, "a"),
        (1, 1, "a"),
        (2, 0, "b"),
        (3, 1, "b"),
    ]
    assert [p.text for p in plan.rows.prompts] == ["a", "a", "b", "b"]


def test_what_is_drawn_of_a_large_run_of_the_log_is_bounded_and_its_sums_are_all(tmp_path: Path) -> None:
    n = 9_000
    rows = OutcomeRows(n, Spool(tmp_path))
    for row in range(n):
        rows[row] = Outcome("ok", "a", route="openai/x", attempts=1, cost=Decimal("0.5"), usage=Usage(1, 2))
    ended = series.ends((), rows, 0.0)
    assert len(ended) < 5_000
    assert series.cost(ended)[-1] == (n - 1, n / 2)
