"""`--batch` over stand-ins of the four providers: into input order, at the batch's price; refused, full, expired, lost, stopped, resumed."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pictures
import pytest
from servers.batches import USAGE, Batches, Job

import holynb
from holynb import runlog
from holynb.batches import calls, limits, pace
from holynb.errors import BadOption, BadSetting, Fault, InferError
from holynb.events import Noted
from holynb.pricing import prices
from holynb.run import Run, resume
from holynb.types import Message, Route, Usage
from holynb.ui.output import report

pytestmark = pytest.mark.usefixtures("ended")
KEY = "sk-test-0123456789abcdef"
ROUTES = {
    "openai": "openai/gpt-6-luna",
    "azure": "azure/gpt-6-luna",
    "anthropic": "anthropic/claude-haiku-4-5",
    "gemini": "gemini/gemini-3.8-flash",
}
VENDORS = pytest.mark.parametrize("vendor", ROUTES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    monkeypatch.setattr(pace, "FIRST_S", 0.02)
    monkeypatch.setattr(pace, "MOST_S", 0.1)


def ask(server: Batches, n: int = 4, **options: Any) -> Run:
    return holynb.infer([f"p{i}" for i in range(n)], ROUTES[server.vendor], batch=True, api_base=server.base, **options)


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.005)


def notes(run: Run) -> str:
    return "\n".join(e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted))


def price_of(vendor: str, tier: str | None) -> Decimal:
    n, cached, out = USAGE
    cost = prices.price(Route.parse(ROUTES[vendor]), None, Usage(n, out, cached), tier=tier)
    assert cost is not None
    return cost


def test_answers_of_a_batch_are_compared_with_labels_when_they_are_there() -> None:
    df = pd.DataFrame({"t": ["p0", "p1", "p2", "p3"], "y": ["answer 0", "answer 1", "other", None]})
    with Batches("openai", answer=lambda body, id_: f"answer {id_.split('-')[-2]}") as server:
        run = holynb.infer("{{ t }}", ROUTES["openai"], df=df, label="y", batch=True, api_base=server.base, name="b")
        until(lambda: run.batch.accepted)
        assert run.quality().assessment.labelled[0].confusion.n == 0
        server.work()
        run.wait(20)
    for quality in (run.quality().assessment, report._from_log("b").quality):
        (x,) = quality.labelled
        assert (x.confusion.n, x.confusion.hits, x.failed, x.unlabelled) == (3, 2, 0, 1)


@VENDORS
def test_rows_come_back_in_input_order_at_the_price_of_a_batch(vendor: str) -> None:
    with Batches(vendor, answer=lambda body, id_: f"answer to row {id_.split('-')[-2]}") as server:
        run = ask(server, 7, name="mine")
        until(lambda: run.batch.accepted)
        frame = run.frame()
        assert frame["status"].isna().all()
        assert "7 pending" in run.summary().line()
        assert "7 rows pending in 1 batch." in notes(run)
        about = "about " if vendor in ("azure", "gemini") else ""  # whose pages do not say how long they keep results
        assert f"{next(iter(server.jobs))} at {vendor}: 7 rows, fetch before {about}20" in run.batch.lines()[0]
        server.work()
        frame = run.wait(10).frame()
    assert list(frame["text"]) == [f"answer to row {i}" for i in range(7)]
    assert set(frame["status"]) == {"ok"} and set(frame["attempts"]) == {1}
    assert list(frame["tokens_cached"]) == [USAGE[1]] * 7
    assert run.summary().cost == 7 * price_of(vendor, "batch")
    assert run.summary().below_direct == 7 * (price_of(vendor, None) - price_of(vendor, "batch")) > 0
    assert "less than direct" in run.summary().line()
    assert KEY not in notes(run)
    assert max(server.submitted().values()) == 1
    assert [p.state for p in runlog.log().batches(only_open=False)] == ["collected"]
    # Run All again sends nothing.
    with Batches(vendor) as again:
        run = ask(server, 7)
        assert run.wait(10).summary().cached == 7 and not again.asked


@pytest.fixture
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose reply was lost is on its way no longer."""
    known = {name: replace(provider, settles_s=0.0) for name, provider in limits.table().items()}
    monkeypatch.setattr("holynb.batches.table", lambda: known)


