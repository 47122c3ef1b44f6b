"""What was spent: sums over real runs of the simulator, days and months, and what stays unknown."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from servers.exact import Asked, Exact, Step, reply

import holynb
from holynb import runlog
from holynb.config import settings
from holynb.journal import Payment
from holynb.pricing import spending
from holynb.run import resume
from holynb.run.run import Run
from holynb.runlog.store import RunLog
from holynb.types import Route, Usage

NOW = dt.datetime(2026, 11, 21, 12, 0)
pytestmark = pytest.mark.usefixtures("ended")


def run_rows(n: int, route: str = "sim/echo", **options: object) -> Decimal:
    """What a real run of `n` rows cost."""
    run = holynb.infer([f"{route} row {i} {options}" for i in range(n)], route, **options).wait()
    return sum((o.cost for o in run.rows() if o.cost is not None), Decimal(0))


def change(home: Path, sql: str, *args: object) -> None:
    """An UPDATE of answers, and of the payments for them."""
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute(sql, args)
        db.execute(sql.replace("answers", "payments"), args)
    db.close()


def older(home: Path) -> None:
    """The log as a holynb without payments left it."""
    runlog.close()
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute("DROP TABLE payments")
        db.execute("PRAGMA user_version = 0")
    db.close()


def on(day: dt.datetime) -> float:
    return day.timestamp()


def test_a_line_for_each_day_and_route_adds_up_exactly(home: Path) -> None:
    yesterday = run_rows(7)
    change(home, "UPDATE answers SET at = ?", on(NOW - dt.timedelta(days=1)))
    today = run_rows(3, temperature=1)
    short = run_rows(5, "sim/stream", max_tokens=3)
    change(home, "UPDATE answers SET at = ? WHERE at != ?", on(NOW), on(NOW - dt.timedelta(days=1)))
    lines = spending.by_day(runlog.log())
    assert [(s.day, s.route, s.rows) for s in lines] == [
        (NOW.date(), "sim/echo", 3),
        (NOW.date(), "sim/stream", 5),
        (NOW.date() - dt.timedelta(days=1), "sim/echo", 7),
    ]
    assert [s.cost for s in lines] == [today, short, yesterday]
    assert spending.total(lines).cost == yesterday + today + short
    assert spending.total(lines).tokens_out == sum(s.tokens_out for s in lines) > 0
    assert lines[1].model == "sim-stream"
    assert lines[1].provider == "sim"


def test_answers_given_again_are_counted_apart_and_cost_nothing() -> None:
    first = run_rows(4)
    assert run_rows(4) == 0
    (line,) = spending.by_day(runlog.log())
    assert (line.rows, line.cached, line.cost) == (8, 4, first)


def test_resuming_does_not_lose_or_double_what_was_spent() -> None:
    first = run_rows(4, name="nightly")
    run_rows(4, name="nightly")
    (line,) = spending.by_day(runlog.log())
    assert (line.rows, line.cost) == (4, first)


def test_what_was_thought_is_counted_where_a_server_says_it(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/echo", p={"thoughts": 5}).wait()
    told = [o.usage.tokens_reasoning for o in run.rows() if o is not None]
    assert all(told)
    run_rows(2)  # of which nothing is said
    (line,) = spending.by_day(runlog.log())
    assert (line.rows, line.tokens_reasoning) == (4, sum(filter(None, told)))
    older(home)
    (line,) = spending.by_day(runlog.log())  # payments that an older holynb left did not keep it
    assert (line.rows, line.tokens_reasoning) == (4, None)


def test_unknown_is_counted_never_zero(home: Path) -> None:
    run_rows(4)
    change(home, "UPDATE answers SET cost = NULL, route = 'vllm/mine'")
    (line,) = spending.by_day(runlog.log())
    assert (line.cost, line.unknown) == (None, 4)
    change(home, "UPDATE answers SET cost = '0.5' WHERE row = 0")
    (line,) = spending.by_day(runlog.log())
    assert (line.cost, line.unknown) == (Decimal("0.5"), 3)
    change(home, "UPDATE answers SET cost = NULL, route = 'pool/tiny'")
    (line,) = spending.by_day(runlog.log())
    assert (line.cost, line.unknown) == (None, 0), "a pool without a price has none to know"


def test_failed_rows_are_counted(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/echo", p={"fault": "content_filter"}, retries=0)
    with pytest.raises(holynb.InferError):
        run.wait()
    (line,) = spending.by_day(runlog.log())
    assert (line.rows, line.failed, line.unknown) == (2, 2, 0)


def test_the_months_pace_leads_to_its_end(home: Path) -> None:
    run_rows(10)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '1.25', at = ?", on(NOW - dt.timedelta(days=4)))
    change(home, "UPDATE answers SET at = ? WHERE row >= 5", on(NOW - dt.timedelta(days=1)))
    spending_month = spending.month(runlog.log(), NOW)
    assert spending_month.so_far.cost == Decimal("12.50")
    assert spending_month.per_day == Decimal("3.125"), "the log began four days ago"
    assert spending_month.projected == Decimal("12.50") + Decimal("3.125") * Decimal("9.5")
    change(home, "UPDATE answers SET at = ? WHERE row = 0", on(NOW - dt.timedelta(days=200)))
    older = spending.month(runlog.log(), NOW)
    assert older.so_far.rows == 9
    assert older.per_day == Decimal("11.25") / Decimal("20.5"), "a log that is older: since the month began"


def test_the_first_hours_are_not_blown_up_to_a_month(home: Path) -> None:
    run_rows(2)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '1', at = ?", on(NOW - dt.timedelta(minutes=5)))
    assert spending.month(runlog.log(), NOW).per_day == 2, "a day at least"


def test_simulated_dollars_are_nobodys_money() -> None:
    run_rows(5)
    spending_month = spending.month(runlog.log(), dt.datetime.now() + dt.timedelta(seconds=1))
    assert (spending_month.so_far.cost, spending_month.per_day, spending_month.projected) == (None, None, None)
    assert spending_month.simulated.cost
    assert spending.reusable_answers(runlog.log()) == (5, None)
    change(settings.home(), "UPDATE payments SET route = 'demo/smollm2-135m'")
    of_demo = spending.month(runlog.log(), dt.datetime.now() + dt.timedelta(seconds=1))
    assert (of_demo.so_far.cost, of_demo.simulated.cost) == (None, spending_month.simulated.cost), "its price is made up"


def test_an_empty_log_is_nothing() -> None:
    assert spending.by_day(runlog.log()) == []
    spending_month = spending.month(runlog.log(), NOW)
    assert (spending_month.so_far.rows, spending_month.per_day, spending_month.days) == (0, None, 30)
    assert spending.reusable_answers(runlog.log()) == (0, None)
    assert spending.recent_answers(runlog.log(), Route("sim", "echo")) == []


def test_what_is_on_offer_and_what_was_learned(home: Path) -> None:
    run_rows(6)
    run_rows(2, cache=False)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '0.5'")
    assert spending.reusable_answers(runlog.log()) == (6, Decimal("3.0"))
    runlog.log().clear()
    assert spending.reusable_answers(runlog.log()) == (0, None)
    assert spending.recent_answers(runlog.log(), Route("sim", "echo")) == []
    change(home, "UPDATE answers SET route = 'sim/echo'")
    seen = spending.recent_answers(runlog.log(), Route("sim", "echo"), limit=7)
    assert len(seen) == 7
    assert all(s.usage.tokens_in and s.usage.tokens_out and s.messages[-1].content.startswith("sim/echo row") for s in seen)


# -- what was paid stays where it was paid -------------------------------------------------------------------------------------
YESTERDAY = NOW - dt.timedelta(days=1)
LABEL = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def refused(n: int, **options: object) -> holynb.Run:
    """A run whose rows were paid for twice each, and hold to no schema."""
    run = holynb.infer([f"row {i}" for i in range(n)], "sim/echo", schema=LABEL, **options)
    with pytest.raises(holynb.InferError):
        run.wait()
    return run


def sums(lines: list[spending.SpendingLine]) -> dict[tuple[dt.date | None, str | None], Decimal]:
    return {(s.day, s.route): s.cost for s in lines if s.cost}


def test_a_row_sent_again_on_another_day_leaves_what_was_paid_before_where_it_was(home: Path) -> None:
    first = refused(3)
    paid = sum((o.cost for o in first.rows()), Decimal(0))
    change(home, "UPDATE answers SET at = ?", on(YESTERDAY))
    again = holynb.infer([f"row {i}" for i in range(3)], "sim/json", schema=LABEL, only="failed").wait()
    change(home, "UPDATE answers SET at = ? WHERE at != ?", on(NOW), on(YESTERDAY))
    now = sum((o.cost for o in again.rows()), Decimal(0))
    assert paid > 0 < now
    lines = spending.by_day(runlog.log())
    assert sums(lines) == {(NOW.date(), "sim/json"): now, (YESTERDAY.date(), "sim/echo"): paid}
    assert [(s.route, s.model, s.rows, s.failed) for s in lines] == [("sim/json", "sim-json", 3, 0), ("sim/echo", "sim-echo", 3, 3)]
    assert spending.total(lines).tokens_in == sum(o.usage.tokens_in or 0 for o in (*first.rows(), *again.rows()) if o)
    assert spending.month(runlog.log(), NOW + dt.timedelta(seconds=1)).simulated.cost == paid + now
    stored = resume.stored(again.id)
    assert stored.cost == paid + now, "the run's own sum goes on"


def test_each_route_that_a_row_was_paid_on_keeps_its_own() -> None:
    run = holynb.infer([f"row {i}" for i in range(4)], "sim/echo", fallback="sim/json", schema=LABEL).wait()
    whole = sum((o.cost for o in run.rows()), Decimal(0))
    assert {o.route for o in run.rows()} == {"sim/json"}
    lines = {s.route: s for s in spending.by_day(runlog.log())}
    assert {route: s.rows for route, s in lines.items()} == {"sim/json": 4, "sim/echo": 0}
    assert lines["sim/echo"].cost > 0 < lines["sim/json"].cost
    assert lines["sim/echo"].cost + lines["sim/json"].cost == whole


def test_the_parts_of_a_long_row_are_paid_once() -> None:
    text = "\n\n".join(f"Paragraph {i} says that the river is {i} metres wide, and goes on for a while about it." for i in range(60))
    run = holynb.infer([text, "short"], "sim/echo", chunk=400).wait()
    whole = sum((o.cost for o in run.rows()), Decimal(0))
    (line,) = spending.by_day(runlog.log())
    assert (line.cost, line.rows, line.failed) == (whole, len(run.chunks()) + 1, 0)
    assert line.rows > 3
    asked_again = holynb.infer([text, "short"], "sim/echo", chunk=400).wait()
    assert all(o.cached for o in asked_again.rows())
    (line,) = spending.by_day(runlog.log())
    assert (line.cost, line.cached) == (whole, 2)


def test_an_older_log_shows_what_it_knows_before_and_after_it_is_written_to(home: Path) -> None:
    first = run_rows(5)
    refused(2)
    run_rows(5)
    before = spending.by_day(runlog.log())
    older(home)
    with sqlite3.connect(f"file:{home / 'runs.sqlite'}?mode=ro", uri=True) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'payments'").fetchone()
    db.close()
    known = spending.by_day(runlog.log())
    assert spending.total(known) == spending.total(before)
    more = run_rows(3, temperature=1)
    after = spending.total(spending.by_day(runlog.log()))
    assert after.cost == spending.total(before).cost + more > first
    assert (after.rows, after.cached) == (spending.total(before).rows + 3, 5)


def test_two_kernels_that_open_an_older_log_at_once_count_it_once(home: Path) -> None:
    paid = run_rows(20)
    older(home)
    logs = [RunLog(home / "runs.sqlite") for _ in range(4)]
    gate = threading.Barrier(len(logs))

    def write(log: RunLog) -> None:
        gate.wait(30)
        log.record_payment("r", Payment(0, on(NOW), "sim/echo", "sim-echo", "answer", Usage(1, 1), Decimal(1)))
        log.close()

    with ThreadPoolExecutor(len(logs)) as threads:
        list(threads.map(write, logs))
    assert spending.total(spending.by_day(logs[0])).cost == paid + len(logs)


# -- what the servers would bill -----------------------------------------------------------------------------------------------
class Till:
    """A server that fails, refuses and answers as it likes, and adds up what it counted, in dollars at `rate` a million tokens."""

    def __init__(self, seed: int, rate: int) -> None:
        self.rng, self.rate, self.bill = random.Random(seed), Decimal(rate), Decimal(0)

    def __call__(self, request: Asked, number: int) -> list[Step]:
        if not request.body:
            return [reply({"error": "no such page"}, 404)]
        luck = self.rng.random()
        if luck < 0.1:
            return [reply({"error": {"message": "slow down"}}, 429, retry_after="0.01")] if luck < 0.05 else [reply({"error": "boom"}, 500)]
        read, written = self.rng.randint(5, 50), self.rng.randint(1, 20)
        self.bill += (read + written) * self.rate / 1_000_000
        text = '{"label": "a"}' if self.rng.random() < 0.7 else f"plain words {number}"
        payload = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}], "model": "till"}
        return [reply({**payload, "usage": {"prompt_tokens": read, "completion_tokens": written}})]


ROWS = [f"row {i}" for i in range(60)]
LONG = [
    "\n\n".join(f"Paragraph {i} of {j}: the river is {i} metres wide and goes on about it all day." for i in range(80)) for j in range(3)
]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (ROWS, {"schema": LABEL, "fallback": "two/m"}),
        (ROWS, {"spread": "two/m"}),
        ([*LONG, "short"], {"chunk": 400, "fallback": "two/m"}),
        (ROWS[:15], {"compare": "two/m", "samples": 2}),
        (["the same"] * 20, {"cache": False}),
        (ROWS, {"budget": 0.001, "max_tokens": 20}),
        (ROWS, {"retries": 0, "name": "again"}),
    ],
    ids=["schema", "spread", "chunk", "compare", "equal rows", "budget", "failed again"],
)
def test_every_dollar_that_a_server_counted_stands_at_its_route(rows: list[str], options: dict[str, object]) -> None:
    one, two = Till(1, 1), Till(2, 3)
    with Exact(one) as first, Exact(two) as second:
        settings.override(
            provider={"one": {"base": first.base}, "two": {"base": second.base}},
            price={"one/m": {"input": 1.0, "output": 1.0}, "two/m": {"input": 3.0, "output": 3.0}},
        )
        run = holynb.infer(rows, "one/m", **options)
        with suppress(holynb.InferError):
            run.wait(60)
        if "name" in options:
            change(runlog.log().path.parent, "UPDATE answers SET at = ?", on(YESTERDAY))
            Run(resume.failed_again("again", {"retries": 0, "fallback": ["two/m"]})).start().wait(60)
    lines = spending.by_day(runlog.log())
    paid = {route: spending.total([s for s in lines if s.route == route]).cost or Decimal(0) for route in ("one/m", "two/m")}
    assert paid == {"one/m": one.bill, "two/m": two.bill}
    assert one.bill > 0
    assert {s.unknown for s in lines} == {0}
    if "name" in options:
        assert len({s.day for s in lines}) == 2
