"""A run from end to end on the simulator: nothing lost, nothing asked twice, and what cannot be done said in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from servers.exact import Exact, reply
from servers.golden import OPENAI

import holynb
from holynb import loop, runlog
from holynb.config import Options
from holynb.errors import BadKey, BadOption, BadPrompt, BadRoute, BadSetting, InferError
from holynb.events import Noted, Started
from holynb.pricing import spending
from holynb.results import dollars
from holynb.run import Run, infer, quote, reservation, resume, session
from holynb.run.plan import make
from holynb.ui.output import report

DEADLINE = 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    session._session.clear()
    yield tmp_path / "home"
    loop.close()
    runlog.close()


def sent(run: Run) -> int:
    return sum(isinstance(e, Started) for e in run.journal.events_since(0)[0])


def test_one_prompt():
    run = infer("hello", "sim/echo").wait(DEADLINE)
    frame = run.frame()
    assert frame["text"].tolist() == ["hello"]
    assert frame["status"].tolist() == ["ok"]
    assert frame["route"].tolist() == ["sim/echo"]
    assert frame["attempts"].tolist() == [1]
    assert frame["tokens_in"].iloc[0] > 0
    assert holynb.last is run


def test_a_list_of_strings_and_dicts():
    run = infer(["a", {"prompt": "b", "system": "s", "max_tokens": 7}, {"messages": [{"role": "user", "content": "c"}]}], "sim/echo")
    run.wait(DEADLINE)
    assert run.frame()["text"].tolist() == ["a", "b", "c"]
    assert run.requests[1] is not None
    assert run.requests[1].sampling.max_tokens == 7
    assert run.requests[0] is not None
    assert run.requests[0].sampling.max_tokens == 2048


def test_rows_of_a_frame_keep_their_index_and_order():
    df = pd.DataFrame({"text": [f"row {i}" for i in range(30)]}, index=pd.MultiIndex.from_tuples([(i % 3, i % 2) for i in range(30)]))
    frame = infer("say {{ text }}", "sim/echo", df=df).wait(DEADLINE).frame()
    assert frame.index.equals(df.index)
    assert frame["text"].tolist() == [f"say row {i}" for i in range(30)]


def test_into_adds_one_column_to_a_copy():
    df = pd.DataFrame({"text": ["a", "b"]}, index=["x", "x"])
    run = infer("{{ text }}!", "sim/echo", df=df, into="answer").wait(DEADLINE)
    assert run.frame()["answer"].tolist() == ["a!", "b!"]
    assert list(run.frame().columns) == ["text", "answer"]
    assert list(df.columns) == ["text"]
    assert "attempts" in run.result().columns


def test_an_empty_prompt_is_skipped_and_nothing_is_sent_for_it():
    df = pd.DataFrame({"text": ["a", None, "  "]})
    run = infer("{{ text }}", "sim/echo", df=df).wait(DEADLINE)
    assert run.frame()["status"].tolist() == ["ok", "skipped", "skipped"]
    assert sent(run) == 1


def test_running_it_again_sends_nothing_and_says_what_was_saved():
    first = infer(["a", "b"], "sim/echo").wait(DEADLINE)
    again = infer(["a", "b", "c"], "sim/echo").wait(DEADLINE)
    assert sent(again) == 1
    assert again.frame()["cached"].tolist() == [True, True, False]
    assert again.frame()["cost"].tolist()[:2] == [0.0, 0.0]
    assert again.frame()["attempts"].tolist() == [0, 0, 1]
    assert again.saved == first.summary().cost
    assert first.summary().cost > 0


def test_another_prompt_sampling_or_route_is_another_request():
    infer("a", "sim/echo").wait(DEADLINE)
    for changed in ({"temperature": 0.3}, {"max_tokens": 9}, {"system": "s"}, {"p": {"k": 1}}):
        assert sent(infer("a", "sim/echo", **changed).wait(DEADLINE)) == 1


def test_refresh_asks_anew_and_keeps_the_new_answer():
    infer("a", "sim/echo").wait(DEADLINE)
    assert sent(infer("a", "sim/echo", refresh=True).wait(DEADLINE)) == 1
    assert sent(infer("a", "sim/echo").wait(DEADLINE)) == 0


def test_no_cache_neither_answers_nor_offers():
    infer("a", "sim/echo", cache=False).wait(DEADLINE)
    assert sent(infer("a", "sim/echo").wait(DEADLINE)) == 1
    assert sent(infer("a", "sim/echo", cache=False).wait(DEADLINE)) == 1


def test_errors_are_never_cached():
    faulty = {"p": {"fault": "500", "times": 99}, "retries": 0}
    run = infer(["a"], "sim/echo", **faulty)
    with pytest.raises(InferError, match="no row could be answered"):
        run.wait(DEADLINE)
    assert run.frame()["status"].tolist() == ["error"]
    again = infer(["a"], "sim/echo", **faulty)
    with pytest.raises(InferError):
        again.wait(DEADLINE)
    assert sent(again) == 1


def test_rows_that_ask_the_same_are_asked_once():
    run = infer(["same"] * 10 + ["other"], "sim/echo").wait(DEADLINE)
    assert sent(run) == 2
    assert run.frame()["text"].tolist() == ["same"] * 10 + ["other"]
    assert sent(infer(["x", "x"], "sim/echo", cache=False).wait(DEADLINE)) == 2


def test_a_name_used_again_continues_that_run():
    first = infer(["a", "b"], "sim/echo", name="reviews", cache=False).wait(DEADLINE)
    again = infer(["a", "b", "c"], "sim/echo", name="reviews", cache=False).wait(DEADLINE)
    assert again.id == first.id
    assert sent(again) == 1
    record = resume.stored("reviews")
    assert (record.n, record.ok) == (3, 3)


def test_resume_from_the_log_alone_sends_the_rest():
    df = pd.DataFrame({"text": ["a", "b"]}, index=["r1", "r2"])
    run = infer("{{ text }}", "sim/echo", df=df, name="nightly", cache=False).wait(DEADLINE)
    assert sent(run) == 2
    again = Run(resume.resumed("nightly")).start().wait(DEADLINE)
    assert sent(again) == 0
    assert again.frame()["text"].tolist() == ["a", "b"]
    assert again.frame().index.tolist() == ["r1", "r2"]
    with pytest.raises(BadOption, match="Did you mean nightly"):
        resume.resumed("nightl")


@pytest.mark.usefixtures("quick_retries")
def test_only_failed_replaces_the_failed_rows_and_keeps_the_rest():
    prompts = [f"row {i}" for i in range(40)]
    run = infer(prompts, "sim/flaky", cache=False, retries=0, timeout=0.3).wait(DEADLINE)
    failed = [i for i, status in enumerate(run.frame()["status"]) if status == "error"]
    assert 0 < len(failed) < 40
    again = infer(prompts, "sim/flaky", only="failed", cache=False, timeout=5).wait(DEADLINE)
    lasting = set(again.frame()["error_type"].dropna())
    assert lasting <= {"content_filter"}, "what no second attempt cures"
    assert {e.row for e in again.journal.events_since(0)[0] if isinstance(e, Started)} == set(failed)
    kept = [i for i in range(40) if i not in failed]
    assert again.frame().iloc[kept].equals(run.frame().iloc[kept])
    assert again.id == run.id
    record = resume.stored(run.id)
    assert (record.ok, record.failed) == (again.summary().ok, again.summary().error)
    assert record.ok > run.summary().ok
    with pytest.raises(BadOption, match="that run had 40 rows and this cell has 1"):
        infer(["one"], "sim/flaky", only="failed")


def test_a_fallback_answers_and_the_frame_says_who_and_why():
    prompts = [f"row {i}" for i in range(40)]
    frame = infer(prompts, "sim/flaky", fallback="sim/echo", retries=0, timeout=1.0, cache=False).wait(DEADLINE).frame()
    assert set(frame["status"]) == {"ok"}
    assert set(frame["route"]) == {"sim/flaky", "sim/echo"}
    moved = frame[frame["route"] == "sim/echo"]
    assert moved["error"].str.startswith("moved: sim/flaky: ").all()
    assert moved["error_type"].isna().all()
    assert moved["text"].tolist() == [prompts[i] for i in moved.index]
    assert frame[frame["route"] == "sim/flaky"]["error"].isna().all()


@pytest.mark.usefixtures("quick_retries")
def test_compare_and_samples_are_long_form_on_two_more_levels():
    df = pd.DataFrame({"text": ["a", "b"]}, index=["x", "y"])
    run = infer("{{ text }}", "sim/echo", df=df, compare="sim/flaky", samples=2, timeout=0.5).wait(DEADLINE)
    frame = run.frame()
    assert frame.index.names == [None, "asked_route", "sample"]
    assert frame.index.tolist() == [(r, route, k) for r in "xy" for route in ("sim/echo", "sim/flaky") for k in (0, 1)]
    assert frame.xs("sim/echo", level="asked_route")["text"].tolist() == ["a", "a", "b", "b"]
    assert sent(run) >= 8
    with pytest.raises(BadOption, match="--into takes one answer a row"):
        infer("{{ text }}", "sim/echo", df=df, samples=2, into="x")


def test_each_sample_of_a_seed_has_the_next_one():
    run = infer(["a", "b"], "sim/echo", samples=3, seed=5, temperature=0.9).wait(DEADLINE)
    assert [r.sampling.seed for r in run.requests] == [5, 6, 7] * 2
    assert {id(r.sampling) for r in run.requests[:3]} == {id(r.sampling) for r in run.requests[3:]}, "keys are made in common"
    assert [r.sampling.seed for r in infer(["a"], "sim/echo", samples=2).wait(DEADLINE).requests] == [None, None]
    df = pd.DataFrame({"text": ["a", "b"], "seed": [40, 50]})
    own = infer("{{ text }}", "sim/echo", df=df, samples=2, params_from=["seed"]).wait(DEADLINE)
    assert [r.sampling.seed for r in own.requests] == [40, 41, 50, 51]


def test_a_budget_is_never_exceeded_and_the_rows_that_did_not_fit_say_so():
    run = infer([f"row {i}" for i in range(50)], "sim/echo", budget=0.0006, max_tokens=4).wait(DEADLINE)
    frame = run.frame()
    assert 0 < frame["cost"].sum() <= 0.0006
    refused = frame[frame["status"] == "error"]
    assert set(refused["error_type"]) == {"budget"}
    assert refused["error"].str.contains("of the budget of").all()
    with pytest.raises(InferError, match="budget"):
        infer("a", "sim/echo", budget=0, cache=False).wait(DEADLINE)


@pytest.mark.parametrize("judge", [None, "sim/json"])
def test_the_tokens_of_a_run_are_one_figure_wherever_they_are_told(judge: str | None):
    """What a run told in its session, what is told of it from its log, what it was billed, and the day's table."""
    rows, options = [f"row {i}" for i in range(6)], {"name": "labels", "judge": judge}
    infer(rows[:2], "sim/echo", **options).wait(DEADLINE)
    run = infer(rows, "sim/echo", **options).wait(DEADLINE)
    paid = spending.tokens(runlog.log(), run.id)
    day = spending.total(spending.by_day(runlog.log()))
    assert (day.tokens_in, day.tokens_out) == paid
    here = run.summary()
    assert here.tokens_in_all == paid
    assert (here.tokens_in, here.tokens_out) < paid
    assert f"in all, {paid[0]:,} + {paid[1]:,} tokens" in here.line()
    session._session.clear()
    shown = report.load("labels").summary
    assert shown.tokens_in_all == paid
    assert ((shown.tokens_in, shown.tokens_out) == paid) is (judge is None)
    said = f"{paid[0]:,} + {paid[1]:,} tokens over all requests of this run"
    assert (said in shown.line()) is (judge is not None)


