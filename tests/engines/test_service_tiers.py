"""Service tiers on the wire: the field of each, the tier that a reply names, and refusals that are about the tier alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from servers import golden
from servers.asking import ask, endpoint, refuse, request
from servers.exact import END, Exact, chunk, reply, stream_head

from holynb.config import providers
from holynb.types import Completion, Endpoint

#: Wire → the field of its requests, what a reply says it in, and tier → word.
FIELDS = {
    "openai": ("service_tier", {"flex": "flex", "standard": "default", "priority": "priority"}),
    "azure": ("service_tier", {"flex": "flex", "standard": "default", "priority": "priority"}),
    "responses": ("service_tier", {"flex": "flex", "standard": "default", "priority": "priority"}),
    "azure-responses": ("service_tier", {"flex": "flex", "standard": "default", "priority": "priority"}),
    "anthropic": ("service_tier", {"standard": "standard_only", "priority": "auto"}),
    "bedrock": ("serviceTier", {"flex": {"type": "flex"}, "standard": {"type": "default"}, "priority": {"type": "priority"}}),
    "gemini": ("serviceTier", {"flex": "flex", "standard": "standard", "priority": "priority"}),
}
CASES = [(wire, tier, word) for wire, (_, words) in FIELDS.items() for tier, word in words.items()]
WIRES = {w.wire: w for w in golden.WIRES}
PROVIDERS = {"responses": "openai", "azure-responses": "azure"}


@pytest.fixture(autouse=True)
def keys_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def at(base: str, wire: str) -> Endpoint:
    """An endpoint with the options that ship for its provider."""
    return endpoint(base + WIRES[wire].path, wire, options=providers.table()[PROVIDERS.get(wire, wire)].options)


def saying(wire: str, tier: object) -> Any:
    """The wire's golden answer, naming this tier where its servers do."""
    value = json.loads(json.dumps(WIRES[wire].whole))
    place = {"anthropic": "usage", "gemini": "usageMetadata"}.get(wire)
    (value[place] if place else value)[FIELDS[wire][0]] = {"type": tier} if wire == "bedrock" else tier
    return value


def answered(wire: str, tier: object, *, asked: tuple[str, ...] = (), headers: Mapping[str, str] | None = None) -> Completion:
    with Exact([reply(saying(wire, tier), 200, **(headers or {}))]) as server:
        return ask(at(server.base, wire), request(tiers=asked))[1]


@pytest.mark.parametrize(("wire", "tier", "word"), CASES)
def test_each_tier_goes_out_in_the_words_of_its_provider(wire: str, tier: str, word: object) -> None:
    with Exact([reply(WIRES[wire].whole)]) as server:
        ask(at(server.base, wire), request(tiers=(tier,)))
        ask(at(server.base, wire), request())
    with_tier, without = (json.loads(a.body) for a in server.asked)
    assert with_tier.pop(FIELDS[wire][0]) == word
    assert with_tier == without, "and without one nothing is sent"


def test_a_provider_has_words_where_it_has_tiers() -> None:
    told = {name: set(p.options.get("tiers", ())) for name, p in providers.table().items()}
    assert {name for name, tiers in told.items() if tiers} >= {"openai", "azure", "anthropic", "gemini", "openrouter", "sim"}
    assert not told["vllm"] | told["pool"] | told["deepseek"] | told["holysheep"]


def test_what_p_says_wins() -> None:
    with Exact([reply(WIRES["openai"].whole)]) as server:
        ask(at(server.base, "openai"), request(tiers=("flex",), sampling={"extra": {"service_tier": "priority"}}))
    assert json.loads(server.asked[0].body)["service_tier"] == "priority"


@pytest.mark.parametrize(
    ("wire", "word", "tier"),
    [
        ("openai", "default", "standard"),
        ("openai", "flex", "flex"),
        ("openai", "priority", "priority"),
        ("openai", "fast", "priority"),
        ("openai", "scale", "scale"),
        ("openai", "auto", None),
        ("openai", None, None),
        ("openai", {"a": 1}, None),
        ("openai", "sk-something-that-nobody-knows", "other"),
        ("azure", "default", "standard"),
        ("anthropic", "standard", "standard"),
        ("anthropic", "priority", "priority"),
        ("anthropic", "batch", "batch"),
        ("bedrock", "default", "standard"),
        ("bedrock", "reserved", "reserved"),
        ("responses", "flex", "flex"),
        ("gemini", "FLEX", "flex"),
        ("gemini", "standard", "standard"),
        ("gemini", "unspecified", None),
    ],
)
def test_the_tier_that_a_reply_names(wire: str, word: object, tier: str | None) -> None:
    assert answered(wire, word).tier == tier