@VENDORS
def test_a_batch_whose_reply_was_lost_is_found_and_not_sent_again(vendor: str, settled_at_once: None) -> None:
    with Batches(vendor, lose=1) as server:
        run = ask(server, 5)
        until(lambda: "got lost" in notes(run))
        if vendor == "anthropic":  # carries no key: what was created since is held until it can be read
            until(lambda: "are held" in notes(run))
            time.sleep(0.1)
        server.work()
        frame = run.wait(10).frame()
    assert list(frame["status"]) == ["ok"] * 5 and len(server.jobs) == 1
    assert set(server.submitted().values()) == {1}


@VENDORS
def test_a_batch_that_never_arrived_is_sent_once_more(vendor: str, settled_at_once: None) -> None:
    with Batches(vendor, late=1, at_once=True) as server:
        assert set(ask(server, 5).wait(10).frame()["status"]) == {"ok"}
    assert set(server.submitted().values()) == {1}


def test_anothers_batch_of_as_many_rows_is_told_from_ours_by_its_rows(settled_at_once: None) -> None:
    theirs = [{"custom_id": f"theirs-{i}", "params": {"model": "x", "messages": [{"role": "user", "content": "?"}]}} for i in range(3)]
    with Batches("anthropic", late=1) as server:
        server.jobs["msgbatch_x"] = Job("msgbatch_x", theirs)
        run = ask(server, 3)
        until(lambda: "as anthropic's msgbatch_x may be it: nothing is submitted twice" in notes(run))
        assert len(server.jobs) == 1, "held until its rows can be read"
        assert "held until msgbatch_x can be read" in run.batch.lines()[0]
        server.work("msgbatch_x")
        until(lambda: len(server.jobs) == 2)
        server.work()
        assert set(run.wait(10).frame()["text"].str.contains("answer")) == {True}


@VENDORS
def test_too_much_enqueued_waits_and_is_submitted_again(vendor: str) -> None:
    with Batches(vendor, most=3) as server:
        server.jobs["other"] = Job("other", [{"custom_id": "x", "metadata": {"key": "x"}, "body": {"messages": [{"content": "other"}]}}])
        run = ask(server, 3)
        until(lambda: "waits for room" in notes(run))
        server.jobs["other"].state = "ended"
        until(lambda: len([j for j in server.jobs.values() if j.state == "working"]) == 1)
        server.work()
        assert set(run.wait(10).frame()["status"]) == {"ok"}
    assert set(server.submitted().values()) == {1}


@VENDORS
def test_rows_that_expired_or_failed_stay_for_only_failed(vendor: str) -> None:
    refusal = {"anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": "no such thing"}}}.get(
        vendor, {"error": {"message": "no such thing", "type": "invalid_request_error", "code": 400, "status": "INVALID_ARGUMENT"}}
    )

    def answer(body: Any, id_: str) -> Any:
        return (400, refusal) if "-0-" in id_ else f"answer {id_}"

    with Batches(vendor, answer=answer) as server:
        run = ask(server, 4, name="again")
        until(lambda: run.batch.accepted)
        server.work(share=0.5, end="expired")
        until(lambda: run.done)
        frame = run.frame()
        if vendor == "gemini":  # its expired jobs have no results
            assert set(frame["error_type"]) == {"timeout"}
        else:
            assert list(frame["status"]) == ["error", "ok", "error", "error"]
            assert frame["error"][0].endswith("no such thing") and frame["error_type"][0] == "bad_request"
            assert frame["error_type"][2] == "timeout" and frame["cost"][2] == 0
        server.answer = lambda body, id_: "well"
        done = ask(server, 4, name="again", only="failed")
        until(lambda: done.batch.accepted)
        server.work()
        assert list(done.wait(10).frame()["status"]) == ["ok"] * 4
    sent = server.submitted()
    assert sent["p2"] == 2 and sent["p1"] == (2 if vendor == "gemini" else 1)