def test_a_judged_run_says_what_its_judge_took():
    run = infer("a", "sim/echo", judge="sim/json", name="one").wait(DEADLINE)
    paid = spending.tokens(runlog.log(), run.id)
    assert f"{paid[0]:,} + {paid[1]:,} tokens over all requests of this run" in run.summary().line()
    assert "in all" not in infer("b", "sim/echo").wait(DEADLINE).summary().line()


def test_a_budget_holds_for_all_that_a_run_of_one_name_spends():
    rows = [f"row {i}" for i in range(50)]
    first = infer(rows, "sim/echo", budget=0.0006, max_tokens=4, name="cap").wait(DEADLINE)
    spent = first.frame()["cost"].sum()
    again = infer(rows, "sim/echo", budget=0.0006, max_tokens=4, name="cap").wait(DEADLINE)
    failed = Run(resume.failed_again("cap")).start().wait(DEADLINE)
    assert [again.id, failed.id] == [first.id, first.id]
    record = runlog.log().find("cap")
    assert record is not None
    in_all = [run.summary().in_all for run in (first, again, failed)]
    assert in_all == [None, record.cost, record.cost]
    paid = spending.tokens(runlog.log(), first.id)
    assert f" · this run cost {dollars(record.cost)} in all, {paid[0]:,} + {paid[1]:,} tokens" in again.summary().line()
    assert spent <= float(record.cost or 0) <= 0.0006
    told = [e.text for e in again.journal.events_since(0)[0] if isinstance(e, Noted)]
    assert told[0].startswith(f"This run has spent ${spent:.5f} before, which counts: "), told
    assert "was spent before by this run): raise --budget" in str(again.frame()["error"].iloc[-1])
    assert again.summary().failures().endswith("budget. %infer run --only failed --budget USD")
    plan = resume.continued(make(rows, "sim/echo", Options(budget=0.0006, max_tokens=4, name="cap")))
    assert ", of which $0.000" in reservation.coverage(plan, quote.quote(plan))
    more = Run(resume.failed_again("cap", {"budget": 1.0})).start().wait(DEADLINE)
    assert more.summary().ok == 50
    anew = infer(rows, "sim/echo", budget=0.0006, max_tokens=4, name="another", cache=False).wait(DEADLINE)
    assert anew.summary().ok == first.summary().ok


