"""Prices at service tiers: by the tier that a reply names, never the standard price for another; the dearest for a budget."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from genai_prices import data
from hypothesis import given
from hypothesis import strategies as st

from holynb.config import settings
from holynb.errors import BadSetting
from holynb.pricing import prices
from holynb.pricing.estimate import estimate
from holynb.pricing.price_entries import Price, Rates, own_price, read_entry
from holynb.types import Message, Request, Route, Sampling, Usage

LUNA, M = Route("openai", "gpt-6-luna"), 1_000_000
AT = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC).timestamp()


def cost(route: str, usage: Usage, tier: str | None) -> Decimal | None:
    return prices.price(Route.parse(route), None, usage, AT, tier)


@pytest.mark.parametrize(
    ("route", "usage", "tier", "dollars"),
    [
        ("openai/gpt-6-luna", Usage(100_000, 10_000), None, "0.015"),
        ("openai/gpt-6-luna", Usage(100_000, 10_000), "standard", "0.015"),
        ("openai/gpt-6-luna", Usage(100_000, 10_000), "flex", "0.0075"),
        ("openai/gpt-6-luna", Usage(100_000, 10_000), "priority", "0.03"),
        # 60,000 new at 0.05, 20,000 read at 0.005, 20,000 written at 0.0625, 10,000 out at 0.25
        ("openai/gpt-6-luna", Usage(100_000, 10_000, 20_000, 20_000), "flex", "0.00685"),
        # above 272,000 input tokens: 0.1 and 0.375
        ("openai/gpt-6-luna", Usage(300_000, 10_000), "flex", "0.03375"),
        ("openai/gpt-5.4", Usage(100_000, 10_000), "priority", "0.8"),
        ("openai/gpt-5.4", Usage(300_000, 10_000), "priority", None),  # it has no price above 272,000
        ("openai/gpt-4.1", Usage(100_000, 10_000), "flex", None),
        ("openai/gpt-4.1", Usage(100_000, 10_000), "priority", "0.49"),
        ("azure/gpt-6-luna", Usage(100_000, 10_000), "flex", "0.0075"),
        ("azure/gpt-6-luna", Usage(100_000, 10_000), "priority", None),  # Azure's own pages give the half price of flex alone
        ("gemini/gemini-3.8-flash", Usage(100_000, 10_000), "flex", "0.05625"),
        ("gemini/gemini-3.8-flash", Usage(100_000, 10_000, 50_000), "flex", None),  # what is cached has no known price there
        ("gemini/gemini-3.8-flash", Usage(100_000, 10_000, 0), "flex", "0.05625"),
        ("anthropic/claude-sonnet-5", Usage(100_000, 10_000), "priority", None),
        ("anthropic/claude-sonnet-5", Usage(100_000, 10_000), "batch", "0.15"),
        ("openai/gpt-6-luna", Usage(100_000, 10_000), "other", None),
        ("openai/gpt-6-luna", Usage(100_000, 10_000), "unsaid", None),
        ("sim/echo", Usage(100_000, 10_000), "flex", "0.14"),
    ],
)
def test_what_an_answer_costs_at_its_tier(route: str, usage: Usage, tier: str | None, dollars: str | None) -> None:
    assert cost(route, usage, tier) == (None if dollars is None else Decimal(dollars))


def test_flex_is_never_dearer_nor_priority_cheaper_than_the_standard_tier() -> None:
    seen = 0
    for entry in prices.table():
        for tier, priced in entry.service.items():
            seen += 1
            assert priced.date is not None and priced.source.startswith(("https://", "holynb")), (entry.models, tier)
            for name in ("input", "output", "cached", "cache_write"):
                here, there = getattr(entry.rates, name), getattr(priced.rates, name)
                assert (
                    there is None
                    or here is None
                    or (there > here if tier == "priority" else there < here or (tier, name) == ("batch", "cached"))
                ), (entry.models, tier, name)
    assert seen > 30


def test_our_figures_are_those_of_genai_prices() -> None:
    models = {m.id: m for p in data.providers if p.id == "openai" for m in p.models}
    columns = {"input": "input_mtok", "output": "output_mtok", "cached": "cache_read_mtok", "cache_write": "cache_write_mtok"}
    seen = 0
    for entry in (e for e in prices.table() if e.provider == "openai"):
        variants = getattr(models.get(entry.models[0].replace("*", "")), "price_variants", None) or ()
        theirs = {v.when["service_tier"]: v.prices for v in variants if v.when.get("service_tier") in ("flex", "priority")}
        ours_there = {tier: p for tier, p in entry.service.items() if tier != "batch"}  # which it does not tell
        assert set(theirs) == set(ours_there), entry.models
        for tier, priced in ours_there.items():
            for ours, column in columns.items():
                figure = getattr(theirs[tier], column)
                assert getattr(priced.rates, ours) == getattr(figure, "base", figure), (entry.models, tier, ours)
                seen += 1
    assert seen > 100


# -- the dearest that may be served -----------------------------------------------------------------------------------------


def test_a_budget_reserves_the_dearest_tier_and_does_without_one_that_has_no_price() -> None:
    worst = {
        t: prices.worst_case(LUNA, (Message("user", "x"),), 100, tiers=t) for t in ((), ("flex",), ("flex", "standard"), ("priority",))
    }
    assert worst[("flex",)] < worst[()] == worst[("flex", "standard")] < worst[("priority",)]
    assert prices.worst_case(Route("openai", "gpt-4.1"), (), 100, tiers=("flex", "standard")) is None
    assert prices.worst_case(LUNA, (), 100, {"service_tier": "priority"}) == prices.worst_case(LUNA, (), 100, tiers=("priority",))
    assert prices.worst_case(LUNA, (), 100, {"service_tier": "flex"}) == prices.worst_case(LUNA, (), 100), (
        "it may be served at the standard one"
    )


RATE = st.decimals("0.01", "100", places=2)
PRICED = st.builds(
    lambda i, o, c, above, i2: Price("p", ("m",), Rates(i, o, c), ((above, Rates(i2, o, c)),)),
    RATE, RATE, st.none() | RATE, st.integers(1, 3000), RATE,
)  # fmt: skip


@given(PRICED, st.dictionaries(st.sampled_from(["flex", "priority"]), PRICED), st.data())
def test_the_worst_case_is_never_below_what_is_billed(base: Price, service: dict[str, Price], data: st.DataObject) -> None:
    entry = Price(base.provider, base.models, base.rates, base.tiers, service=service)
    tiers = data.draw(st.lists(st.sampled_from(["standard", *service]), min_size=1, unique=True))
    size = data.draw(st.integers(0, 4000))
    used = Usage(data.draw(st.integers(0, size)), data.draw(st.integers(0, 500)), data.draw(st.integers(0, size)))
    worst = entry.max_rates(size, service=tiers).cost(Usage(size, 500))
    for tier in tiers:
        billed = entry.cost(used, AT, tier)
        assert billed is None or (used.tokens_cached or 0) > (used.tokens_in or 0) or worst is None or billed <= worst


def test_the_estimate_is_from_the_cheapest_to_the_dearest() -> None:
    request = Request(0, (Message("user", "word " * 200),), LUNA, Sampling(max_tokens=100), tiers=("flex",))
    alone, flex, both = (estimate([request], billed=lambda route, t=t: t).cost for t in ((), ("flex",), ("flex", "standard", "priority")))
    assert flex == (alone[0] / 2, alone[1] / 2)
    assert both == (alone[0] / 2, alone[1] * 2)
    assert estimate([request], billed=lambda route: ("flex", "scale")).unpriced == (LUNA,)


@pytest.mark.parametrize(("output", "kept"), [("0.5", True), ("0.6", False)])
def test_an_update_that_says_nothing_of_tiers_leaves_them_while_the_standard_price_stays(monkeypatch, output: str, kept: bool) -> None:
    ours = prices.list_price(LUNA)
    rates = {"input": "0.1", "cached": "0.01", "cache_write": "0.125", "output": output}
    entry = {"provider": "openai", "models": ["gpt-6-luna"], "date": dt.date(2027, 1, 1), "source": "https://x"}
    theirs = read_entry({**entry, **{k: Decimal(v) for k, v in rates.items()}}, "prices.json, entry 1")
    monkeypatch.setattr(prices, "updated", lambda stamp: (theirs,))
    prices._listed_price.cache_clear()
    taken = prices.list_price(LUNA)
    prices._listed_price.cache_clear()
    assert taken.date == dt.date(2027, 1, 1)
    assert taken.service == (ours.service if kept else {})


# -- entries ----------------------------------------------------------------------------------------------------------------
GOOD = {"provider": "p", "models": ["m"], "input": 1, "output": 2, "date": dt.date(2026, 11, 1), "source": "https://x"}


@pytest.mark.parametrize(
    ("tier", "says"),
    [
        ("half", "should be a table with input and output"),
        ({"input": 1}, "should be a table with input and output"),
        ({"input": 1, "output": "2"}, "flex: output should be a number of dollars"),
        ({"input": 1, "output": -2}, "flex: output is -2"),
        ({"input": 1, "output": 2, "ouptut": 2}, "there is no 'ouptut'"),
        ({"input": 1, "output": 2, "date": "2026-02-31"}, "flex: date should be a date"),
    ],
)
def test_a_tier_that_is_no_price_is_refused_by_name(tier: object, says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        read_entry({**GOOD, "flex": tier}, "prices.toml, entry 3")
    with pytest.raises(BadSetting, match=says):
        own_price(LUNA, "openai/gpt-6-luna", {"input": 1, "output": 2, "flex": tier})


def test_a_price_of_ones_own_has_tiers_of_its_own() -> None:
    mine = own_price(LUNA, "x", {"input": 1, "output": 2, "flex": {"input": 0.5, "output": 1}})
    assert mine.cost(Usage(M, M), tier="flex") == Decimal("1.5")
    assert mine.cost(Usage(M, M), tier="priority") is None


def test_a_projects_price_lowers_no_tier(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for flex, in_force in (("0.01", False), ("0.4", True)):
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.holynb.price."openai/gpt-6-luna"]\ninput = 9\noutput = 9\nflex = {{ input = {flex}, output = 9 }}\n'
        )
        settings.reset()
        assert (prices.list_price(LUNA).input == 9) is in_force
    settings.reset()