@VENDORS
def test_a_stop_cancels_there_and_what_was_answered_is_kept(vendor: str) -> None:
    with Batches(vendor) as server:
        run = ask(server, 4, name="stopped")
        until(lambda: run.batch.accepted)
        if vendor in ("openai", "azure"):
            first = next(iter(server.jobs.values()))
            first.results[first.rows[0]["custom_id"]] = ("ok", "early")
        run.cancel()
        until(lambda: run.done)
        assert run.summary().cancelled >= 3 and run.stopped
        assert all(job.state == "cancelled" for job in server.jobs.values())
        again = Run(resume.resumed("stopped")).start()
        until(lambda: again.batch.accepted or again.done)
        server.work()
        assert list(again.wait(10).frame()["status"]) == ["ok"] * 4
        if vendor in ("openai", "azure"):
            assert again.frame()["text"][0] == "early"


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@VENDORS
def test_answers_that_miss_the_schema_are_repaired_by_a_second_batch(vendor: str) -> None:
    with Batches(vendor, answer=lambda body, id_: "none" if "-1-1-" in id_ else '{"n": 1}', at_once=True) as server:
        run = ask(server, 3, schema=SCHEMA).wait(10)
    assert list(run.frame()["n"]) == [1, 1, 1]
    assert list(run.frame()["attempts"]) == [1, 2, 1] and len(server.jobs) == 2
    assert run.summary().cost == 4 * price_of(vendor, "batch"), "both attempts are paid"
    assert len(list(server.jobs.values())[1].rows) == 1


def test_with_a_fallback_repairs_go_out_directly() -> None:
    def answer(body: Any, id_: str) -> str:
        return '{"n": 7}' if id_ == "direct" else "none" if "-1-1-" in id_ else '{"n": 1}'

    with Batches("openai", answer=answer, at_once=True) as server:
        run = ask(server, 3, schema=SCHEMA, fallback=("openai/gpt-6-sol",)).wait(10)
    assert list(run.frame()["n"]) == [1, 7, 1] and len(server.jobs) == 1
    assert run.frame()["route"][1] == "openai/gpt-6-sol"
    assert sum(a.path.endswith("/chat/completions") for a in server.asked) == 1


def test_what_is_asked_again_in_other_words_goes_into_another_batch() -> None:
    def answer(body: Any, id_: str) -> Any:
        words = "Unsupported parameter: 'temperature' is not supported with this model."
        return (
            (400, {"error": {"message": words, "type": "invalid_request_error", "param": "temperature", "code": "unsupported_parameter"}})
            if "temperature" in body
            else "ok"
        )

    with Batches("openai", answer=answer, at_once=True) as server:
        run = ask(server, 2, temperature=0.5).wait(10)
    assert set(run.frame()["status"]) == {"ok"} and len(server.jobs) == 2


def test_a_deployment_that_is_none_for_batches_is_refused_by_name() -> None:
    error = {"error": {"message": "The deployment type Standard does not support batch; use GlobalBatch.", "code": "BadRequest"}}
    with Batches("azure", refuse=lambda what, rows: (400, error)) as server:
        with pytest.raises(InferError, match="gpt-6-luna is no batch deployment: create one of type Global Batch or Data Zone Batch"):
            ask(server, 2).wait(10)
        assert [p.state for p in runlog.log().batches(only_open=False)] == ["refused"]