def test_a_fallback_whose_key_is_missing_is_found_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadKey, match="OPENAI_API_KEY"):
        infer("a", "sim/echo", fallback="openai/gpt-4.1")
    assert session.runs() == []


def test_the_frame_is_there_at_any_moment():
    run = infer(["a", "b"], "sim/stream")
    assert len(run.frame()) == 2
    assert not run.done
    assert run.frame()["status"].isna().any()
    run.cancel()
    run.cancel()
    run.wait(DEADLINE)
    assert set(run.frame()["status"]) <= {"ok", "cancelled"}
    assert "stopped" in run.summary().line()


def test_a_cancelled_row_keeps_what_was_said():
    run = infer("write", "sim/stream", stream=True)
    end = time.monotonic() + DEADLINE
    while not run.journal.partial_texts() and time.monotonic() < end:
        time.sleep(0.01)
    run.cancel()
    run.cancel()
    run.wait(DEADLINE)
    row = run.frame().iloc[0]
    assert row["status"] == "cancelled"
    assert row["text"]


def test_awaiting_a_run():
    async def main() -> Run:
        return await infer("a", "sim/echo")

    assert asyncio.run(main()).frame()["text"].tolist() == ["a"]


def test_awaiting_and_waiting_raise_the_same():
    async def main() -> None:
        await infer("a", "sim/echo", p={"fault": "401", "times": 9})

    with pytest.raises(InferError, match="1 auth"):
        asyncio.run(main())


