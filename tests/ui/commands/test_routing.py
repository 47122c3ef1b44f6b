"""`--router` on real runs: what the dry run says is what happens, row by row; no key and no pool is needed where no row goes."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from routing_prompts import FIXTURE

import holynb
from holynb import loop, runlog
from holynb.config import settings
from holynb.config.options import Options
from holynb.errors import BadKey, BadOption, BadPrompt, BadSetting
from holynb.run import plan, resume
from holynb.run.run import Run
from holynb.ui.commands import preview

ROUTES = {"classification": "sim/echo", "analysis": "sim/flaky"}


@pytest.fixture(autouse=True)
def configured(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    settings.reset()
    settings.override(router={"mine": {"routes": ROUTES, "other": "sim/echo"}})
    yield
    loop.close()
    settings.reset()
    runlog.close()


def test_the_dry_run_and_the_run_agree_row_by_row() -> None:
    texts = [text for _, text in FIXTURE]
    planned = plan.make(texts, "sim/stream", Options.parse({"router": "mine", "p": ["seconds=0"], "max_tokens": 4}))
    routes = [str(d.route) for d in planned.targets.decisions]
    assert set(routes) == {"sim/echo", "sim/flaky"}
    run = holynb.infer(texts, "sim/stream", router="mine", p={"seconds": 0}, max_tokens=4, retries=9).wait()
    frame = run.frame()
    assert frame["status"].isin(["ok", "error"]).all()
    ok = frame[frame["status"] == "ok"]
    assert ok["route"].tolist() == [routes[i] for i in ok.index]
    assert len(ok) > 50
    named = sum(d.task == task for d, (task, _) in zip(planned.targets.decisions, FIXTURE, strict=True) if task != "other")
    assert named >= 0.9 * sum(task != "other" for task, _ in FIXTURE)


def test_the_dry_run_shows_task_route_reason_and_saving() -> None:
    df = pd.DataFrame({"kind": ["classification", "분석", "poem", None], "t": ["a", "b", "c", "Write a poem about rain."]})
    settings.override(provider={"holysheep": {"key_optional": True}})
    text = preview.text(plan.make("{{ t }}", "holysheep/claude-sonnet-4", Options.parse({"df": df, "router": "kind", "max_tokens": 100})))
    lines = text.splitlines()
    assert lines[0] == "Dry run: nothing was sent. 4 rows would go where their task sends them."
    (cheap,) = [line for line in lines if line.startswith("0 ")]
    assert cheap.split()[1:3] == ["classification", "holysheep/gemini-2.5-flash"]
    assert "its column says so" in cheap
    assert any(line.startswith("classification → holysheep/gemini-2.5-flash: 1 row, saving up to $0.0") for line in lines)
    assert any(line.startswith("analysis → holysheep/gpt-4.1: 1 row, saving up to $") for line in lines)
    assert sum(line.endswith("the route given") for line in lines) == 2, "an unknown task, and none"


def test_routes_that_no_row_goes_to_need_no_key() -> None:
    settings.override(router={"mine": {"routes": {"classification": "sim/echo", "analysis": "openai/gpt-4.1"}, "other": "sim/echo"}})
    planned = plan.make("Is this review positive or negative? Fine.", "anthropic/claude-sonnet-4-5", Options.parse({"router": "mine"}))
    assert [str(e.route) for e in planned.targets.endpoints] == ["sim/echo"]
    with pytest.raises(BadKey, match="OPENAI_API_KEY"):
        plan.make("Analyse why sales fell in March and explain the reasons.", "sim/echo", Options.parse({"router": "mine"}))


def test_a_rule_that_matches_nothing_is_named() -> None:
    rules = [{"task": "refund", "any": ["refund"]}, {"task": "legal", "any": ["clause"]}]
    settings.override(router={"mine": {"routes": {"refund": "sim/echo", "legal": "sim/stream"}, "rules": rules, "other": "sim/echo"}})
    run = holynb.infer(["I want a refund", "hello"], "sim/echo", router="mine").wait()
    assert run.plan.notes == ["A rule of --router mine for legal matched no row."]
    assert "for legal matched no row" in str(run.journal.events_since(0)[0])


def test_a_set_of_rules_reads_its_own_column() -> None:
    settings.override(router={"mine": {"column": "kind", "routes": {"refund": "sim/stream"}}})
    df = pd.DataFrame({"t": ["a", "b", "c"], "kind": ["refund", "other", None], "task_type": ["x", "refund", "x"]})
    planned = plan.make("{{ t }}", "sim/echo", Options.parse({"df": df, "router": "mine"}))
    assert [str(d.route) for d in planned.targets.decisions] == ["sim/stream", "sim/echo", "sim/echo"]
    assert [d.why for d in planned.targets.decisions[:2]] == ["its column says so"] * 2
    with pytest.raises(BadOption, match="reads the column 'kind', which is not there"):
        plan.make("{{ t }}", "sim/echo", Options.parse({"df": df[["t"]], "router": "mine"}))


def test_a_column_of_lists_is_text_in_a_prompt_and_no_task() -> None:
    df = pd.DataFrame({"t": [["a", "가"], [], None], "kind": [["refund"], None, ["x", "y"]]})
    assert holynb.infer("Say {{ t }}", "sim/echo", df=df).wait().frame()["text"].tolist() == ["Say ['a', '가']", "Say []", "Say "]
    with pytest.raises(BadPrompt, match=r"Row 0: kind should be one word that names the task, not \['refund'\]"):
        holynb.infer("Say {{ t }}", "sim/echo", df=df, router="kind")


def test_a_price_that_does_not_hold_is_found_before_the_first_row() -> None:
    settings.override(price={"sim/echo": {"input": -1, "output": 2}})
    with pytest.raises(BadSetting, match=r'\[price."sim/echo"\]: input is -1; a price is a number of dollars from 0'):
        holynb.infer(["a"], "sim/echo")


def test_a_budget_of_nothing_sends_nothing_and_says_so() -> None:
    run = holynb.infer(["a", "b"], "sim/echo", budget=0)
    with pytest.raises(holynb.InferError, match=r"2 of 2 failed: 2 budget.*of the budget of \$0 is left"):
        run.wait()
    assert run.frame()["attempts"].tolist() == [0, 0]


def test_what_cannot_be_together() -> None:
    for beside in ({"compare": "sim/stream"}, {"samples": 2}, {"spread": "sim/stream"}):
        with pytest.raises(BadOption, match="chooses one route per row"):
            holynb.infer("a", "sim/echo", router="mine", **beside)


def test_a_routed_run_is_resumed_from_the_log_alone() -> None:
    texts = ["Is this spam? hello", "Analyse why sales fell in March and explain the reasons.", "x"]
    settings.override(router={"mine": {"routes": {"classification": "sim/echo", "analysis": "sim/stream"}, "other": "sim/echo"}})
    first = holynb.infer(texts, "sim/echo", router="mine", name="routed", max_tokens=4).wait()
    settings.reset()
    planned = resume.resumed("routed", {"refresh": True})
    assert [str(r.route) for r in planned.rows.requests if r] == ["sim/echo", "sim/stream", "sim/echo"]
    again = Run(planned).start().wait()
    assert again.frame()["attempts"].tolist() == [1, 1, 1]
    assert again.frame()["route"].tolist() == first.frame()["route"].tolist()
    assert again.frame()["text"].tolist() == first.frame()["text"].tolist()


def test_a_comparison_is_resumed_with_its_index_and_a_fallback_with_its_chain() -> None:
    df = pd.DataFrame({"t": ["a", "b"]}, index=pd.Index(["r1", "r2"], name="key"))
    options = {"compare": "sim/stream", "samples": 2, "name": "both", "max_tokens": 4}
    first = holynb.infer("{{ t }}", "sim/echo", df=df, **options).wait()
    again = Run(resume.resumed("both")).start().wait()
    assert again.frame().index.tolist() == first.frame().index.tolist()
    assert again.frame().index.names[1:] == ["asked_route", "sample"]
    assert again.summary().cached == 8
    holynb.infer(["a", "b"], "sim/echo", fallback="sim/stream", name="chain", max_tokens=4).wait()
    planned = resume.resumed("chain", {"refresh": True})
    assert [str(e.route) for e in planned.targets.endpoints] == ["sim/echo", "sim/stream"]
    assert Run(planned).start().wait().frame()["attempts"].tolist() == [1, 1]


@pytest.mark.parametrize("beside", ["compare", "spread"])
def test_the_default_does_not_join_routes_that_stand_beside_each_other(beside: str) -> None:
    """It would start the embedded model for who compares two hosted ones. One route alone is compared with the default."""
    planned = plan.make(["a"], None, Options.parse({beside: "sim/stream,sim/echo"}))
    assert [str(e.route) for e in planned.targets.endpoints] == ["sim/stream", "sim/echo"]
    settings.override(default="sim/echo")
    assert [str(e.route) for e in plan.make(["a"], None, Options.parse({beside: "sim/stream"})).targets.endpoints] == [
        "sim/echo",
        "sim/stream",
    ]
    given = plan.make(["a"], "sim/json", Options.parse({beside: "sim/stream,sim/echo"}))
    assert [str(e.route) for e in given.targets.endpoints] == ["sim/json", "sim/stream", "sim/echo"]


def test_compare_of_rows_that_are_all_empty_keeps_its_index() -> None:
    planned = plan.make(["", " "], "sim/echo", Options.parse({"compare": "sim/stream"}))
    assert len(planned.rows.index) == len(planned.rows.requests) == 4
