"""Tables of others: genai-prices' and litellm's shapes become ours; what cannot be is named; what is no table is one line."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.config import model_entries
from holynb.errors import BadSetting
from holynb.pricing import foreign, prices
from holynb.pricing.foreign import ForeignTable
from holynb.pricing.price_entries import Price, read_entry

DAY = dt.date(2026, 11, 28)
SOURCE = "https://example.com/table.json"


def read(document: Any, kind: str = "prices") -> ForeignTable:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return foreign.read(body, kind, SOURCE, DAY)  # type: ignore[arg-type]


def first_price(document: Any) -> Price:
    (entry,) = read(document).entries
    return read_entry(prices.dated(json.loads(json.dumps(entry), parse_float=Decimal)), "x")


def genai(provider: str = "openai", **model: Any) -> list[Any]:
    return [{"id": provider, "models": [{"id": "gpt-9", "match": {"equals": "gpt-9"}, **model}]}]


HOUR = {"cache_write_1h_mtok": 0.2}
PLAIN = {"input_mtok": 0.1, "output_mtok": 0.5, "cache_read_mtok": 0.01, "cache_write_mtok": 0.125}


# -- genai-prices ----------------------------------------------------------------------------------------------------------
def test_genai_prices_figures_are_kept_to_the_cent() -> None:
    price = first_price(genai(prices={**PLAIN, **HOUR}))
    assert price.rates == prices.Rates(*map(Decimal, ("0.1", "0.5", "0.01", "0.125", "0.2")))
    assert (price.provider, price.models, price.date, price.source) == ("openai", ("gpt-9",), DAY, SOURCE)


def test_genai_prices_tiers_and_names() -> None:
    match = {
        "or": [{"starts_with": "gpt-9-"}, {"contains": "[odd]"}, {"ends_with": "-9"}, {"regex": "^x"}, {"or": [{"equals": "GPT-nine"}]}]
    }
    tiered = {
        "input_mtok": {"base": 1, "tiers": [{"start": 272000, "price": 2}]},
        "output_mtok": {"base": 5, "tiers": [{"start": 272000, "price": 7.5}]},
    }
    price = first_price(genai(match=match, prices=tiered))
    assert price.tiers == ((272000, prices.Rates(Decimal(2), Decimal("7.5"))),)
    assert price.models == ("gpt-9", "gpt-9-*", "*[[]odd]*", "*-9", "gpt-nine")


def test_genai_prices_dates_are_kept_and_of_hours_the_dearest() -> None:
    listed = [
        {"prices": {"input_mtok": 1, "output_mtok": 8}},
        {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 2, "output_mtok": 4}},
        {"constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": 3, "output_mtok": 9}},
    ]
    now, later = (read_entry(prices.dated(e), "x") for e in read(genai(prices=listed)).entries)
    assert (now.input, now.output, now.assumed) == (2, 8, "the dearest hour's price at all hours")
    assert (later.input, later.since, later.assumed) == (3, dt.date(2027, 1, 1), "")


def test_genai_prices_other_providers_and_other_bills_are_passed_over() -> None:
    assert len(read({**LITELLM, "odd": {"litellm_provider": [1], "mode": {}}}).entries) == 2
    table = read([*genai(prices=PLAIN), *genai("groq", prices=PLAIN), *genai(id="embed", match={}, prices={"input_mtok": 1})])
    assert (len(table.entries), table.left_out) == (1, [])


# -- litellm ---------------------------------------------------------------------------------------------------------------
LITELLM: dict[str, Any] = {
    "sample_spec": {"litellm_provider": "one of https://docs.litellm.ai/docs/providers", "mode": "one of: chat"},
    "claude-sonnet-4-5": {
        "cache_creation_input_token_cost": 3.75e-06,
        "cache_creation_input_token_cost_above_1hr": 6e-06,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
        "cache_read_input_token_cost": 3e-07,
        "input_cost_per_token": 3e-06,
        "input_cost_per_token_above_200k_tokens": 6e-06,
        "output_cost_per_token_above_200k_tokens": 2.25e-05,
        "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
        "cache_read_input_token_cost_above_200k_tokens": 6e-07,
        "deprecation_date": "2026-09-29",
        "litellm_provider": "anthropic",
        "max_input_tokens": 200000,
        "max_output_tokens": 64000,
        "mode": "chat",
        "output_cost_per_token": 1.5e-05,
        "supports_reasoning": True,
        "supports_vision": True,
    },
    "claude-sonnet-4-5-20250929-v1:0": {
        "litellm_provider": "bedrock",
        "mode": "chat",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1e-05,
    },
    "gemini/gemini-3.8-flash": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "input_cost_per_token": 7.5e-07,
        "output_cost_per_token": 3.75e-06,
    },
    "whisper-1": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
}


def test_litellms_prices() -> None:
    sonnet, flash = (read_entry(prices.dated(json.loads(json.dumps(e), parse_float=Decimal)), "x") for e in read(LITELLM).entries)
    rates = prices.Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(6))
    assert (sonnet.provider, sonnet.models, sonnet.rates) == ("anthropic", ("claude-sonnet-4-5",), rates)
    assert sonnet.tiers == ((200000, prices.Rates(Decimal(6), Decimal("22.5"), Decimal("0.6"), Decimal("7.5"), Decimal(12))),)
    assert (flash.provider, flash.models, flash.input) == ("gemini", ("gemini-3.8-flash",), Decimal("0.75"))


def test_litellms_models_are_reports() -> None:
    entries = read(LITELLM, "models").entries
    sonnet = model_entries.entry(json.loads(json.dumps(entries[0])), "x")
    assert (sonnet.context, sonnet.output, sonnet.images, sonnet.thinks, sonnet.thinking) == (None, 64000, True, True, None)
    assert sonnet.end is not None
    assert (sonnet.end.on, sonnet.end.reading.reported, sonnet.end.reading.source) == (dt.date(2026, 9, 29), True, SOURCE)
    assert model_entries.entry(entries[1], "x").images is None, "what is not said is not known"


def test_litellms_longest_input_replaces_no_context() -> None:
    """Of OpenAI's newer models it is the context without the longest answer: 922,000 of 1,050,000 (model_prices_and_context_window.json)."""
    luna = {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 922000, "max_output_tokens": 128000}
    known, new = read({"gpt-6-luna": luna, "gpt-9": luna}, "models").entries
    assert ("context" in known, new["context"], known["output"]) == (False, 922000, 128000)


