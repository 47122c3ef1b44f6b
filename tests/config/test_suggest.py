"""Slips of the pen in routes: the one that was meant is named, and a model that is only new is let through."""

from __future__ import annotations

import tomllib

import pytest

import holynb
from holynb.config import settings, suggest
from holynb.config.options import Options
from holynb.errors import BadRoute, BadSetting
from holynb.events import Noted
from holynb.run import plan, quote
from holynb.types import Route


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("gpt-6.1-sol", "Did you mean openai/gpt-6.1-sol?"),
        ("GPT-6-luna", "Did you mean openai/gpt-6-luna or openrouter/openai/gpt-6-luna?"),
        ("smollm2-135m", "Did you mean pool/smollm2-135m?"),
        ("claude-sonet-5-5", "Did you mean anthropic/claude-sonnet-5-5?"),
        ("opnai", "Did you mean openai?"),
        ("fst", "Did you mean fast?"),
        ("zzzz", ""),
    ],
)
def test_a_word_without_a_provider(word: str, meant: str) -> None:
    settings.override(alias={"fast": "sim/echo"})
    with pytest.raises(BadRoute, match="neither an alias nor a route") as caught:
        settings.route(word)
    assert str(caught.value).endswith(meant or "(provider/model).")


@pytest.mark.parametrize(
    ("route", "before", "after"),
    [
        ("openai/gpt-6-lunna", "openai/gpt-6-luna", "openai/gpt-6-luna"),
        ("holysheep/gpt4.1", "holysheep/gpt-4.1", "holysheep/gpt-4.1"),
        ("anthropic/claude-sonet-5-5", "anthropic/claude-sonnet-5-5", "anthropic/claude-sonnet-5-5"),
        ("openai/gpt-7-luna", "", "openai/gpt-6-luna"),  # it may be new, until the server says that it is not
        ("openai/gpt-6-luna", "", ""),
        ("openai/o9-deep", "", ""),
        ("azure/my-gpt", "", ""),
        ("nobody/gpt-4.1", "", ""),
    ],
)
def test_a_model_of_a_provider(route: str, before: str, after: str) -> None:
    listed, misspelt = settings.providers(), Route.parse(route)
    assert suggest.model(misspelt, listed) == (f" Did you mean {before}?" if before else "")
    assert suggest.model(misspelt, listed, refused=True) == (f" Did you mean {after}?" if after else "")


def test_a_model_of_ones_own_provider_is_known() -> None:
    settings.override(provider={"mine": {"base": "http://127.0.0.1:9/v1", "models": {"clerk-large": 0}}})
    assert suggest.model(Route("mine", "clerk-lrage"), settings.providers()) == " Did you mean mine/clerk-large?"


def test_what_the_settings_name_are_the_models_of_a_provider_that_lists_none() -> None:
    settings.override(
        provider={"school": {"base": "http://127.0.0.1:9/v1", "key": "SCHOOL_TOKEN"}, "vllm": {"base": "http://127.0.0.1:8/v1"}},
        default="school/class",
        alias={"big": "vllm/org/qwen3-32b", "new": "openai/gpt-6-new"},
        price={"school/reader": {"input": 0, "output": 0}},
    )
    listed = settings.providers()
    assert list(listed["school"].models) == ["class", "reader"]
    assert not listed["school"].key_optional, "a key that is named is needed"
    assert suggest.model(Route("school", "clas"), listed) == " Did you mean school/class?"
    assert suggest.model(Route("school", "raeder"), listed, refused=True) == " Did you mean school/reader?"
    assert suggest.model(Route("vllm", "org/qwen3-32B"), listed, refused=True) == " Did you mean vllm/org/qwen3-32b?"
    assert suggest.model(Route("school", "smollm2-135m"), listed, refused=True) == " Your settings know school/class and school/reader."
    assert "gpt-6-new" not in listed["openai"].models, "of a provider whose models are known an alias adds none"
    with pytest.raises(BadRoute, match=r"Did you mean school/reader\?"):
        settings.route("reder")
    with pytest.raises(BadRoute, match=r"Did you mean school\?"):
        settings.route("scool/class")


def test_where_no_price_is_known_the_model_may_be_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("price_as", "budget"):
        with pytest.raises(BadSetting, match=r"none is known\. Did you mean openai/gpt-6-luna\? Set it in config\.toml"):
            monkeypatch.setenv("OPENAI_API_KEY", "a-real-looking-key-0123456789")
            route, value = ("sim/echo", "openai/gtp-6-luna") if option == "price_as" else ("openai/gtp-6-luna", 1)
            holynb.infer("x", route, **{option: value})
    estimate = quote.quote(plan.make("x", "openai/gtp-6-luna", Options.parse({"dry_run": True})))
    assert estimate.says() == "? (no price is known for openai/gtp-6-luna. Did you mean openai/gpt-6-luna?)"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    run = holynb.infer("x", "openai/gtp-6-luna", retries=0)
    with pytest.raises(holynb.InferError):
        run.wait(30)
    notes = [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted)]
    assert any("its cost is shown as ?. Did you mean openai/gpt-6-luna? Set it" in text for text in notes)


@pytest.mark.parametrize("name", ["<script>alert(1)<", "\x1b[31mred", "a\u202eb", "evil'\"]", "한글", "x" * 500 + "!"])
def test_no_name_that_cannot_be_a_providers_stands_in_what_is_to_be_copied(name: str) -> None:
    with pytest.raises(BadRoute) as caught:
        settings.route(f"{name}/m")
    assert '[provider.NAME] base = "https://…/v1"' in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "[provider.my-gateway] base" in suggest.entry("my-gateway")
    assert tomllib.loads(suggest.entry("a.b").replace("] ", "]\n")) == {"provider": {"a.b": {"base": "https://…/v1"}}}
