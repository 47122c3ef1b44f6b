"""Prices: known figures, tiers and hours; what is unknown stays unknown; a wrong figure is named."""

from __future__ import annotations

import datetime as dt
import sys
import types
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.config import settings
from holynb.errors import BadSetting
from holynb.pricing import prices
from holynb.pricing.price_entries import read_entry
from holynb.types import Message, Route, Usage

MILLION = 1_000_000
WEDNESDAY = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
SATURDAY = dt.datetime(2026, 11, 28, 2, tzinfo=dt.UTC).timestamp()


@pytest.fixture(autouse=True)
def nothing_overridden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "genai_prices", None)  # as if it were not installed
    prices._fallback.cache_clear()
    settings.reset()
    yield
    prices._fallback.cache_clear()
    settings.reset()


def cost(
    route: str, tokens_in: int = MILLION, tokens_out: int = MILLION, /, model: str | None = None, at: float | None = None, **more
) -> Decimal | None:
    """At a fixed time where none is given: prices change by the calendar."""
    return prices.price(Route.parse(route), model, Usage(tokens_in, tokens_out, **more), WEDNESDAY.timestamp() if at is None else at)


def hour(h: int) -> float:
    return WEDNESDAY.replace(hour=h).timestamp()


# -- known figures -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("route", "input", "output", "cached"),
    [
        ("openai/gpt-4.1", "2", "8", "0.5"),
        ("openai/gpt-4.1-2025-04-14", "2", "8", "0.5"),
        ("openai/gpt-4.1-mini", "0.4", "1.6", "0.1"),
        ("openai/gpt-4o-mini", "0.15", "0.6", "0.075"),
        ("anthropic/claude-sonnet-4-20250514", "3", "15", "0.3"),
        ("anthropic/claude-sonnet-4-5", "3", "15", "0.3"),
        ("anthropic/claude-haiku-4-5-20251001", "1", "5", "0.1"),
        ("gemini/gemini-2.5-flash", "0.3", "2.5", "0.03"),
        ("gemini/gemini-2.5-pro", "1.25", "10", "0.125"),
        ("deepseek/deepseek-chat", "0.28", "0.42", "0.028"),
        ("holysheep/gpt-4.1", "8", "8", "8"),
        ("holysheep/claude-sonnet-4", "15", "15", "15"),
        ("holysheep/gemini-2.5-flash", "2.5", "2.5", "2.5"),
        ("holysheep/deepseek-v3.2", "0.42", "0.42", "0.42"),
    ],
)
def test_the_figures_everybody_knows(route, input, output, cached):
    small = 100_000  # below every tier
    assert cost(route, small, 0) * 10 == Decimal(input)
    assert cost(route, 0, small) * 10 == Decimal(output)
    assert cost(route, small, 0, tokens_cached=small) * 10 == Decimal(cached)


def test_holysheeps_list_is_marked_as_assumed():
    entries = [e for e in prices.table() if e.provider == "holysheep"]
    assert len(entries) == 4
    assert all(e.assumed and e.input == e.output for e in entries)
    assert "simulated" in prices.list_price(Route("sim", "echo")).assumed


def test_every_entry_has_a_date_and_a_source():
    today = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    for e in prices.table():
        assert e.date <= today
        assert e.source.startswith("https://") or e.provider == "sim"
        assert e.input > 0
        assert e.output > 0 or (e.embeds and all("embed" in name for name in e.models))
        assert e.rates.cached is None or e.rates.cached <= e.input
        assert [above for above, _ in e.tiers] == sorted(above for above, _ in e.tiers)


def test_no_entry_hides_another():
    """Each entry is the answer for a name made of its own patterns."""
    for e in prices.table():
        for pattern in e.models:
            name = pattern.replace("[0-9]", "1").replace("[5-8]", "6").replace("*", "9")
            at = dt.datetime.combine(e.since or e.date, dt.time(12), dt.UTC).timestamp()
            assert prices.list_price(Route(e.provider, name), at=at) is e, (e.provider, name)


# -- how a bill is made ----------------------------------------------------------------------------------------------------
def test_cached_and_written_tokens_are_part_of_the_input():
    # 100k in, of which 60k read from the cache at 0.30 and 10k written to it at 3.75; 30k plain at 3; 1k out at 15
    dollars = cost("anthropic/claude-sonnet-4", 100_000, 1_000, tokens_cached=60_000, tokens_cache_write=10_000)
    assert dollars == Decimal("0.018") + Decimal("0.0375") + Decimal("0.09") + Decimal("0.015")
    assert cost("openai/gpt-4.1", 10, 0, tokens_cached=15) == Decimal("0.0000075")  # more cached than counted: never negative


