"""The table of models: what is known of each, when it ends, and what a person reads of that."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holynb.config import models, providers, settings, suggest, update_files
from holynb.config.model_entries import entry
from holynb.errors import BadSetting
from holynb.pricing import prices
from holynb.types import Route

DAY = dt.date(2026, 11, 28)
GOOD = {"provider": "openai", "models": ["gpt-9"], "date": dt.date(2026, 11, 28), "source": "https://example.com"}
THINKING = {"field": "reasoning_effort", "values": ["low", "high"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    update_files._stamps.clear()
    yield tmp_path
    models.forget()
    update_files.remove(models.FILE_NAME)


# -- the table that ships ------------------------------------------------------------------------------------------------
def test_every_entry_says_where_it_was_read() -> None:
    for model in models.shipped():
        for reading in (model.reading, *(part.reading for part in (model.thinking, model.end) if part)):
            assert reading.source.startswith("https://"), model.models
            assert dt.date(2026, 1, 1) <= reading.date <= models.today() + dt.timedelta(days=1), model.models


def test_no_entry_hides_another() -> None:
    for model in models.shipped():
        for pattern in model.models:
            name = re.sub(r"\[.*?\]", "1", pattern).replace("*", "9")
            assert models.find(model.provider, name) is model, (model.provider, name)


def test_what_is_offered_exists_in_its_entry_has_a_price_and_a_provider() -> None:
    for model in models.shipped():
        assert model.provider in providers.table()
        for name in model.offer:
            assert models.find(model.provider, name) is model
            priced = prices.list_price(Route(model.provider, name)) is not None
            assert priced or model.provider in ("openrouter", "holysheep"), (
                name
            )  # the one bills by its own list, the other's is the article's


def test_what_follows_a_model_outlives_it() -> None:
    for model in models.shipped():
        if model.end is not None and model.end.successor is not None:
            after = models.find(model.provider, model.end.successor)
            assert after is None or after.end is None or after.end.on > model.end.on, model.models


def test_what_is_offered_first_lives() -> None:
    """A provider's first name is what help and completion show: it has no end."""
    for provider in ("openai", "anthropic", "gemini", "deepseek"):
        first = next(iter(models.offered(provider, DAY)))
        assert models.lifecycle(Route(provider, first), DAY) == ""


def test_the_articles_four_are_marked() -> None:
    assert {n for m in models.shipped() if m.article for n in m.offer} == set(models.offered("holysheep", DAY))
    assert len(models.offered("holysheep", DAY)) == 4


def test_ways_to_think_are_paths_and_values_in_order() -> None:
    order = ["minimal", "low", "medium", "high", "xhigh", "max"]
    for control in (m.thinking for m in models.shipped() if m.thinking):
        assert re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z_]+)*", control.field)
        assert list(control.values) == sorted(control.values, key=order.index)
        assert bool(control.values) != bool(control.budget)
        off = control.off if isinstance(control.off, dict) else {}
        assert all(re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z_]+)*", path) for path in (*control.on, *off))


# -- words ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("route", "day", "words"),
    [
        ("anthropic/claude-sonnet-4-5", "2026-11-28", "ends 2026-11-30; successor anthropic/claude-sonnet-5-5"),
        ("anthropic/claude-sonnet-4-5-20250929", "2026-11-30", "ended 2026-11-30; successor anthropic/claude-sonnet-5-5"),
        ("openai/gpt-4.1", "2026-11-28", "reported to end 2027-01-14; successor openai/gpt-6-luna"),
        ("openai/gpt-4.1", "2027-02-01", "reported to have ended 2027-01-14; successor openai/gpt-6-luna"),
        ("openai/gpt-5-nano", "2026-11-28", "ends 2026-12-11"),
        (
            "gemini/gemini-2.5-pro",
            "2026-11-28",
            "reported to end 2026-12-01, then answered by gemini/gemini-3.8-flash at its price",
        ),
        ("openai/gpt-6-luna", "2026-11-28", ""),
        ("openai/a-name-nobody-knows", "2026-11-28", ""),
        ("vllm/gpt-4.1", "2026-11-28", ""),
    ],
)
def test_when_a_model_ends_and_what_follows(route: str, day: str, words: str) -> None:
    assert models.lifecycle(Route.parse(route), dt.date.fromisoformat(day)) == words
    sentence = models.notice(Route.parse(route), dt.date.fromisoformat(day))
    assert sentence == (words and f"{route} {'is ' if words.startswith('reported') else ''}{words}.")


def test_what_has_ended_is_not_offered_and_what_ends_comes_last() -> None:
    assert list(models.offered("anthropic", DAY))[-1] == "claude-sonnet-4-5"
    assert "claude-sonnet-4-5" not in models.offered("anthropic", dt.date(2026, 11, 30))
    assert "claude-haiku-4-5" in models.offered("anthropic", dt.date(2026, 11, 30))


def test_a_refused_model_that_ended_names_its_successor() -> None:
    known = settings.providers()
    assert suggest.model(Route("anthropic", "claude-opus-4-1"), known, refused=True) == (
        " anthropic/claude-opus-4-1 ended 2026-08-05; successor anthropic/claude-opus-4-8."
    )
    assert "Did you mean" not in suggest.model(Route("deepseek", "deepseek-chat"), known, refused=True)
    assert suggest.model(Route("anthropic", "claude-opus-4-1"), known) == ""  # before a server has refused it, it may be there


def test_it_is_said_where_the_vendor_is_asked_and_nowhere_else() -> None:
    route = Route("openai", "gpt-4.1")
    assert settings.shutdowns(settings.endpoint(route)) == [models.notice(route)]
    assert settings.shutdowns(settings.endpoint(route, "http://127.0.0.1:9/v1")) == []
    assert settings.shutdowns(settings.endpoint(Route("openai", "gpt-6-luna"))) == []