def test_a_model_that_litellm_has_twice_is_one() -> None:
    entry = {"litellm_provider": "deepseek", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
    (only,) = read({"deepseek-flash": entry, "deepseek/deepseek-flash": {**entry, "input_cost_per_token": 5e-06}}).entries
    assert (only["models"], only["input"]) == (["deepseek-flash"], 1)


# -- our own shape ---------------------------------------------------------------------------------------------------------
def test_our_own_tables_are_read_too() -> None:
    own = b'[[price]]\nprovider = "openai"\nmodels = ["a"]\ninput = 1.5\noutput = 2\ndate = 2026-11-01\nsource = "https://x"\n'
    assert (first_price(own).input, first_price(own).date) == (Decimal("1.5"), dt.date(2026, 11, 1))
    model = b'[[model]]\nprovider = "openai"\nmodels = ["a"]\ndate = 2026-11-01\nsource = "https://x"\n[model.end]\non = 2027-01-01\n'
    entry = model_entries.entry(json.loads(json.dumps(read(model, "models").entries[0])), "x")
    assert entry.end is not None
    assert (entry.end.on, entry.end.reading.reported) == (dt.date(2027, 1, 1), False)


# -- what cannot be --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>404</html>",
        b"{}",
        b"[]",
        b"[1, 2]",
        b'{"a": 1}',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": NaN}}',
        b'{"a": {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1, "output_cost_per_token": 1}}',
        b"[[model]]\non = 2027-02-30",
        b'[{"id": "openai", "models": []}]',
        b"9" * 5000,
    ],
)
@pytest.mark.parametrize("kind", ["prices", "models"])
def test_what_is_no_table_is_one_line(body: bytes, kind: str) -> None:
    with pytest.raises(BadSetting) as raised:
        read(body, kind)
    assert str(raised.value).startswith(SOURCE)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'[[model]]\nprovider = "openai"\ndate = 2027-02-30', "cannot be read as TOML: Invalid date or datetime (at line 3, column 8)."),
        (b'{"a": 1', "cannot be read as JSON: Expecting ',' delimiter: line 1 column 8 (char 7)."),
        (b"<html>404</html>", "is neither JSON nor TOML, so it holds no table."),
    ],
)
def test_where_it_breaks_off_is_said(body: bytes, words: str) -> None:
    with pytest.raises(BadSetting) as raised:
        read(body)
    assert str(raised.value) == f"{SOURCE} {words}"


