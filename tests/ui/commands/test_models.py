"""`%infer models`, completion and the panel: what is known of models, when they end, and what a provider itself says of that."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.exact import Exact, reply

from holynb.config import models as known
from holynb.config import settings
from holynb.config.options import Options
from holynb.engines import servers
from holynb.run import plan, session
from holynb.types import Route
from holynb.ui.cell import candidates
from holynb.ui.commands import models, preview
from holynb.ui.panel import offers

LIST = {
    "data": [
        {"id": "gpt-4.1", "shutdown_date": "2027-03-01"},
        {"id": "gpt-4o", "shutdown_date": None},
        {"id": "gpt-6-luna"},
        {"id": "gpt-77", "shutdown_date": "soon"},
    ]
}


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(known, "today", lambda: dt.date(2026, 11, 28))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    known.forget()
    settings.reset()


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine counts as one over the internet."""
    monkeypatch.setattr(servers, "is_self_hosted", lambda endpoint: False)


def line(text: str, route: str) -> str:
    return next(words for words in text.splitlines() if words.split("  ")[0] == route)


def test_what_ends_says_when_and_what_follows() -> None:
    text = models.text()
    assert line(text, "openai/gpt-4.1-mini").endswith("reported to end 2027-01-14; successor openai/gpt-6-luna")
    assert line(text, "anthropic/claude-sonnet-4-5").endswith("ends 2026-11-30; successor anthropic/claude-sonnet-5-5")
    assert line(text, "openai/gpt-6-luna").endswith("0.5")
    assert "longest answer" not in text


def test_a_named_provider_shows_all_that_is_known_and_where_it_was_read() -> None:
    text = models.text("openai")
    assert re.search(r"openai/gpt-6-luna +1,050,000 +128,000 +medium; off, low to max +yes", text)
    assert re.search(r"openai/gpt-6.1-sol +1,050,000 +128,000 +medium; low to max", text)
    assert re.search(r"Read at developers\.openai\.com \(2026-11-29\).*\. Reported by dev\.to", text)
    assert "off; off, from 1,024 tokens" in line(models.text("anthropic"), "anthropic/claude-haiku-4-5")
    assert "are those of the article" in models.text("holysheep")
    assert line(text, "openai/gpt-5").endswith("ends 2026-12-11; successor openai/gpt-6.1-sol"), "also what is not on offer"
    assert line(models.text("anthropic"), "anthropic/claude-opus-4-1").endswith("ended 2026-08-05; successor anthropic/claude-opus-4-8")
    assert "article" not in text


def test_a_provider_is_asked_where_its_key_is_there_and_only_then(hosted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with Exact([reply(LIST)]) as server:
        settings.override(provider={"openai": {"base": f"{server.base}/v1"}})
        assert "Models cannot be listed" not in models.text("openai")
        assert not server.asked
        monkeypatch.setenv("OPENAI_API_KEY", "a-real-looking-key-0123456789")
        text = models.text("openai")
        assert [a.path for a in server.asked] == ["/v1/models"], "no metrics are asked of a provider"
    assert "openai/gpt-77" in text
    assert "a-real-looking-key" not in text
    # A gateway's word is none of the vendor's.
    assert "reported to end 2027-01-14" in line(text, "openai/gpt-4.1")


def test_the_vendors_own_word_counts_from_then_on(hosted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "is_own_address", lambda endpoint: True)
    monkeypatch.setenv("OPENAI_API_KEY", "a-real-looking-key-0123456789")
    with Exact([reply(LIST)]) as server:
        settings.override(provider={"openai": {"base": f"{server.base}/v1"}})
        text = models.text("openai")
    assert line(text, "openai/gpt-4.1").endswith("ends 2027-03-01; successor openai/gpt-6-luna")
    assert "end" not in line(text, "openai/gpt-4o")
    assert line(text, "openai/gpt-77").endswith("?")
    shown = preview.text(plan.make("x", "openai/gpt-4.1", Options.parse({"dry_run": True}), variables={}))
    assert "openai/gpt-4.1 ends 2027-03-01; successor openai/gpt-6-luna." in shown


def test_a_long_list_is_cut_and_counted(hosted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "a-real-looking-key-0123456789")
    with Exact([reply({"data": [{"id": f"a/m{i}"} for i in range(models.MAX_LISTED + 7)]})]) as server:
        settings.override(provider={"openrouter": {"base": f"{server.base}/v1"}})
        text = models.text("openrouter")
    assert "… and 7 more that it serves." in text
    assert text.count("openrouter/a/m") == models.MAX_LISTED


@pytest.mark.parametrize("answer", [reply("<html>"), reply({"error": {"message": "no"}}, 401)])
def test_a_provider_that_lists_nothing_leaves_what_is_known(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "a-real-looking-key-0123456789")
    with Exact([answer]) as server:
        settings.override(provider={"deepseek": {"base": f"{server.base}/v1"}})
        text = models.text("deepseek")
    assert "Models cannot be listed: " in text
    assert "deepseek/deepseek-flash" in text


# -- dry run, completion, the panel ----------------------------------------------------------------------------------------
def dry_run(route: str, **options: Any) -> str:
    return preview.text(plan.make("x", route, Options.parse({"dry_run": True, **options}), variables={}))


def test_a_dry_run_says_it_of_every_route() -> None:
    shown = dry_run("gemini/gemini-2.5-flash", fallback="openai/gpt-4.1-mini")
    assert "gemini/gemini-2.5-flash is reported to end 2026-12-01, then answered by gemini/gemini-3.5-flash-lite at its price." in shown
    assert "openai/gpt-4.1-mini is reported to end 2027-01-14; successor openai/gpt-6-luna." in shown
    assert " end " not in dry_run("openai/gpt-6-luna")


def test_completion_says_it_beside_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "runs", list)  # what was asked before is offered as such
    kinds = candidates.routes()
    assert kinds["openai/gpt-6-luna"] == "openai"
    assert kinds["openai/gpt-4.1"] == "openai, reported to end 2027-01-14; successor openai/gpt-6-luna"
    assert list(kinds).index("openai/gpt-6-luna") < list(kinds).index("openai/gpt-4.1")
    settings.override(alias={"old": "openai/gpt-4.1"})
    assert offers.facts("old", {}).endswith(known.notice(Route("openai", "gpt-4.1")))
    assert [offers.facts(text, {}) for text in ("openai", "openai/", "nobody/x")] == [""] * 3


def test_the_panel_says_it_below_the_route() -> None:
    from types import SimpleNamespace

    from holynb.ui.panel.form import Form

    form = Form(SimpleNamespace(shell=SimpleNamespace(user_ns={})))
    form.route.value = "openai/gpt-4.1"
    assert "openai/gpt-4.1 is reported to end 2027-01-14; successor openai/gpt-6-luna." in form.facts.box.value
    assert form.facts.box.layout.display == "flex"
    form.route.value = "openai/gpt-6-luna"
    assert "end" not in form.facts.box.value
    form.route.value = "neither"
    assert (form.facts.box.value, form.facts.box.layout.display) == ("", "none")