# -- what a server says ----------------------------------------------------------------------------------------------------
def test_a_servers_own_word_counts_above_the_table() -> None:
    models.announce(
        "openai", {"gpt-4.1": dt.date(2027, 3, 1), "gpt-4o": None, "new": dt.date(2027, 5, 1)}, "https://api.openai.com/v1/models"
    )
    assert models.lifecycle(Route("openai", "gpt-4.1"), DAY) == "ends 2027-03-01; successor openai/gpt-6-luna"
    assert models.lifecycle(Route("openai", "gpt-4o"), DAY) == ""
    assert models.lifecycle(Route("openai", "new"), DAY) == "ends 2027-05-01"
    models.forget()
    assert "reported to end 2027-01-14" in models.lifecycle(Route("openai", "gpt-4.1"), DAY)


# -- an update over it -----------------------------------------------------------------------------------------------------
def update(*entries: dict[str, Any]) -> None:
    update_files.write(
        models.FILE_NAME,
        {"entries": [{"date": "2026-12-20", "source": "https://example.com/t.json", "reported": True, **e} for e in entries]},
    )


def test_a_fact_stands_against_a_later_report_and_a_report_against_an_earlier_one() -> None:
    update(
        {"provider": "anthropic", "models": ["claude-sonnet-4-5"], "end": {"on": "2027-09-09"}},
        {"provider": "openai", "models": ["gpt-4.1"], "context": 1047576, "end": {"on": "2027-02-02"}},
        {"provider": "openai", "models": ["gpt-9"], "context": 5000, "offer": ["gpt-9"]},
    )
    assert models.lifecycle(Route("anthropic", "claude-sonnet-4-5"), DAY).startswith("ends 2026-11-30")
    assert models.lifecycle(Route("openai", "gpt-4.1"), DAY) == "reported to end 2027-02-02; successor openai/gpt-6-luna"
    known = models.find("openai", "gpt-4.1")
    assert known is not None
    assert (known.context, known.thinks) == (1047576, False)
    assert settings.providers()["openai"].models["gpt-9"] == 5000
    update_files.remove(models.FILE_NAME)
    assert "gpt-9" not in settings.providers()["openai"].models


def test_a_table_of_the_project_is_not_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a project's `.env` names HOLYNB_HOME, what lies there came with a checkout."""
    (home / ".env").write_text(f"HOLYNB_HOME={home}\n", encoding="utf-8")
    (home / models.FILE_NAME).write_text(json.dumps({"entries": [{**GOOD, "date": "2026-11-28", "offer": ["gpt-9"]}]}), encoding="utf-8")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    update_files._stamps.clear()
    assert models.find("openai", "gpt-9") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"entries": 5}', "\x00", '{"entries": [1]}'])
def test_a_broken_table_is_one_line_that_says_how_to_be_rid_of_it(home: Path, text: str) -> None:
    (home / models.FILE_NAME).write_text(text, encoding="utf-8")
    update_files._stamps.clear()
    with pytest.raises(BadSetting) as raised:
        models.find("openai", "gpt-4.1")
    assert "\n" not in str(raised.value)
    assert models.FILE_NAME in str(raised.value)


# -- entries ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"end": {"on": "2027-02-30"}}, r"entry 3: end: on should be a date such as 2026-11-23, not '2027-02-30'"),
        ({"end": {"on": dt.datetime(2027, 1, 1, tzinfo=dt.UTC)}}, "end: on should be a date"),
        ({"end": {"on": "1999-01-01"}}, "end: on should be a date"),
        ({"end": {}}, "end: on missing"),
        ({"end": {"on": "2027-01-01", "sucessor": "x"}}, "no 'sucessor'. Did you mean successor"),
        ({"end": [1]}, "end should be a table"),
        ({"date": "yesterday"}, "date should be a date"),
        ({"context": 0}, "context should be a number of tokens"),
        ({"context": True}, "context should be a number of tokens"),
        ({"output": 10**12}, "output should be a number of tokens"),
        ({"images": "yes"}, "images should be true or false"),
        ({"models": "gpt-9"}, "models should be a list"),
        ({"models": ["a\nb"]}, "models should be text on one line"),
        ({"contxt": 5}, "no 'contxt'. Did you mean context"),
        ({"thinking": {"field": "x"}}, "either values or budget"),
        ({"thinking": {**THINKING, "budget": [1, 2]}}, "either values or budget"),
        ({"thinking": {"field": "x", "budget": [1]}}, "budget should be"),
        ({"thinking": {**THINKING, "default": "medium"}}, "default 'medium' is none of its values"),
        ({"thinking": {**THINKING, "off": True}}, "off should be a table of fields, or false"),
        ({"thinking": {**THINKING, "on": 5}}, "on should be a table"),
    ],
)
def test_a_wrong_figure_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        entry({**GOOD, **change}, "models.toml, entry 3")


def test_a_part_has_its_entrys_reading_but_for_what_it_says_itself() -> None:
    model = entry(
        {**GOOD, "reported": True, "end": {"on": "2027-01-01", "reported": False}, "thinking": {**THINKING, "source": "https://b.c"}}, "x"
    )
    assert model.end is not None
    assert model.thinking is not None
    assert (model.end.reading.reported, model.end.reading.source) == (False, "https://example.com")
    assert (model.thinking.reading.reported, model.thinking.reading.source) == (True, "https://b.c")
    with pytest.raises(BadSetting, match="source missing"):
        entry({k: v for k, v in GOOD.items() if k != "source"}, "x")