def test_what_is_cached_for_an_hour_costs_more_than_for_minutes():
    # 100k in: 40k written, of which 30k for an hour at 6 and 10k at 3.75; 60k plain at 3
    dollars = cost("anthropic/claude-sonnet-4-6", 100_000, 0, tokens_cache_write=40_000, tokens_cache_write_1h=30_000)
    assert dollars == Decimal("0.18") + Decimal("0.0375") + Decimal("0.18")
    more = cost("anthropic/claude-sonnet-4-6", 100_000, 0, tokens_cache_write=40_000, tokens_cache_write_1h=90_000)
    assert more == Decimal("0.24") + Decimal("0.18"), "never more for an hour than was written at all"
    assert cost("openai/gpt-6-luna", 1000, 0, tokens_cache_write=1000, tokens_cache_write_1h=1000) == Decimal("0.000125")


def test_a_budget_reserves_an_hours_price_where_the_request_asks_for_an_hour():
    route, message = Route("anthropic", "claude-haiku-5-5"), [Message("user", "x")]
    plain, minutes, hour = (
        prices.worst_case(route, message, 0, extra)
        for extra in (None, {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"ttl": "1h"}})
    )
    assert plain == minutes == 65 * Decimal("0.125") / MILLION
    assert hour == 65 * Decimal("0.2") / MILLION


def test_a_long_prompt_moves_the_whole_request_to_the_next_tier():
    assert cost("gemini/gemini-2.5-pro", 200_000, 1_000) == Decimal("0.25") + Decimal("0.01")
    assert cost("gemini/gemini-2.5-pro", 200_001, 1_000) == Decimal("0.5000025") + Decimal("0.015")
    assert cost("anthropic/claude-sonnet-4-5", MILLION, 0) == 6


def test_hours_and_dates():
    peak, off = Decimal("1.32"), Decimal("0.66")
    assert [cost("deepseek/deepseek-v4-pro", MILLION, 0, at=hour(h)) for h in (0, 1, 3, 4, 6, 9, 10)] == [
        off,
        peak,
        peak,
        off,
        peak,
        peak,
        off,
    ]
    assert cost("deepseek/deepseek-v4-pro", MILLION, 0, at=SATURDAY) == off
    before, after = (dt.datetime(y, m, d, tzinfo=dt.UTC).timestamp() for y, m, d in ((2026, 12, 31), (2027, 1, 1)))
    assert [cost("gemini/gemini-3.8-flash", MILLION, 0, at=at) for at in (before, after)] == [Decimal("0.75"), Decimal("1.5")]


