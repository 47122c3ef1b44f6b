"""A batch's rows in the provider's prompt cache: marked where that is cheaper by the vendor's own words, never dearer in expectation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.batches import Batches
from servers.prompt_caches import PromptCaching, bill, uncached

import holynb
from holynb.batches import pace
from holynb.cache_mark import CacheMark
from holynb.config import Options, prompt_caches
from holynb.engines import hosted
from holynb.run import Run
from holynb.run import plan as plans
from holynb.run.batch.marks import FEWEST, BatchMarks
from holynb.scheduler import CacheHead, CacheTerms
from holynb.types import Message, Request, Route, Sampling, Usage
from holynb.ui.commands import preview

pytestmark = pytest.mark.usefixtures("ended")
ROUTES = {
    "openai": "openai/gpt-6-luna",
    "azure": "azure/gpt-6-luna",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-3.8-flash",
}
HEAD = " ".join(f"word{i}" for i in range(2_000))
TEMPLATE = f"{HEAD}\n\nQuestion: {{{{ q }}}}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setattr(pace, "FIRST_S", 0.02)
    monkeypatch.setattr(pace, "MOST_S", 0.1)
    monkeypatch.setattr(hosted, "_traits_by_model", {})


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame({"q": [f"what is {i}?" for i in range(n)]})


def ask(server: Batches, n: int, **options: Any) -> Run:
    return holynb.infer(TEMPLATE, ROUTES[server.vendor], df=frame(n), batch=True, api_base=server.base, max_tokens=4096, **options)


def bodies(server: Batches) -> list[Any]:
    return [next(row[name] for name in ("body", "params", "request") if name in row) for job in server.jobs.values() for row in job.rows]


def in_any_order(at_once: int) -> Callable[[Batches], tuple[float, float]]:
    """Does the rows of all batches by Anthropic's rules, so many side by side. What their input costs, and would uncached."""

    def work(server: Batches) -> tuple[float, float]:
        cache, now, usages = PromptCaching(), 0.0, []
        for job in server.jobs.values():
            rows = random.Random(3).sample(job.rows, len(job.rows))
            for first in range(0, len(rows), at_once):
                came = [cache.arrives(row["params"], now) for row in rows[first : first + at_once]]
                for row, (usage, writes) in zip(rows[first:], came, strict=False):
                    server.usages[row["custom_id"]] = usage
                    usages.append(usage)
                    cache.begins(writes, now + 1)
                now += 5
        server.work()
        return sum(map(bill, usages)), sum(map(uncached, usages))

    return work


def until_accepted(run: Run) -> None:
    end = time.monotonic() + 20
    while not run.batch.accepted:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("at_once", "most"), [(42, 0.95), (8, 0.4)], ids=["as few hits as the vendor names", "many"])
def test_a_batch_whose_rows_begin_alike_costs_less_than_unmarked(at_once: int, most: float) -> None:
    with Batches("anthropic") as server:
        run = ask(server, 60)
        until_accepted(run)
        assert all(b["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"} for b in bodies(server))
        paid, full = in_any_order(at_once)(server)
        rows = run.wait(20).frame()
    assert list(rows["status"]) == ["ok"] * 60
    assert paid < most * full
    # Both discounts: what is read and written costs its share of the price of a batch's input.
    assert float(rows["cost"].sum()) == pytest.approx(1.5e-6 * paid + 7.5e-6 * 60 * 20)
    assert run.summary().prompt_cache_saved == pytest.approx((Decimal(full) - Decimal(paid)) * 3 / 2 / 1_000_000)


@pytest.mark.parametrize(("n", "options"), [(8, {}), (40, {"prompt_cache": False}), (40, {"p": {"cache_control": {"type": "ephemeral"}}})])
def test_few_rows_are_not_marked_nor_where_nobody_wants_it(n: int, options: dict[str, Any]) -> None:
    with Batches("anthropic", at_once=True) as server:
        ask(server, n, **options).wait(20)
    assert all(isinstance(b["messages"][0]["content"], str) for b in bodies(server))


@pytest.mark.parametrize("vendor", ["openai", "azure", "gemini"])
def test_where_no_share_of_hits_is_published_nothing_is_marked_and_nothing_is_written(vendor: str) -> None:
    with Batches(vendor, at_once=True) as server:
        ask(server, 40).wait(20)
    sent = bodies(server)
    assert not any("cache_control" in str(b) or "prompt_cache_breakpoint" in str(b) or "prompt_cache_key" in b for b in sent)
    # gpt-5.6 and later would bill the writing of each whole prompt.
    assert all(b.get("prompt_cache_options") == ({"mode": "explicit"} if vendor == "openai" else None) for b in sent)


def test_a_server_that_takes_no_marks_is_asked_again_without_them() -> None:
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": "cache_control: Extra inputs are not permitted"}}
    with Batches("anthropic", answer=lambda body, id_: (400, refusal) if "cache_control" in str(body) else "ok", at_once=True) as server:
        assert set(ask(server, 40).wait(20).frame()["status"]) == {"ok"} and len(server.jobs) == 2


def test_a_dry_run_says_it() -> None:
    plan = plans.make(TEMPLATE, ROUTES["anthropic"], Options(df=frame(40), batch=True, max_tokens=64, dry_run=True))
    said = preview.text(plan)
    assert "tokens, which each is marked to read. Of a batch's rows 30% at least find them there, by the provider's word" in said
    few = plans.make(TEMPLATE, ROUTES["anthropic"], Options(df=frame(4), batch=True, max_tokens=64, dry_run=True))
    assert "Prompt cache" not in preview.text(few)


REQUEST = Request(0, (Message("user", f"{HEAD} x"),), Route("anthropic", "m"), Sampling())


def marks(hits: float, read: float = 0.1, write: float = 1.25, **facts: Any) -> BatchMarks:
    return BatchMarks(CacheTerms(CacheHead((), "user", HEAD), 2_000, read, write, **facts), hits)


@settings(max_examples=60)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 2), st.floats(0, 1))
def test_what_is_marked_is_expected_to_cost_no_more(hits: float, read: float, write: float, more: float) -> None:
    one = marks(hits, read, write)
    one.decide(FEWEST)
    if one.marked(REQUEST).cache is not None:
        share = hits + (1 - hits) * more  # as many as the vendor names, or more
        assert share * read + (1 - share) * write <= 1 + 1e-9


def test_a_batch_that_did_not_pay_leaves_the_next_unmarked() -> None:
    one = marks(0.3)
    assert one.marked(REQUEST).cache == CacheMark(0, len(HEAD))
    for _ in range(40):
        one.heard(Usage(2_100, 5, 0, 2_000))
    one.decide(40)
    assert one.marked(REQUEST).cache is None
    one.heard(Usage(2_100, 5, 40 * 2_000, 0))
    one.decide(40)
    assert one.marked(REQUEST).cache is not None


def test_the_vendors_words_are_data() -> None:
    assert {r.batch_hits for r in prompt_caches.shipped() if r.provider == "anthropic"} == {0.3}
    assert not any(r.batch_hits for r in prompt_caches.shipped() if r.provider != "anthropic")
    assert not marks(0.3, write=2.0).pays(), "for an hour it would not pay"
