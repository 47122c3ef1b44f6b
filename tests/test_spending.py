"""What was spent: sums over real runs of the simulator, days and months, and what stays unknown."""

from __future__ import annotations

import datetime as dt
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

import holynb
from holynb import history, loop, spending
from holynb.types import Route

NOW = dt.datetime(2026, 11, 21, 12, 0)


@pytest.fixture(autouse=True)
def ended():
    yield
    loop.close()
    history.close()


def asked(n: int, route: str = "sim/echo", **options: object) -> Decimal:
    """What a real run of `n` rows cost."""
    run = holynb.infer([f"{route} row {i} {options}" for i in range(n)], route, **options).wait()
    return sum((o.cost for o in run.rows() if o.cost is not None), Decimal(0))


def change(home: Path, sql: str, *args: object) -> None:
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute(sql, args)
    db.close()


def on(day: dt.datetime) -> float:
    return day.timestamp()


def test_a_line_for_each_day_and_route_adds_up_exactly(home: Path) -> None:
    yesterday = asked(7)
    change(home, "UPDATE answers SET at = ?", on(NOW - dt.timedelta(days=1)))
    today = asked(3, temperature=1)
    short = asked(5, "sim/stream", max_tokens=3)
    change(home, "UPDATE answers SET at = ? WHERE at != ?", on(NOW), on(NOW - dt.timedelta(days=1)))
    lines = spending.spent(history.log())
    assert [(s.day, s.route, s.rows) for s in lines] == [
        (NOW.date(), "sim/echo", 3), (NOW.date(), "sim/stream", 5), (NOW.date() - dt.timedelta(days=1), "sim/echo", 7)
    ]  # fmt: skip
    assert [s.cost for s in lines] == [today, short, yesterday]
    assert spending.total(lines).cost == yesterday + today + short
    assert spending.total(lines).tokens_out == sum(s.tokens_out for s in lines) > 0
    assert lines[1].model == "sim-stream"
    assert lines[1].provider == "sim"


def test_answers_given_again_are_counted_apart_and_cost_nothing() -> None:
    first = asked(4)
    assert asked(4) == 0
    (line,) = spending.spent(history.log())
    assert (line.rows, line.cached, line.cost) == (8, 4, first)


def test_resuming_does_not_lose_or_double_what_was_spent() -> None:
    first = asked(4, name="nightly")
    asked(4, name="nightly")
    (line,) = spending.spent(history.log())
    assert (line.rows, line.cost) == (4, first)


def test_unknown_is_counted_never_zero(home: Path) -> None:
    asked(4)
    change(home, "UPDATE answers SET cost = NULL, route = 'vllm/mine'")
    (line,) = spending.spent(history.log())
    assert (line.cost, line.unknown) == (None, 4)
    change(home, "UPDATE answers SET cost = '0.5' WHERE row = 0")
    (line,) = spending.spent(history.log())
    assert (line.cost, line.unknown) == (Decimal("0.5"), 3)
    change(home, "UPDATE answers SET cost = NULL, route = 'pool/tiny'")
    (line,) = spending.spent(history.log())
    assert (line.cost, line.unknown) == (None, 0), "a pool without a price has none to know"


def test_failed_rows_are_counted(home: Path) -> None:
    run = holynb.infer(["a", "b"], "sim/echo", p={"fault": "content_filter"}, retries=0)
    with pytest.raises(holynb.InferError):
        run.wait()
    (line,) = spending.spent(history.log())
    assert (line.rows, line.failed, line.unknown) == (2, 2, 0)


def test_the_months_pace_leads_to_its_end(home: Path) -> None:
    asked(10)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '1.25', at = ?", on(NOW - dt.timedelta(days=4)))
    change(home, "UPDATE answers SET at = ? WHERE row >= 5", on(NOW - dt.timedelta(days=1)))
    made = spending.month(history.log(), NOW)
    assert made.so_far.cost == Decimal("12.50")
    assert made.pace == Decimal("3.125"), "the log began four days ago"
    assert made.ahead == Decimal("12.50") + Decimal("3.125") * Decimal("9.5")
    change(home, "UPDATE answers SET at = ? WHERE row = 0", on(NOW - dt.timedelta(days=200)))
    older = spending.month(history.log(), NOW)
    assert older.so_far.rows == 9
    assert older.pace == Decimal("11.25") / Decimal("20.5"), "a log that is older: since the month began"


def test_the_first_hours_are_not_blown_up_to_a_month(home: Path) -> None:
    asked(2)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '1', at = ?", on(NOW - dt.timedelta(minutes=5)))
    assert spending.month(history.log(), NOW).pace == 2, "a day at least"


def test_simulated_dollars_are_nobodys_money() -> None:
    asked(5)
    made = spending.month(history.log(), dt.datetime.now() + dt.timedelta(seconds=1))
    assert (made.so_far.cost, made.pace, made.ahead) == (None, None, None)
    assert made.simulated.cost
    assert spending.offered(history.log()) == (5, None)


def test_an_empty_log_is_nothing() -> None:
    assert spending.spent(history.log()) == []
    made = spending.month(history.log(), NOW)
    assert (made.so_far.rows, made.pace, made.days) == (0, None, 30)
    assert spending.offered(history.log()) == (0, None)
    assert spending.answered(history.log(), Route("sim", "echo")) == []


def test_what_is_on_offer_and_what_was_learned(home: Path) -> None:
    asked(6)
    asked(2, cache=False)
    change(home, "UPDATE answers SET route = 'openai/gpt-4.1', cost = '0.5'")
    assert spending.offered(history.log()) == (6, Decimal("3.0"))
    history.log().clear()
    assert spending.offered(history.log()) == (0, None)
    assert spending.answered(history.log(), Route("sim", "echo")) == []
    change(home, "UPDATE answers SET route = 'sim/echo'")
    seen = spending.answered(history.log(), Route("sim", "echo"), most=7)
    assert len(seen) == 7
    assert all(s.usage.tokens_in and s.usage.tokens_out and s.messages[-1].content.startswith("sim/echo row") for s in seen)