def test_a_rerouted_model_costs_what_its_successor_costs():
    before, after = (dt.datetime(*day, tzinfo=dt.UTC).timestamp() for day in ((2026, 11, 30), (2026, 12, 1)))
    assert [cost("gemini/gemini-2.5-pro", MILLION // 10, 0, at=at) for at in (before, after)] == [Decimal("0.125"), Decimal("0.075")]
    assert cost("gemini/gemini-2.5-pro", MILLION // 10, 0, at=dt.datetime(2027, 1, 2, tzinfo=dt.UTC).timestamp()) == Decimal("0.15")
    assert cost("openai/gpt-4.1", MILLION // 10, 0, at=dt.datetime(2027, 2, 1, tzinfo=dt.UTC).timestamp()) == Decimal("0.2"), "it refuses"


def test_the_servers_word_for_the_model_counts_first():
    assert cost("openai/gpt-4o", model="gpt-4o-2024-05-13") == 20
    assert cost("openai/gpt-4o", model="a-name-nobody-knows") == Decimal("12.5")
    assert cost("azure/my-deployment") is None
    assert cost("azure/my-deployment", model="gpt-4.1-2025-04-14") == 10


@pytest.mark.parametrize("usage", [Usage(), Usage(10, None), Usage(None, 10)])
def test_unknown_tokens_are_an_unknown_cost(usage):
    assert prices.price(Route("openai", "gpt-4.1"), None, usage) is None


@pytest.mark.parametrize("route", ["openai/gpt-99", "openrouter/x/y", "vllm/m", "pool/smollm2-135m", "nowhere/x", "holysheep/gpt-4.1-mini"])
def test_an_unknown_price_is_none(route):
    assert prices.list_price(Route.parse(route)) is None
    assert cost(route) is None
    assert prices.worst_case(Route.parse(route), [Message("user", "x")], 1) is None


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_bill_is_negative_or_above_the_worst_case(tokens_in, tokens_out, cached, written):
    for route in (
        "openai/gpt-6-sol",
        "anthropic/claude-haiku-5-5",
        "gemini/gemini-2.5-pro",
        "deepseek/deepseek-flash",
        "holysheep/gpt-4.1",
    ):
        entry = prices.list_price(Route.parse(route))
        usage = Usage(tokens_in, tokens_out, min(cached, tokens_in), min(written, tokens_in - min(cached, tokens_in)))
        worst = entry.max_rates(tokens_in).cost(Usage(tokens_in, tokens_out))
        for at in (hour(2), hour(12), SATURDAY):
            assert 0 <= entry.cost(usage, at) <= worst


def test_the_worst_case_is_bytes_and_64():
    messages = [Message("system", "한국"), Message("user", "ab")]
    assert prices.worst_usage(messages, 100) == Usage(6 + 2 + 64, 100)
    assert prices.worst_case(Route("holysheep", "gpt-4.1"), messages, 100) == Decimal("0.001376")
    assert (
        prices.worst_case(Route("deepseek", "deepseek-flash"), messages, 0) == 72 * Decimal("0.3") / MILLION
    )  # the peak, whatever the hour
    assert prices.worst_case(Route("sim", "echo"), [Message("user", "\ud800")], 0) > 0


# -- the user's own --------------------------------------------------------------------------------------------------------
def test_ones_own_price_wins():
    settings.override(price={"openai/gpt-4.1": {"input": 1, "output": 2.5, "cached": "0.1"}})
    with pytest.raises(BadSetting, match=r"cached should be a number of dollars, not text"):
        cost("openai/gpt-4.1")
    settings.override(price={"openai/gpt-4.1": {"input": 1, "output": 2.5, "cached": 0.1}, "acme/*": {"input": 3, "output": 3}})
    assert cost("openai/gpt-4.1") == Decimal("3.5")
    assert cost("openai/gpt-4.1", MILLION, 0, tokens_cached=MILLION) == Decimal("0.1")
    assert cost("acme/any/model") == 6
    assert cost("openai/gpt-4o") == Decimal("12.5")


def test_a_projects_price_is_never_below_the_known_one(tmp_path, home):
    at_list = cost("openai/gpt-4.1")
    for entry in ("input = 0\noutput = 0", "input = 0\noutput = 1000", "per_device_hour = 0"):
        for name in ("openai/gpt-4.1", "openai/*"):
            (tmp_path / "pyproject.toml").write_text(f'[tool.holynb.price."{name}"]\n{entry}\n')
            assert cost("openai/gpt-4.1") == at_list, (name, entry)
            assert prices.worst_case(Route("openai", "gpt-4.1"), (), 100) > 0
    (tmp_path / "pyproject.toml").write_text(
        '[tool.holynb.price."openai/gpt-4.1"]\ninput = 1000\noutput = 1000\n[tool.holynb.price."mine/m"]\ninput = 1\noutput = 1\n'
    )
    assert cost("openai/gpt-4.1") > at_list
    assert cost("mine/m") is not None, "one that nobody else knows"
    (tmp_path / "pyproject.toml").unlink()
    (home / "config.toml").write_text('[price."openai/gpt-4.1"]\ninput = 0\noutput = 0\n')
    assert cost("openai/gpt-4.1") == 0, "the user's own word"


def test_a_pool_costs_its_devices_hours():
    pool = Route("pool", "mine")
    assert prices.price(pool, None, Usage(10, 10, device_s=3600)) is None
    settings.override(price={"pool/mine": {"per_device_hour": 2.5}})
    assert prices.price(pool, None, Usage(10, 10, device_s=1800)) == Decimal("1.25")
    assert cost("pool/mine") is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"input": -1, "output": 1}, "input is -1; a price is a number of dollars from 0"),
        ({"input": 1, "output": float("nan")}, "output is nan"),
        ({"input": 1, "output": float("inf")}, "output is inf"),
        ({"input": True, "output": 1}, "input should be a number of dollars, not true"),
        ({"input": [1], "output": 1}, "should be a number of dollars"),
        ({"input": 1}, "needs both input and output"),
        ({"inptu": 1, "output": 1}, "Did you mean input?"),
        ({"per_device_hour": "2"}, "per_device_hour should be a number"),
        ({"input": 1, "output": 1, "date": "2026-11-23"}, "date should be a date such as 2026-11-23, without quotes"),
        ({"input": 1, "output": 1, "date": dt.date(9999, 1, 1)}, "date is 9999-01-01, which is still to come"),
        ({"input": 1, "output": 1, "date": dt.datetime(2026, 1, 1)}, "date should be a date such as"),
    ],
)
def test_a_price_that_cannot_be(entry, words):
    settings.override(price={"a/b": entry})
    with pytest.raises(BadSetting) as caught:
        cost("a/b")
    assert words in str(caught.value)
    assert '[price."a/b"]' in str(caught.value)


