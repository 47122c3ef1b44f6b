"""Where batches go: Azure's two forms, Responses, and which failed submissions may have arrived all the same."""

from __future__ import annotations

import asyncio
import json

import pytest

from holynb import batches
from holynb.engines import connect
from holynb.engines.azure import resource_url
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.types import Endpoint, Message, Request, Route, Sampling


@pytest.mark.parametrize(
    ("base", "version", "url"),
    [
        ("https://r.openai.azure.com", "", "https://r.openai.azure.com/openai/v1/batches?limit=1"),
        ("https://r.openai.azure.com/openai/v1", "preview", "https://r.openai.azure.com/openai/v1/batches?limit=1&api-version=preview"),
        ("https://r.openai.azure.com", "2024-10-21", "https://r.openai.azure.com/openai/batches?limit=1&api-version=2024-10-21"),
        (
            "https://r.openai.azure.com/openai/deployments/mine",
            "2025-01-01-preview",
            "https://r.openai.azure.com/openai/batches?limit=1&api-version=2025-01-01-preview",
        ),
    ],
)
def test_azures_batches_belong_to_the_resource(base: str, version: str, url: str) -> None:
    endpoint = Endpoint(Route("azure", "mine"), "azure", base, options={"api_version": version} if version else {})
    assert resource_url(endpoint, "batches", "limit=1") == url
    assert resource_url(endpoint, "files").partition("?")[0].endswith("/files")


@pytest.mark.parametrize(
    ("wire", "base", "path"),
    [
        ("openai", "https://api.openai.com/v1", "/v1/chat/completions"),
        ("openai", "https://gateway.example/openai", "/v1/chat/completions"),
        ("responses", "https://api.openai.com/v1", "/v1/responses"),
        ("azure", "https://r.openai.azure.com", "/chat/completions"),
        ("azure-responses", "https://r.openai.azure.com", "/v1/responses"),
    ],
)
def test_a_line_names_the_address_as_its_provider_does(wire: str, base: str, path: str) -> None:
    provider = wire.partition("-")[0].replace("responses", "openai")
    engine = connect(Endpoint(Route(provider, "m"), wire, base, "K"), lambda: None)
    assert isinstance(engine, Hosted)
    row = Request(0, (Message("user", "hi"),), Route(provider, "m"), Sampling(max_tokens=9))
    line = json.loads(asyncio.run(batches.of(engine, batches.table()[provider]).entry("id", row)))
    assert (line["custom_id"], line["method"], line["url"]) == ("id", "POST", path)
    assert line["body"]["model"] == "m" and "stream" not in line["body"]


@pytest.mark.parametrize(
    ("fault", "maybe"),
    [
        (Fault("connection", "closed without an answer"), True),
        (Fault("timeout", "no answer within 60 s"), True),
        (Fault("truncated", "broken in the middle"), True),
        (Fault("server", "bad gateway", status=502), True),
        (Fault("server", "200, but no JSON"), True),
        (Fault("connection", "nothing listens", unreachable=True), False),
        (Fault("bad_request", "no", status=400), False),
        (Fault("rate_limit", "later", status=429), False),
        (Fault("auth", "who?", status=401, stops=True), False),
        (Fault("connection", "redirect", status=302, stops=True, retry=False), False),
    ],
)
def test_only_what_is_known_not_to_have_arrived_is_sent_again_unasked(fault: Fault, maybe: bool) -> None:
    assert batches.cut_off(fault) is maybe