def test_a_key_that_is_refused_ends_the_run_in_one_line() -> None:
    error = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "invalid_request_error", "code": "invalid_api_key"}}
    with Batches("openai", refuse=lambda what, rows: (401, error)) as server, pytest.raises(InferError, match="refused the key") as caught:
        ask(server, 2).wait(10)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("route", "options", "says"),
    [
        ("openai/gpt-6-luna", {"stream": True}, "--batch with --stream: the answers of a batch come when it is done"),
        ("openai/gpt-6-luna", {"tier": "flex"}, "--batch with --tier"),
        ("openai/gpt-6-luna", {"chunk": "auto"}, "--batch with --chunk"),
        ("openai/gpt-6-luna", {"spread": "openai/gpt-6-sol"}, "--batch with --spread"),
        ("openai/gpt-6-luna", {"deadline": "1h"}, "--batch with --deadline"),
        ("openai/gpt-6-luna", {"rpm": 5}, "--batch with --rpm"),
        ("openai/gpt-6-luna", {"embed": True}, "--embed gives vectors, and --batch"),
        ("openai/gpt-6-luna", {"judge": "openai/gpt-6-sol"}, "--judge asks about each answer"),
        ("deepseek/deepseek-v4-flash", {}, "deepseek has no batch API that holynb speaks. openai, azure, anthropic, gemini have one"),
        ("sim/echo", {}, "sim has no batch API"),
    ],
)
def test_what_a_batch_cannot_be_is_refused_in_one_line(
    route: str, options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    with pytest.raises(BadOption, match=says):
        holynb.infer("x", route, batch=True, **options)


def test_a_budget_is_reserved_at_the_price_of_a_batch() -> None:
    with pytest.raises(BadSetting, match="--budget needs a price for openai/unheard-of"):
        holynb.infer("x", "openai/unheard-of", batch=True, budget=1)
    with Batches("openai", at_once=True) as server:
        each = prices.worst_case(Route.parse(ROUTES["openai"]), (Message("user", "p0"),), 100, tiers=("batch",))
        assert each is not None
        run = ask(server, 4, max_tokens=100, budget=float(each) * 2.5).wait(10)
        # Two fit at once; what they cost leaves room for the others, one by one.
        assert set(run.frame()["status"]) == {"ok"} and [len(job.rows) for job in server.jobs.values()] == [2, 1, 1]
        assert run.summary().cost == 4 * price_of("openai", "batch")
        with pytest.raises(InferError, match="could cost up to"):
            ask(server, 4, max_tokens=100, budget=float(each) / 2, refresh=True).wait(10)


def test_rows_are_cut_to_what_the_provider_takes_and_one_that_is_too_large_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.batches.pieces.MOST_BYTES", 2_000)
    with Batches("openai", at_once=True) as server:
        run = holynb.infer([*(f"p{i}" for i in range(40)), "x" * 9_000], ROUTES["openai"], batch=True, api_base=server.base).wait(10)
    assert len(server.jobs) > 2 and run.summary().ok == 40
    assert run.frame()["error"][40] == "this row alone is 9 kB, more than a batch takes"
    assert set(server.submitted().values()) == {1}


def test_results_that_are_read_again_are_paid_once_and_end_once(home: Path) -> None:
    """A kernel may be killed between a payment and its answer, or after an answer and before the batch is closed."""

    def answer(body: Any, id_: str) -> Any:
        return (400, {"error": {"message": "no", "type": "invalid_request_error"}}) if "-3-" in id_ else f"answer {id_}"

    with Batches("openai", answer=answer, at_once=True) as server:
        ask(server, 5, name="cut").wait(10)
        runlog.close()
        with sqlite3.connect(home / "runs.sqlite") as db:
            db.execute("UPDATE batches SET state = 'accepted'")
            db.execute("DELETE FROM answers WHERE row IN (0, 1)")
        again = ask(server, 5, name="cut").wait(10)
        assert list(again.frame()["status"]) == ["ok", "ok", "ok", "error", "ok"] and len(server.jobs) == 1
    runlog.close()
    with sqlite3.connect(home / "runs.sqlite") as db:
        paid = sum((Decimal(c) for (c,) in db.execute("SELECT cost FROM payments WHERE cost IS NOT NULL")), Decimal(0))
        assert paid == 4 * price_of("openai", "batch")
        assert db.execute("SELECT attempts FROM answers WHERE row = 3").fetchone() == (1,)
        assert db.execute("SELECT DISTINCT state FROM batches").fetchall() == [("collected",)]


def test_results_that_break_off_are_read_to_their_end_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with Batches("anthropic", at_once=True) as server:
        whole, broken = server.handle, []

        def handle(asked: Any) -> tuple[int, Any]:
            status, body = whole(asked)
            if asked.path.endswith("/results") and not broken:
                broken.append(asked)
                return 503, {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}
            return status, body

        monkeypatch.setattr(server, "handle", handle)
        run = ask(server, 3).wait(10)
        assert set(run.frame()["status"]) == {"ok"} and broken
        assert "is asked for again" in notes(run)


def test_a_log_that_cannot_be_written_submits_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Any, piece: Any) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr(runlog.RunLog, "submit", refuses)
    with Batches("openai") as server:
        with pytest.raises(BadSetting, match="so a batch would not be found again, and none was submitted"):
            ask(server, 2).wait(10)
        assert not server.asked


