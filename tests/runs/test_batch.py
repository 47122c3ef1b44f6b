"""`--batch` over stand-ins of the four providers: into input order, at the batch's price; refused, full, expired, lost, stopped, resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from servers.batches import USAGE, Batches

import holynb
from holynb import runlog
from holynb.batches import pace
from holynb.events import Noted
from holynb.pricing import prices
from holynb.run import Run
from holynb.types import Route, Usage

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


@VENDORS
def test_rows_come_back_in_input_order_at_the_price_of_a_batch(vendor: str) -> None:
    with Batches(vendor, answer=lambda body, id_: f"answer to row {id_.split('-')[-2]}") as server:
        run = ask(server, 7, name="mine")
        until(lambda: run.accepted)
        frame = run.frame()
        assert frame["status"].isna().all()
        assert "7 pending" in run.summary().line()
        assert "7 rows pending in 1 batch." in notes(run)
        assert f"{next(iter(server.jobs))} at {vendor}: 7 rows, fetch before 20" in run.batches()[0]
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