def test_a_table_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_BYTES", 10)
    with pytest.raises(BadSetting, match="more than 0 kB"):
        read(b'{"a": "bcdefgh"}')
    monkeypatch.undo()
    monkeypatch.setattr(foreign, "MAX_ENTRIES", 1)
    with pytest.raises(BadSetting, match="more than 1 entries"):
        read([*genai(id="a", prices=PLAIN), *genai(id="b", prices=PLAIN)])


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (genai(prices={"input_mtok": -1, "output_mtok": 1}), "prices", "openai/gpt-9: input_mtok should be a number of dollars"),
        (genai(prices={"input_mtok": 1e9, "output_mtok": 1}), "prices", "input_mtok should be a number of dollars"),
        (genai(prices={"input_mtok": True, "output_mtok": 1}), "prices", "input_mtok should be a number of dollars"),
        (genai(prices={"input_mtok": {"base": 1, "tiers": [5]}, "output_mtok": 1}), "prices", "tiers should have a start"),
        (genai(prices=7), "prices", "prices should be a table"),
        (genai(id="a\nb", prices=PLAIN), "prices", "a name should be text"),
        (genai(id="x" * 300, prices=PLAIN), "prices", "a name should be text"),
        (genai(prices=[{"constraint": {"start_date": "2027-02-30"}, "prices": PLAIN}]), "prices", "since should be a date"),
        (genai(prices=[{"constraint": {"start_date": [1]}, "prices": PLAIN}]), "prices", "since should be a date"),
        (genai(context_window="many", prices=PLAIN), "models", "context should be a number of tokens"),
        (genai(context_window=10**12, prices=PLAIN), "models", "context should be a number of tokens"),
        ({"a": {**LITELLM["claude-sonnet-4-5"], "input_cost_per_token": "3e-6"}}, "prices", "input_cost_per_token should be a number"),
        ({"a": {**LITELLM["claude-sonnet-4-5"], "deprecation_date": "2027-02-30"}}, "models", "a: end: on should be a date such as"),
        ({"a": {**LITELLM["claude-sonnet-4-5"], "deprecation_date": "9999-12-31"}}, "models", "end: on should be a date such as"),
    ],
)
def test_an_entry_that_cannot_be_is_left_out_and_named(document: Any, kind: str, words: str) -> None:
    with pytest.raises(BadSetting, match="holds no") as raised:
        read(document, kind)
    assert words in str(raised.value)
    good = genai(prices=PLAIN, context_window=5000) if isinstance(document, list) else {}
    mixed = [*document, *good] if isinstance(document, list) else {**document, "ok": {**LITELLM["claude-sonnet-4-5"]}}
    table = read(mixed, kind)
    assert len(table.entries) == 1
    assert len(table.left_out) == 1
    assert words in table.left_out[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
WORDS = ("id", "match", "prices", "context_window", "equals", "or", "input_mtok", "output_mtok", "constraint", "litellm_provider", "mode")


@hypothesis.settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(WORDS), JSON, max_size=6), st.sampled_from(["prices", "models"]))
def test_no_entry_breaks_the_reading(entry: dict[str, Any], kind: str) -> None:
    wild: Any = [{"id": "openai", "models": [entry, {"id": "ok", "match": {}, "context_window": 9, "prices": PLAIN}]}]
    assert "ok" in [e["models"][0] for e in read(json.dumps(wild).encode("utf-8", "surrogatepass"), kind).entries]
    theirs = {"x": {**entry, "litellm_provider": "openai", "mode": "chat"}, "ok": LITELLM["claude-sonnet-4-5"]}
    assert "ok" in [e["models"][0] for e in read(json.dumps(theirs).encode(), kind).entries]
