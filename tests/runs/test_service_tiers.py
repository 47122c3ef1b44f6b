"""`--tier` in a run: refused where a provider has none, priced by the reply, told, and no part of what makes two requests the same."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from servers.exact import Asked, Exact, reply

import holynb
from holynb.config.options import Options
from holynb.errors import BadOption, BadSetting, InferError
from holynb.events import Noted
from holynb.run import plan, pythoncode, quote
from holynb.types import Message, Request, Route
from holynb.ui.commands import preview
from holynb.ui.live import detail

pytestmark = pytest.mark.usefixtures("ended")
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)


def answer(tier: str | None, model: str = "gpt-6-luna") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    return reply({"object": "chat.completion", "model": model, "choices": [choice], "usage": usage, "service_tier": tier})


def full() -> bytes:
    return reply({"error": {"message": "Resource unavailable", "type": "resource_unavailable", "code": "resource_unavailable"}}, 429)


def run(server: Exact, prompts: list[str], **options: Any) -> holynb.run.Run:
    return holynb.infer(prompts, "openai/gpt-6-luna", api_base=f"{server.base}/v1", **options).wait()


def warnings(run: Any) -> list[str]:
    return [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and e.level == "warning" and "tier" in e.text]


def test_the_tier_that_answered_is_paid_and_told() -> None:
    def served(asked: Asked, n: int) -> list[bytes]:
        body = json.loads(asked.body)
        return [answer("default" if "downgraded" in body["messages"][0]["content"] else body["service_tier"])]

    with Exact(served) as server:
        ended = run(server, ["one", "two", "downgraded"], tier="priority")
        asked = [json.loads(a.body)["service_tier"] for a in server.asked]
        again = run(server, ["one", "two", "downgraded"], tier="flex")
        plain = run(server, ["one", "two", "downgraded"])
        assert len(server.asked) == 3, "an answer counts at any tier"
    assert asked == ["priority"] * 3
    assert [(o.tier, o.cost) for o in ended.rows()] == [
        ("priority", Decimal("0.0003")),
        ("priority", Decimal("0.0003")),
        ("standard", Decimal("0.00015")),
    ]
    assert "· 2 at priority, 1 at standard ·" in ended.summary().line()
    assert "priority tier" in detail._facts(ended.rows()[0])
    assert {o.cached for o in (*again.rows(), *plain.rows())} == {True}
    assert not warnings(ended)


def test_a_row_without_room_goes_to_the_next_tier() -> None:
    def served(asked: Asked, n: int) -> list[bytes]:
        return [full()] if json.loads(asked.body)["service_tier"] == "flex" else [answer("default")]

    with Exact(served) as server:
        ended = run(server, ["one", "two"], tier="flex,standard", retries=0)
    assert [(o.status, o.tier, o.attempts, o.cost) for o in ended.rows()] == [("ok", "standard", 2, Decimal("0.00015"))] * 2


@pytest.mark.parametrize(("tier", "says"), [("scale", "at its scale tier"), (None, "does not say at which service tier it answered")])
def test_a_tier_without_a_price_is_one_warning_and_no_guess(tier: str | None, says: str) -> None:
    with Exact([answer(tier)]) as server:
        ended = run(server, [f"row {i}" for i in range(5)], tier="flex")
    assert [o.cost for o in ended.rows()] == [None] * 5
    (warning,) = warnings(ended)
    assert says in warning
    assert ended.frame()["cost"].isna().all()


def test_p_service_tier_is_priced_by_the_reply_too() -> None:
    with Exact([answer("flex")]) as server:
        ended = run(server, ["one"], p={"service_tier": "flex"})
    assert [(o.tier, o.cost) for o in ended.rows()] == [("flex", Decimal("0.000075"))]


@pytest.mark.parametrize(
    ("route", "tier", "says"),
    [
        ("anthropic/claude-sonnet-5", "flex", "--tier flex: anthropic has no flex tier. It has standard and priority."),
        (
            "deepseek/deepseek-v4-flash",
            "flex",
            "--tier flex: deepseek has no flex tier. It has one tier for everything, so leave --tier out.",
        ),
        ("vllm/m", "flex,priority", "--tier flex,priority: vllm has no flex or priority tier."),
        ("pool/smollm2-135m", "flex", "pool has no flex tier"),
    ],
)
def test_a_tier_that_a_provider_has_not_is_refused_before_anything_is_sent(route: str, tier: str, says: str) -> None:
    with pytest.raises(BadOption, match=says.replace(".", r"\.")) as caught:
        holynb.infer(["x"], route, tier=tier)
    assert "\n" not in str(caught.value)


def test_every_route_that_a_row_may_come_to_needs_one_of_them() -> None:
    with pytest.raises(BadOption, match="anthropic has no flex tier"):
        holynb.infer(["x"], "openai/gpt-6-luna", tier="flex", fallback="anthropic/claude-sonnet-5")
    made = plan.make(["x"], "openai/gpt-6-luna", Options.parse({"tier": "flex,standard", "fallback": "anthropic/claude-sonnet-5"}))
    assert made.billed(Route.parse("openai/gpt-6-luna")) == ("flex", "standard")
    assert made.billed(Route.parse("anthropic/claude-sonnet-5")) == ("standard",)
    assert plan.make(["x"], "vllm/m", Options.parse({"tier": "standard"})).billed(Route.parse("vllm/m")) == ("standard",)


@pytest.mark.parametrize("value", ["fast", "", "flex,flex", "flex;standard", "auto", 5, True, ["flex", 1]])
def test_what_is_no_tier(value: object) -> None:
    with pytest.raises(BadOption, match="--tier takes flex, standard, priority, or several of them in order such as flex,standard, not"):
        Options.parse({"tier": value})


def test_the_key_is_the_same_at_any_tier() -> None:
    plain, at_flex = (Request(0, (Message("user", "x"),), Route("openai", "m"), tiers=t) for t in ((), ("flex",)))
    assert plain.key("https://x") == at_flex.key("https://x")


def test_the_longest_silence() -> None:
    def timeouts(**options: Any) -> Any:
        return plan.make(["x"], "sim/echo", Options.parse(options)).timeouts

    assert timeouts().longest_silence(("flex",)) == 900
    assert timeouts().longest_silence(("standard",)) == timeouts().longest_silence(()) == 60
    assert timeouts(timeout=60).longest_silence(("flex",)) == 60
    assert timeouts(timeout=5).longest_silence(()) == 5


def test_a_budget_holds_the_dearest_and_refuses_what_has_no_price() -> None:
    with pytest.raises(BadSetting, match=r"--budget needs a price for openai/gpt-4\.1 at its flex tier, but none is known\. Set it in"):
        holynb.infer(["x"], "openai/gpt-4.1", tier="flex", budget=1)
    with pytest.raises(BadSetting, match="anthropic/claude-sonnet-5 at its priority tier"):
        holynb.infer(["x"], "anthropic/claude-sonnet-5", tier="priority", budget=1)
    # 1 + 64 bytes at 2, 4 or 1 and one token at 8, 16 or 4 dollars a million
    for tier, reserved in (("standard", "0.000138"), ("priority", "0.000276"), ("flex", "0.000069"), ("flex,standard", "0.000069")):
        for cap in (Decimal(reserved), Decimal(reserved) - Decimal("0.000001")):
            ended = holynb.infer(["x"], "sim/echo", tier=tier, budget=float(cap), max_tokens=1, cache=False)
            with suppress(InferError):
                ended.wait()
            assert [o.status for o in ended.rows()] == ["ok" if cap == Decimal(reserved) else "error"], (tier, cap)


def test_a_dry_run_shows_the_range() -> None:
    standard, flex, both = (
        quote.quote(
            plan.make(["word " * 50], "openai/gpt-6-luna", Options.parse({"tier": t, "max_tokens": 100} if t else {"max_tokens": 100}))
        )
        for t in ("", "flex", "flex,standard,priority")
    )
    low, high = standard.range
    assert flex.range == (low / 2, high / 2)
    assert both.range == (low / 2, high * 2)
    made = plan.make(["x"], "openai/gpt-4.1", Options.parse({"tier": "flex", "dry_run": True}))
    assert "no price is known for openai/gpt-4.1" in preview.text(made)


def test_show_code_says_it() -> None:
    assert "tier=('flex', 'standard')" in pythoncode.code("x", "openai/gpt-6-luna", Options.parse({"tier": "flex,standard"}))
