"""The models that the panel offers: each with its price, context, key and end; what can be asked now first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holynb.config import models, settings
from holynb.ui.panel import offers
from holynb.ui.panel.offers import Access
from holynb.ui.panel.picker import Picker


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    yield
    settings.reset()


def line(route: str) -> list[str]:
    return next(of for of in offers.listing({}) if of[0] == route)


def test_a_line_says_price_context_key_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-" + "a1B2c3D4" * 6)
    old = ["openai/gpt-4o", "$2.50 in, $10.00 out/M", "128,000 context", "key set in OPENAI_API_KEY"]
    assert line("openai/gpt-4o") == [*old, "reported to end 2027-01-14; successor openai/gpt-6-luna"]
    assert line("sim/echo")[1:4] == ["simulated", "", "no key needed"]
    assert "a1B2" not in str(offers.listing({}))


def test_pools_and_what_has_its_key_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-" + "a1b2c3d4" * 4)
    routes = [of[0] for of in offers.listing({})]
    assert routes[0].startswith("pool/")
    last_ready = max(routes.index(route) for route in ("sim/echo", "deepseek/deepseek-flash"))
    assert last_ready < routes.index("anthropic/claude-haiku-5-5")


def test_the_facts_of_a_model_are_a_sentence() -> None:
    settings.override(alias={"cheap": "openai/gpt-6-luna"})
    known = {"openai": Access(True, "key set in OPENAI_API_KEY")}
    facts = "$0.10 in, $0.50 out per million tokens; 1,050,000 tokens of context; key set in OPENAI_API_KEY."
    assert offers.facts("openai/gpt-6-luna", known) == facts
    assert offers.facts("cheap", known) == f"An alias of openai/gpt-6-luna: {facts}"
    assert offers.facts("", {}).startswith("The default is pool/")
    missing = offers.facts("openai/gpt-99", {"openai": Access(False, "no OPENAI_API_KEY")})
    assert missing == "price unknown; no OPENAI_API_KEY: %infer key openai asks for it."


def test_an_alias_that_leads_nowhere_is_no_offer_nor_is_a_name_too_long() -> None:
    settings.override(alias={"round": "round", "x" * 500: "sim/echo"})
    lines = offers.listing({})
    assert "round" not in [of[0] for of in lines]
    assert not [of for of in lines if of[0].startswith("xx")], "what is cut is no name"
    assert max(len(part) for of in lines for part in of) <= offers.MAX_CHARS


def test_the_list_is_made_when_the_field_is_entered_and_typing_reaches_the_kernel() -> None:
    picker = Picker("Route", "a model")
    assert picker.offers == []
    picker._on_message(picker, {"cmd": "entered"}, [])
    assert len(picker.offers) > 20
    picker._on_message(picker, {"cmd": "typed", "value": "sim/echo"}, [])
    assert picker.facts() == "$2.00 in, $8.00 out per million tokens (simulated); no key needed."
    for wild in ({"cmd": "typed"}, {"cmd": "typed", "value": 3}, {"cmd": "other"}, None, [], "x"):
        picker._on_message(picker, wild, [])
    assert picker.value == "sim/echo"


def test_every_model_that_is_offered_by_name_is_there() -> None:
    routes = {of[0] for of in offers.listing({})}
    assert {f"{provider}/{model}" for provider in settings.providers() for model in models.offered(provider)} <= routes