def test_gemini_names_it_among_the_headers_too_and_a_relays_word_there_is_none() -> None:
    assert answered("gemini", None, headers={"x-gemini-service-tier": "standard"}).tier == "standard"
    assert answered("gemini", None, headers={"x-gemini-service-tier": "paid"}).tier is None
    assert answered("gemini", "flex", headers={"x-gemini-service-tier": "standard"}).tier == "flex", "the answer's own word counts"


@pytest.mark.parametrize("wire", FIELDS)
def test_a_reply_that_does_not_name_the_tier_is_not_taken_for_the_standard_one(wire: str) -> None:
    assert answered(wire, None, asked=("priority",)).tier == "unsaid"
    assert answered(wire, None, asked=("standard",)).tier is None


def test_a_provider_with_one_tier_has_one_price_whatever_it_says() -> None:
    with Exact([reply(saying("openai", "flex"))]) as server:
        answer = ask(endpoint(server.base + "/v1"), request())[1]
    assert answer.tier is None


@pytest.mark.parametrize("wire", ["openai", "azure", "anthropic", "gemini"])
def test_a_stream_names_it_too(wire: str) -> None:
    stream = WIRES[wire].stream
    if wire in ("openai", "azure"):
        stream = stream.replace(b'"object": "chat.completion.chunk"', b'"object": "chat.completion.chunk", "service_tier": "flex"')
        stream = stream.replace(b'"object":"chat.completion.chunk"', b'"object":"chat.completion.chunk","service_tier":"flex"')
        word = "flex"
    elif wire == "anthropic":
        stream, word = stream.replace(b'"input_tokens"', b'"service_tier": "priority", "input_tokens"'), "priority"
    else:
        stream, word = stream.replace(b'"promptTokenCount"', b'"serviceTier": "priority", "promptTokenCount"'), "priority"
    assert stream != WIRES[wire].stream
    with Exact([stream_head(), chunk(stream), END]) as server:
        answer = ask(at(server.base, wire), request(stream=True, tiers=(word,)))[1]
    assert answer.tier == word


# -- refusals --------------------------------------------------------------------------------------------------------------


def openai_error(status: int, message: str, code: str | None) -> bytes:
    return reply({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}, status)


def google_error(status: int, message: str, name: str) -> bytes:
    return reply({"error": {"code": status, "message": message, "status": name}}, status)


FULL = [
    ("openai", openai_error(429, "Resource unavailable, please try again later.", "resource_unavailable")),
    ("gemini", google_error(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")),
    ("gemini", google_error(503, "This model is currently experiencing high demand.", "UNAVAILABLE")),
    ("gemini", google_error(429, "Resource exhausted. Please try again later.", "RESOURCE_EXHAUSTED")),
]
OTHERS = [
    ("openai", openai_error(429, "Rate limit reached for gpt-6-luna on tokens per min (TPM): Limit 30000", "rate_limit_exceeded")),
    ("openai", openai_error(500, "The server had an error", None)),
    ("gemini", google_error(429, "You exceeded your current quota, limit: 10 per minute", "RESOURCE_EXHAUSTED")),
]


@pytest.mark.parametrize(("wire", "refusal"), FULL)
def test_a_tier_without_room_is_waited_for_as_a_rate_limit(wire: str, refusal: bytes) -> None:
    with Exact([refusal]) as server:
        fault = refuse(at(server.base, wire), request(tiers=("flex",)))
        usual = refuse(at(server.base, wire), request())
        standard = refuse(at(server.base, wire), request(tiers=("standard",)))
    assert (fault.kind, fault.retry, fault.tier_refused) == ("rate_limit", True, "flex")
    assert (usual.tier_refused, standard.tier_refused) == ("", ""), "the standard tier has no other"


@pytest.mark.parametrize(("wire", "refusal"), OTHERS)
def test_a_quota_or_a_broken_server_is_no_matter_of_the_tier(wire: str, refusal: bytes) -> None:
    with Exact([refusal]) as server:
        fault, usual = (refuse(at(server.base, wire), request(tiers=tiers)) for tiers in (("flex",), ()))
    assert (fault.tier_refused, fault.kind) == ("", usual.kind)


def test_a_model_that_is_not_served_at_the_tier() -> None:
    with Exact([openai_error(400, "Invalid service_tier argument: flex is not available for this model", None)]) as server:
        fault = refuse(at(server.base, "openai"), request(tiers=("flex",)))
    assert (fault.kind, fault.retry, fault.tier_refused) == ("bad_request", False, "flex")
