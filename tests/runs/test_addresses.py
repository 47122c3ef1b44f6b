"""`--api-base` holds for every route of its provider in the cell: nothing leaves for an address that the user did not name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from servers.exact import Asked, Exact, Step, reply

import holynb
from holynb.config import Options, keys, settings
from holynb.errors import BadOption, InferError
from holynb.run import Run, bench, plan, resume
from holynb.secret import Secret
from holynb.ui.commands import preview

pytestmark = pytest.mark.usefixtures("keyed")

PROMPTS = ["one", "two", "three"]


def answer(asked: Asked, number: int) -> Sequence[Step]:
    """An answer that names the model; an error where that is called `broken-…`."""
    model = asked.json["model"]
    if model.startswith("broken"):
        return [reply({"error": {"message": "out of order", "type": "server_error"}}, 501)]
    text = "{}" if model == "weak" else '{"a": 1}'
    return [reply({"model": model, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})]


@dataclass
class Places:
    """`typed`: the address in the cell; `default`: where the provider is without it; `other`: of another provider, as configured."""

    typed: Exact
    default: Exact
    other: Exact

    def run(self, route: str = "openai/first", **options: Any) -> Any:
        return holynb.infer(PROMPTS, route, api_base=self.typed.base, cache=False, retries=0, **options).wait(60)

    def asked(self, server: Exact) -> set[str]:
        return {a.json["model"] for a in server.asked}


@pytest.fixture
def places() -> Iterator[Places]:
    with Exact(answer) as typed, Exact(answer) as default, Exact(answer) as other:
        settings.override(
            provider={"openai": {"base": default.base}, "elsewhere": {"base": other.base}},
            router={
                "tasks": {
                    "routes": {"short": "openai/first", "long": "openai/second", "far": "elsewhere/third"},
                    "rules": [{"task": "short", "any": ["one"]}, {"task": "long", "any": ["two"]}, {"task": "far", "any": ["three"]}],
                }
            },
        )
        yield Places(typed, default, other)
        settings.reset()


@pytest.mark.parametrize(
    ("route", "options", "asked"),
    [
        ("openai/broken-1", {"fallback": "openai/second"}, {"broken-1", "second"}),
        ("openai/first", {"spread": "openai/second", "concurrency": 1}, {"first", "second"}),
        ("openai/first", {"compare": "openai/second,openai/third"}, {"first", "second", "third"}),
        ("openai/first", {"samples": 2, "compare": "openai/second"}, {"first", "second"}),
        (None, {"compare": "openai/first,openai/second"}, {"first", "second"}),
        (
            "openai/broken-1",
            {"spread": "openai/broken-2", "fallback": "openai/broken-3,openai/last"},
            {"broken-1", "broken-2", "broken-3", "last"},
        ),
    ],
)
def test_every_route_of_the_provider_is_asked_there(places: Places, route: str | None, options: dict[str, Any], asked: set[str]):
    run = places.run(route, **options)
    assert set(run.frame()["status"]) == {"ok"}
    assert not places.default.asked
    assert places.asked(places.typed) | asked == asked
    assert len(places.asked(places.typed)) >= min(2, len(asked))


def test_a_route_of_another_provider_is_asked_where_it_is(places: Places):
    run = places.run("openai/broken-1", fallback="openai/broken-2,elsewhere/third")
    assert set(run.frame()["route"]) == {"elsewhere/third"}
    assert places.asked(places.other) == {"third"}
    assert places.asked(places.typed) == {"broken-1", "broken-2"}
    assert not places.default.asked


def test_routes_of_a_router_and_the_stronger_one_are_asked_there(places: Places):
    places.run("openai/first", router="tasks")
    assert places.asked(places.typed) == {"first", "second"}
    assert places.asked(places.other) == {"third"}
    settings.override(
        router={
            "weakly": {
                "other": "openai/weak",
                "escalate": "openai/strong",
                "rules": [{"task": "x", "any": ["zzz"]}],
                "routes": {"x": "openai/first"},
            }
        }
    )
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    frame = places.run("openai/first", router="weakly", schema=schema).frame()
    assert set(frame["route"]) == {"openai/strong"}
    assert not places.default.asked


def test_a_run_that_goes_on_asks_there_too(places: Places):
    with pytest.raises(holynb.InferError):
        holynb.infer(PROMPTS, "openai/broken-1", api_base=places.typed.base, name="later", retries=0).wait(60)
    again = holynb.Run(resume.resumed("later", {"fallback": "openai/second"})).start().wait(60)
    assert set(again.frame()["status"]) == {"ok"}
    assert "second" in places.asked(places.typed)
    assert not places.default.asked


def test_the_key_of_the_cell_goes_with_its_address(places: Places, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_KEY", "gw-0123456789-abcdef")
    places.run("openai/broken-1", fallback="openai/second,elsewhere/third", api_key_name="GATEWAY_KEY")
    assert {a.headers["authorization"] for a in places.typed.asked} == {"Bearer gw-0123456789-abcdef"}


def test_a_dry_run_names_the_address_of_each_route(places: Places):
    options = Options.parse({"api_base": places.typed.base, "fallback": "openai/second,elsewhere/third,sim/echo", "dry_run": True})
    text = preview.text(plan.make(PROMPTS, "openai/first", options))
    for line in (
        f"openai/first goes to {places.typed.base}.",
        f"openai/second goes to {places.typed.base}.",
        f"elsewhere/third goes to {places.other.base}.",
        "sim/echo goes to this machine.",
    ):
        assert line in text
    assert places.default.base not in text
    assert not places.typed.asked


@pytest.mark.parametrize(
    ("route", "options", "words"),
    [
        ("sim/echo", {"fallback": "openai/first"}, "sim has no address"),
        ("azure/a", {"fallback": "azure/b", "api_base": "https://r.openai.azure.com/openai/deployments/a"}, "names one deployment"),
    ],
)
def test_an_address_that_cannot_hold_is_refused(places: Places, route: str, options: dict[str, Any], words: str):
    with pytest.raises(BadOption, match=words):
        plan.make(PROMPTS, route, Options.parse({"api_base": places.typed.base, "dry_run": True, **options}))


def test_a_bench_asks_only_the_provider_of_its_first_route_there(places: Places, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_KEY", "gw-0123456789-abcdef")
    options = Options.parse({"api_base": places.typed.base, "api_key_name": "GATEWAY_KEY", "retries": 0, "fallback": "openai/last"})
    routes = ["openai/first", "elsewhere/broken-2", "openai/third", "elsewhere/fourth"]
    measured = list(bench.measure(bench.Bench(routes, ["one"], options)))
    assert [m.ok for m in measured] == [1, 1, 1, 1]
    assert places.asked(places.typed) == {"first", "third", "last"}, "a fallback is its provider's, too"
    assert places.asked(places.other) == {"broken-2", "fourth"}
    again = resume.failed_again(options={"fallback": "elsewhere/fifth,openai/sixth"})
    assert [e.base_url for e in again.targets.endpoints] == [places.other.base, places.typed.base] * 2
    assert not any("gw-" in str(a.headers) for a in places.other.asked)
    assert not places.default.asked


@pytest.mark.parametrize("typed", [True, False])
def test_failed_rows_go_again_with_the_key_that_is_set_since(typed: bool, monkeypatch: pytest.MonkeyPatch):
    right = "sk-0123456789-the-right-one"

    def held_to(asked: Asked, number: int) -> Sequence[Step]:
        if right in str(asked.headers):
            return answer(asked, number)
        return [reply({"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}}, 401)]

    with Exact(held_to) as server:
        settings.override(provider={"openai": {"base": server.base}})
        try:
            run = holynb.infer(PROMPTS, "openai/first", cache=False, retries=0)
            with pytest.raises(InferError) as refused:
                run.wait(60)
            assert str(refused.value).count("%infer key openai") == 1
            assert str(refused.value).endswith("set it with %infer key openai. Then: %infer run --only failed")
            if typed:
                keys.remember(settings.endpoint(settings.route("openai/first")), Secret(right, "OPENAI_API_KEY"))
            else:
                monkeypatch.setenv("OPENAI_API_KEY", right)
            assert Run(resume.failed_again()).start().wait(60).summary().ok == len(PROMPTS)
        finally:
            keys.forget()
            settings.reset()
