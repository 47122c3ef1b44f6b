"""The Azure wire: addresses, versions, the filter's words, and the official SDK as oracle."""

from __future__ import annotations

import json

import pytest
from openai import AzureOpenAI
from openai.types.chat import ChatCompletionChunk
from servers import golden
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import Exact, reply

from holynb.engines import azure
from holynb.types import Usage

MESSAGES = [{"role": "user", "content": "안녕?"}]


@pytest.mark.parametrize(
    ("base", "options", "path"),
    [
        (
            "https://r.openai.azure.com",
            {},
            "https://r.openai.azure.com/openai/deployments/my%20dep/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai",
            {"api_version": "2025-01-01"},
            "https://r.openai.azure.com/openai/deployments/my%20dep/chat/completions?api-version=2025-01-01",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/other",
            {},
            "https://r.openai.azure.com/openai/deployments/other/chat/completions?api-version=2024-10-21",
        ),
        ("https://r.openai.azure.com/openai/v1", {}, "https://r.openai.azure.com/openai/v1/chat/completions"),
    ],
)
def test_addresses(base: str, options: dict[str, str], path: str):
    assert azure.url(endpoint(base, "azure", options=options), request(model="my dep")) == path


def test_the_version_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-03-01-preview")
    with Exact([reply(golden.AZURE.whole)]) as server:
        ask(endpoint(server.base, "azure", model="dep"))
        assert server.asked[0].path == "/openai/deployments/gpt-4.1-mini/chat/completions?api-version=2025-03-01-preview"


def test_the_key_is_a_header_of_its_own():
    with Exact([reply(golden.AZURE.whole)]) as server:
        ask(endpoint(server.base, "azure"))
        assert server.asked[0].headers["api-key"] == KEY
        assert "authorization" not in server.asked[0].headers


def test_the_sdk_asks_the_same_and_reads_the_same():
    with Exact([reply(golden.AZURE.whole)]) as server:
        client = AzureOpenAI(api_key=KEY, azure_endpoint=server.base, api_version="2024-10-21", max_retries=0)
        theirs = client.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES, max_tokens=9, temperature=0.5)  # type: ignore[arg-type]
        client.close()
        ours = ask(endpoint(server.base, "azure"), request(sampling={"max_tokens": 9, "temperature": 0.5}))[1]
        first, second = server.asked
    assert (first.path, first.json) == (second.path, second.json)
    assert theirs.usage is not None
    assert (ours.text, ours.usage.tokens_in) == (theirs.choices[0].message.content, theirs.usage.prompt_tokens)


def test_the_sdk_reads_the_golden_stream():
    for event in golden.AZURE.stream.split(b"\n\n")[:-2]:
        ChatCompletionChunk.model_construct(**json.loads(event.removeprefix(b"data: ")))
    with Exact(golden.AZURE.streamed()) as server:
        client = AzureOpenAI(api_key=KEY, azure_endpoint=server.base, api_version="2024-10-21", max_retries=0)
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices and c.choices[0].delta)
        client.close()
    assert text == golden.TEXT


def test_the_filter_says_what_it_met():
    with Exact([reply(golden.AZURE_FILTERED, 400)]) as server:
        fault = refuse(endpoint(server.base, "azure"))
    assert fault.kind == "content_filter"
    assert "(hate high, jailbreak)" in fault.message
    assert "violence" not in fault.message


def test_a_filtered_completion_is_an_error_and_costs():
    value = {
        **golden.AZURE.whole,
        "choices": [{"finish_reason": "content_filter", "message": {"role": "assistant"}, "content_filter_results": {}}],
    }
    with Exact([reply(value)]) as server:
        fault = refuse(endpoint(server.base, "azure"))
    assert (fault.kind, fault.usage) == ("content_filter", Usage(20, 7, 16, tokens_reasoning=3))


def test_a_deployment_that_is_not_there():
    error = {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
    with Exact([reply(error, 404)]) as server:
        fault = refuse(endpoint(server.base, "azure", model="gpt-5"))
    assert (fault.kind, fault.stops) == ("not_found", True)
    assert "gpt-5" in fault.message


def test_limits_that_are_none_count_for_nothing():
    with Exact([golden.AZURE.limited]) as server:
        assert refuse(endpoint(server.base, "azure")).limits is None