def test_a_refused_key_sends_one_request():
    run = infer([f"row {i}" for i in range(100)], "sim/echo", p={"fault": "401", "times": 1000}, concurrency=1)
    with pytest.raises(InferError):
        run.wait(DEADLINE)
    assert sent(run) == 1
    assert set(run.frame()["error_type"]) == {"auth"}


@pytest.mark.parametrize(
    ("args", "options", "kind", "message"),
    [
        (("a", "nowhere/x"), {}, BadRoute, "nowhere"),
        (("a", "opnai/gpt-4.1"), {}, BadRoute, "Did you mean openai"),
        (("a", "just-a-word"), {}, BadRoute, "just-a-word"),
        (("a", "sim/echo"), {"modle": 1}, BadOption, "modle"),
        (("a", "sim/echo"), {"dry_run": True}, BadOption, "belong to a cell"),
        (([], "sim/echo"), {}, BadPrompt, ""),
        (("{{ nope }}", "sim/echo"), {"df": pd.DataFrame({"text": ["a"]})}, BadPrompt, "nope"),
        (("a", "openai/gpt-4.1"), {}, BadKey, "OPENAI_API_KEY"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(args, options, kind, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(kind) as caught:
        infer(*args, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert session.runs() == []
    assert not loop.running()


def test_a_log_that_cannot_be_written_loses_nothing(home: Path):
    home.mkdir(parents=True)
    (home / "runs.sqlite").mkdir()
    with pytest.warns(RuntimeWarning, match="HOLYNB_HOME"):
        run = infer(["a", "b"], "sim/echo").wait(DEADLINE)
    assert run.frame()["text"].tolist() == ["a", "b"]
    notes = [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and "run log" in e.text]
    assert len(notes) == 1
    assert "HOLYNB_HOME" in notes[0]


def test_kill_9_in_the_middle_and_only_the_rest_is_sent(home: Path):
    code = """
import sys, holynb
run = holynb.infer([f"row {i}" for i in range(60)], "sim/echo", p={"latency": 0.05}, concurrency=4, name="big")
print("started", flush=True)
run.wait()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    child.stdout.readline()
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        record = runlog.log().find("big")
        if record is not None and record.ok >= 10:
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(DEADLINE)
    child.stdout.close()
    before = len([o for _, o in runlog.log().answers(resume.stored("big").id).values() if o.status == "ok"])
    assert 10 <= before < 60
    run = infer([f"row {i}" for i in range(60)], "sim/echo", p={"latency": 0.05}, name="big").wait(DEADLINE)
    assert sent(run) == 60 - before
    assert run.frame()["text"].tolist() == [f"row {i}" for i in range(60)]


@pytest.mark.parametrize("end", ["at its end", "by Ctrl-C"])
def test_a_program_that_ends_stops_its_runs_and_keeps_what_was_answered(home: Path, end: str):
    code = f"""
import signal, holynb
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it, and the tests may be one
run = holynb.infer([f"row {{i}}" for i in range(200)], "sim/echo", p={{"latency": 0.1}}, concurrency=4, name="left")
while run.summary().ok < 8:
    pass
print("started", flush=True)
{"run.wait()" if end == "by Ctrl-C" else ""}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.stdout is not None
    child.stdout.readline()
    if end == "by Ctrl-C":
        child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=DEADLINE)
    record = resume.stored("left")
    assert record.status == "stopped"
    assert 8 <= record.ok < 200
    last = told.decode().splitlines()[-1]
    assert last.startswith(f"holynb: the program ended during left, so it was stopped, with {record.ok} of 200 rows answered.")
    run = infer([f"row {i}" for i in range(200)], "sim/echo", p={"latency": 0.1}, resume="left").wait(DEADLINE)
    assert sent(run) == 200 - record.ok


def test_closing_leaves_no_thread():
    infer("a", "sim/echo").wait(DEADLINE)
    loop.close()
    runlog.close()
    assert {t.name for t in threading.enumerate()} & {"holynb-io", "holynb-log"} == set()


def test_an_unknown_price_is_said_once_and_shown_as_unknown():
    with Exact([reply(OPENAI.whole)]) as server:
        run = infer(["a", "b"], "vllm/m", api_base=server.base).wait(DEADLINE)
    assert len([e for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and "No price is known for vllm/m" in e.text]) == 1
    assert (run.summary().cost, run.summary().unknown_cost) == (None, 2)
    assert " · cost ? · " in run.summary().line()
    assert run.frame()["cost"].isna().all()


def test_a_name_used_again_for_other_prompts_loses_no_answer_that_was_paid(home: Path) -> None:
    first = infer([f"one {i}" for i in range(6)], "sim/echo", name="nightly").wait(DEADLINE)
    other = infer(["two 0", "one 1", "two 2"], "sim/echo", name="nightly").wait(DEADLINE)
    assert other.id == first.id
    assert sent(other) == 2, "the row that asks the same is there"
    record = resume.stored("nightly")
    assert (record.n, record.ok, record.failed) == (3, 3, 0)
    assert record.cost == sum((o.cost or 0 for o in (*first.rows(), *other.rows()[::2]) if o), Decimal(0)), "all that it has paid"
    runlog.close()
    again = Run(resume.resumed("nightly")).start().wait(DEADLINE)
    assert again.frame()["text"].tolist() == ["two 0", "one 1", "two 2"]
    assert sent(infer([f"one {i}" for i in range(6)], "sim/echo").wait(DEADLINE)) == 0, (
        "what was asked before is still answered from the log"
    )
    longer = infer([f"one {i}" for i in range(6)], "sim/echo", name="nightly").wait(DEADLINE)
    assert longer.frame()["text"].tolist() == [f"one {i}" for i in range(6)]
    assert resume.stored("nightly").ok == 6
    spent = spending.total(spending.by_day(runlog.log()))
    assert spent.cost == sum((o.cost or 0 for o in (*first.rows(), *other.rows()) if o), Decimal(0))


def test_a_log_whose_run_has_rows_too_many_is_read_all_the_same(home: Path) -> None:
    infer(["a", "b", "c"], "sim/echo", name="long").wait(DEADLINE)
    runlog.close()
    with sqlite3.connect(home / "runs.sqlite") as db:  # as an older holynb left it
        db.execute("UPDATE runs SET n = 2")
    db.close()
    assert Run(resume.resumed("long")).start().wait(DEADLINE).frame()["text"].tolist() == ["a", "b"]
    assert resume.stored("long").ok == 2


def test_a_run_resumed_from_the_log_alone_has_the_index_it_had() -> None:
    days = pd.DatetimeIndex(["2024-01-01", "2024-01-02"], tz="Asia/Seoul", name="day")
    for options in ({}, {"samples": 2}):
        first = infer("{{ t }}", "sim/echo", df=pd.DataFrame({"t": ["a", "b"]}, index=days), name="days", **options).wait(DEADLINE)
        again = Run(resume.resumed("days")).start().wait(DEADLINE)
        pd.testing.assert_index_equal(again.frame().index, first.frame().index)
        assert again.frame().index.names[0] == "day"


def test_a_mistake_in_a_call_is_one_line_in_ipython() -> None:
    from ui.shells import run, shell

    with shell() as made:
        ran = run(made, "import holynb\n\n\nholynb.infer('x', 'sim/echo', max_tokns=3)")
    assert isinstance(ran.error, holynb.UserError)
    assert ran.out.strip() == "BadOption: There is no option 'max_tokns'. Did you mean max_tokens? %infer help lists them."


@pytest.mark.usefixtures("quick_retries")
def test_what_the_budget_or_a_route_refused_is_sent_again_with_another() -> None:
    run = infer(["one", "two"], "sim/stream", budget=0.0001, max_tokens=20)
    with pytest.raises(InferError, match="raise --budget"):
        run.wait()
    again = Run(resume.failed_again(None, {"budget": "2"})).start().wait()
    assert again.frame()["status"].tolist() == ["ok", "ok"]
    assert again.id == run.id
    broken = infer(["three", "four"], "sim/echo", p={"fault": "content_filter"}, retries=0)
    with pytest.raises(InferError):
        broken.wait()
    moved = Run(resume.failed_again(None, {"fallback": "sim/json"})).start()
    with pytest.raises(InferError):
        moved.wait()  # -p goes to every route, so the other one fails as it was asked to
    assert moved.frame()["attempts"].tolist() == [2, 2]
    assert moved.frame()["route"].tolist() == ["sim/json", "sim/json"]


def test_a_resumed_run_may_have_a_budget_and_it_needs_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    run = infer(["five"], "sim/stream", budget=0.0001, max_tokens=9, name="nightly")
    with pytest.raises(InferError):
        run.wait()
    runlog.close()
    resumed = Run(resume.resumed("nightly", {"budget": 3.0})).start().wait()
    assert resumed.frame()["status"].tolist() == ["ok"]
    other = infer(["six"], "sim/echo", p={"fault": "content_filter"}, retries=0, name="unpriced")
    with pytest.raises(InferError):
        other.wait()
    for plan in (lambda said: resume.failed_again("unpriced", said), lambda said: resume.resumed("unpriced", said)):
        with pytest.raises(BadSetting, match="--budget needs a price for vllm/mine"):
            plan({"fallback": "vllm/mine", "budget": 1})


def test_only_failed_says_which_answers_are_to_other_prompts() -> None:
    first = infer(["a", "b", "c"], "sim/echo", name="n").wait(DEADLINE)
    assert first.frame()["status"].tolist() == ["ok"] * 3
    second = infer(["a", "b, put otherwise", "c, put otherwise"], "sim/echo", name="n", only="failed").wait(DEADLINE)
    assert second.frame()["text"].tolist() == ["a", "b", "c"]
    told = [e.text for e in second.journal.events_since(0)[0] if isinstance(e, Noted)]
    assert told == ["2 rows that --only failed keeps were answered for other prompts than these."]
    assert [r.messages[-1].content for r in runlog.log().requests(first.id)] == ["a", "b", "c"], "an answer stands beside what it answers"


def test_what_only_failed_kept_on_another_route_is_not_asked_again_when_it_is_resumed() -> None:
    asked = [{"prompt": text, "max_tokens": 5 if text in "ab" else 5000} for text in "abcd"]
    first = infer(asked, "sim/echo", name="n", budget=0.001).wait(DEADLINE)
    assert first.frame()["status"].tolist() == ["ok", "ok", "error", "error"], "two are too dear"
    second = infer(asked, "sim/json", name="n", only="failed").wait(DEADLINE)
    assert set(second.frame()["route"]) == {"sim/echo", "sim/json"}
    assert not [e for e in second.journal.events_since(0)[0] if isinstance(e, Noted)], "these are the same prompts"
    runlog.close()
    third = Run(resume.resumed("n")).start().wait(DEADLINE)
    assert sent(third) == 0
    assert third.frame()["route"].tolist() == second.frame()["route"].tolist()


@pytest.mark.parametrize("way", [{"judge": "sim/json"}, {"embed": True}, {"rows": "broken"}], ids=["judge", "embed", "broken"])
def test_a_run_is_read_by_its_name(way: dict[str, object]) -> None:
    broken = way.pop("rows", None)
    if broken:
        with pytest.raises(holynb.InferError) as failure:
            infer(["a", "b"], "sim/echo", name="read", p={"fault": "auth"}, retries=0).wait(DEADLINE)
        run = failure.value.run
    else:
        run = infer(["a", "b"], "sim/echo", name="read", **way).wait(DEADLINE)
    runlog.close()
    frame = holynb.read("read")
    pd.testing.assert_frame_equal(frame, run.result())
    origin = run.result().attrs["holynb"]
    assert frame.attrs["holynb"] == pytest.approx(origin | {"cost": origin["cost"] or 0.0}), "what was refused everywhere cost nothing"
    pd.testing.assert_frame_equal(holynb.read(run.id[:8]), frame)
    with pytest.raises(BadOption, match=r"There is no run 'raed' in the run log. Did you mean read"):
        holynb.read("raed")


FRAMES = {
    "missing": pd.DataFrame({"t": ["a", "b", "a", None, ""]}, index=["v", "w", "x", "y", "z"]),
    "equal labels": pd.DataFrame({"t": ["a", "", "c"]}, index=[1, 1, 2]),
    "levels": pd.DataFrame({"t": [None, "b", "c"]}, index=pd.MultiIndex.from_tuples([(1, "x"), (1, "x"), (2, "y")], names=["i", None])),
    "no labels": pd.DataFrame({"t": ["a", None]}, index=[float("nan")] * 2),
}
WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "samples": {"samples": 2},
    "compare": {"compare": "sim/json", "samples": 2},
    "chunk": {"chunk": 400},
    "into": {"into": "said"},
    "schema": {"schema": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}, "fallback": "sim/json"},
    "router": {"router": "task_type"},
    "spread": {"spread": "sim/json"},
    "no cache": {"cache": False},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES)
def test_a_run_comes_back_whole_from_the_log_alone(df: pd.DataFrame, way: dict[str, object]) -> None:
    first = infer("{{ t }}", "sim/echo", df=df, name="whole", **way).wait(DEADLINE)
    runlog.close()
    pd.testing.assert_frame_equal(holynb.read("whole"), first.result())
    again = Run(resume.resumed("whole")).start().wait(DEADLINE)
    assert sent(again) == 0
    told = ["text", "status", "route", "model", "tokens_in", "tokens_out"]
    pd.testing.assert_frame_equal(again.result()[told], first.result()[told])


def test_a_route_is_not_compared_with_itself_in_silence():
    for same in ("sim/echo", ["sim/echo", "sim/echo"]):
        with pytest.raises(BadOption, match=r"--compare names sim/echo alone, so nothing is compared\. .* --samples 3\."):
            infer(["a"], "sim/echo", compare=same)
    run = infer(["a"], "sim/echo", compare="sim/echo", samples=2).wait(DEADLINE)
    assert len(run.frame()) == 2