@VENDORS
def test_a_provider_that_cannot_be_asked_is_asked_no_sooner_than_the_pace_says(
    vendor: str, settled_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_S", 0.2)
    monkeypatch.setattr(pace, "MOST_S", 0.2)
    with Batches(vendor, lose=1) as server:
        answers, asked = server.handle, list[float]()

        def broken(request: Any) -> tuple[int, Any]:
            if request.method == "GET":
                asked.append(time.monotonic())
                return 401, {"error": {"message": f"no such key: {KEY}", "type": "authentication_error"}}
            return answers(request)

        server.handle = broken
        run = ask(server, 2)
        until(lambda: len(asked) >= 4)
        assert asked[3] - asked[1] > 0.35
        assert "not to be asked for now" in run.batch.lines()[0] and KEY not in run.batch.lines()[0] + notes(run)
        server.handle = answers
        server.work()
        assert set(run.wait(10).frame()["status"]) == {"ok"}
    assert set(server.submitted().values()) == {1}


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_results_that_come_before_they_are_whole_are_read_again(vendor: str) -> None:
    with Batches(vendor, at_once=True) as server:
        answers, cuts = server.handle, [0.6, 0.3]

        def cut(request: Any) -> tuple[int, Any]:
            status, body = answers(request)
            return status, body[: int(len(body) * cuts.pop())] if isinstance(body, bytes) and cuts else body

        server.handle = cut
        assert list(ask(server, 4).wait(10).frame()["status"]) == ["ok"] * 4
        assert not cuts and len(server.jobs) == 1


def test_lines_that_no_batch_could_have_change_nothing() -> None:
    with Batches("openai", at_once=True) as server:
        answers = server.handle

        def hostile(request: Any) -> tuple[int, Any]:
            status, body = answers(request)
            if isinstance(body, bytes):
                key = json.loads(body.splitlines()[0])["custom_id"].rsplit("-", 2)[0]
                strange = json.dumps({"custom_id": f"{key}-{'9' * 5000}-x", "response": {"status_code": 200, "body": {}}})
                body = b"[" * 50_000 + b"\n" + strange.encode() + b'\nnull\n{"custom_id": "never sent"}\n' + body + body
            return status, body

        server.handle = hostile
        run = ask(server, 3).wait(10)
        assert list(run.frame()["status"]) == ["ok"] * 3
        assert run.summary().cost == 3 * price_of("openai", "batch")


def test_a_limit_below_one_batch_is_met_by_smaller_ones() -> None:
    with Batches("openai", most=3) as server:
        run = ask(server, 10)
        end = time.monotonic() + 15
        while not run.done and time.monotonic() < end:
            server.work()
            time.sleep(0.01)
        assert set(run.frame()["status"]) == {"ok"}
    assert set(server.submitted().values()) == {1}


def test_a_batch_that_is_refused_in_many_words_shows_few_and_no_key() -> None:
    key = "0123456789abcdef-a-key-of-no-known-form"
    with Batches("openai") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", key)
        server.most = 0
        refusal = {"code": "token_limit_exceeded", "message": f"\x1b[31m{key} {'A' * 9000}"}
        server._as_openai = lambda job: {"id": job.id, "status": "failed", "errors": {"data": [refusal]}}
        run = ask(server, 2)
        until(lambda: "waits for room" in notes(run))
        assert key not in notes(run) and "\x1b" not in notes(run)
        assert max(map(len, notes(run).splitlines())) < 800
        run.cancel()


def test_a_submission_that_is_never_answered_is_not_made_forever(settled_at_once: None) -> None:
    with Batches("openai", late=99) as server:
        run = ask(server, 2, retries=1)
        with pytest.raises(InferError):
            run.wait(10)
        assert set(run.frame()["error_type"]) == {"server"} and 99 - server.late == 2


def test_an_id_that_is_none_is_not_shown_and_not_asked_for() -> None:
    for value in (f"\x1b[31m{KEY}", "batches/../../models", "", None, 5, "x" * 300, "a b"):
        with pytest.raises(Fault, match="no id"):
            calls.id_of(value)
    for value in ("batch_6a-B", "msgbatch_01", "batches/ab-12.3"):
        assert calls.id_of(value) == value


def test_the_pictures_of_a_column_go_into_batches() -> None:
    frame = pd.DataFrame({"photo": [pictures.PNG, b"broken", pictures.PNG, pictures.JPEG]})
    for vendor, route in ROUTES.items():
        with Batches(vendor, at_once=True) as server:
            run = holynb.infer("Look.", route, df=frame, batch=True, attach=["photo"], api_base=server.base).wait(10)
            assert list(run.frame()["status"]) == ["ok", "error", "ok", "ok"]
            assert [len(job.rows) for job in server.jobs.values()] == [2], "the same picture is asked about once"
            encoded = base64.b64encode(pictures.JPEG).decode()
            assert sum(encoded in json.dumps(row) for job in server.jobs.values() for row in job.rows) == 1