GOOD: dict[str, Any] = {
    "provider": "a",
    "models": ["b"],
    "input": Decimal(1),
    "output": Decimal(2),
    "date": dt.date(2026, 1, 1),
    "source": "https://x",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": Decimal(-1)}, "input is -1"),
        ({"date": "2026-01-01"}, "date should be a date"),
        ({"date": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, "date should be a date"),
        ({"since": 2026}, "since should be a date"),
        ({"date": None}, "date should be a date"),
        ({"pirce": 1}, "there is no 'pirce'"),
        ({"tiers": [{"above": 10, "input": Decimal(-2)}]}, "tiers: input is -2"),
        ({"peak": {"hours": [[1, 2]], "output": "x"}}, "peak: output should be a number"),
    ],
)
def test_an_entry_that_cannot_be(change, words):
    assert read_entry(GOOD, "prices.toml, entry 3").input == 1
    with pytest.raises(BadSetting) as caught:
        read_entry({**GOOD, **change}, "prices.toml, entry 3")
    assert words in str(caught.value)
    assert "entry 3" in str(caught.value)


def test_an_entry_that_lacks_something():
    with pytest.raises(BadSetting, match="date, source missing"):
        read_entry({k: v for k, v in GOOD.items() if k not in ("date", "source")}, "x")


# -- genai-prices, where it is installed -----------------------------------------------------------------------------------
def test_genai_prices_is_asked_last(monkeypatch):
    tiers = types.SimpleNamespace(base=Decimal(3), tiers=[types.SimpleNamespace(start=1000, price=Decimal(6))])

    def calc_price(usage, *, model_ref, provider_id):
        if (provider_id, model_ref) != ("google", "gemini-exotic"):
            raise LookupError(model_ref)
        model_price = types.SimpleNamespace(input_mtok=tiers, output_mtok=Decimal(9), cache_read_mtok=None, cache_write_mtok=None)
        return types.SimpleNamespace(model_price=model_price)

    fake = types.SimpleNamespace(calc_price=calc_price, Usage=lambda **tokens: tokens)
    monkeypatch.setitem(sys.modules, "genai_prices", fake)
    assert cost("gemini/gemini-exotic", 1000, 0) == Decimal("0.003")
    assert cost("gemini/gemini-exotic", 2000, 1000) == Decimal("0.012") + Decimal("0.009")
    assert cost("gemini/gemini-unheard-of") is None
    assert cost("gemini/gemini-2.5-flash") == Decimal("2.8")
    assert "genai-prices" in prices.list_price(Route("gemini", "gemini-exotic")).source


def test_our_figures_are_those_of_genai_prices(monkeypatch):
    """DeepSeek's V3 names follow DeepSeek's own page instead."""
    monkeypatch.delitem(sys.modules, "genai_prices")
    names = {"gemini": "gemini", "openai": "openai", "anthropic": "anthropic", "deepseek": "deepseek"}
    differ = []
    for e in (e for e in prices.table() if e.provider in names and e.since is None and e.peak is None and e.models[0] != "deepseek-chat"):
        theirs = prices._fallback(e.provider, e.models[0].replace("[5-8]", "6").replace("*", ""))
        if theirs is None or theirs.rates != e.rates or [t[0] for t in theirs.tiers] != [t[0] for t in e.tiers]:
            differ.append((e.models[0], e.rates, theirs and theirs.rates))
    assert not differ
