"""The Azure wire: addresses, versions, the filter's words, and the official SDK as oracle."""

from __future__ import annotations

import json

import pytest
from openai import AzureOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from servers import golden
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import Exact, reply

from holynb.engines import azure
from holynb.types import Usage

MESSAGES = [{"role": "user", "content": "안녕?"}]


OLD = "2024-10-21"
RESOURCE = "https://r.openai.azure.com"


@pytest.mark.parametrize(
    ("base", "version", "chat", "answers"),
    [
        ("", None, "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("/openai", None, "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("/openai/v1", None, "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("/openai/v1", "2025-01-01", "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("/openai/v1/chat/completions", None, "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("/openai/v1/responses", None, "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("", "v1", "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("", "latest", "/openai/v1/chat/completions", "/openai/v1/responses"),
        ("", "preview", "/openai/v1/chat/completions?api-version=preview", "/openai/v1/responses?api-version=preview"),
        (
            "",
            "2025-01-01&x",
            "/openai/deployments/my%20dep/chat/completions?api-version=2025-01-01%26x",
            "/openai/responses?api-version=2025-01-01%26x",
        ),
        (
            "/openai/deployments/other",
            None,
            f"/openai/deployments/other/chat/completions?api-version={OLD}",
            f"/openai/responses?api-version={OLD}",
        ),
    ],
)
def test_addresses(base: str, version: str | None, chat: str, answers: str):
    where = endpoint(RESOURCE + base, "azure", options={"api_version": version} if version else {})
    sent = request(model="my dep")
    assert azure.url(where, sent) == RESOURCE + chat
    assert azure.responses_url(where, sent) == RESOURCE + answers


@pytest.mark.parametrize("version", [None, OLD])
def test_the_sdk_asks_at_the_same_addresses(version: str | None):
    def client(base: str) -> OpenAI:
        if version is None:
            return OpenAI(api_key=KEY, base_url=f"{base}/openai/v1/", max_retries=0)
        return AzureOpenAI(api_key=KEY, azure_endpoint=base, api_version=version, max_retries=0)

    options = {"api_version": version} if version else {}
    with Exact(lambda asked, _: [reply(golden.RESPONSES.whole if "/responses" in asked.path else golden.AZURE.whole)]) as server:
        theirs = client(server.base)
        theirs.chat.completions.create(model="dep", messages=MESSAGES)  # type: ignore[call-overload]
        theirs.responses.create(model="dep", input="x")
        theirs.close()
        for wire in ("azure", "azure-responses"):
            ask(endpoint(server.base, wire, options=options), request(model="dep"))
    paths = [asked.path for asked in server.asked]
    assert paths[:2] == paths[2:]


def test_the_key_is_a_header_of_its_own():
    with Exact([reply(golden.AZURE.whole)]) as server:
        ask(endpoint(server.base, "azure"))
        assert server.asked[0].headers["api-key"] == KEY
        assert "authorization" not in server.asked[0].headers


def test_the_sdk_asks_the_same_and_reads_the_same():
    with Exact([reply(golden.AZURE.whole)]) as server:
        client = AzureOpenAI(api_key=KEY, azure_endpoint=server.base, api_version=OLD, max_retries=0)
        theirs = client.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES, max_tokens=9, temperature=0.5)  # type: ignore[arg-type]
        client.close()
        where = endpoint(server.base, "azure", options={"api_version": OLD})
        ours = ask(where, request(sampling={"max_tokens": 9, "temperature": 0.5}))[1]
        first, second = server.asked
    assert (first.path, first.json) == (second.path, second.json)
    assert theirs.usage is not None
    assert (ours.text, ours.usage.tokens_in) == (theirs.choices[0].message.content, theirs.usage.prompt_tokens)


def test_the_sdk_reads_the_golden_stream():
    for event in golden.AZURE.stream.split(b"\n\n")[:-2]:
        ChatCompletionChunk.model_construct(**json.loads(event.removeprefix(b"data: ")))
    with Exact(golden.AZURE.streamed()) as server:
        client = AzureOpenAI(api_key=KEY, azure_endpoint=server.base, api_version=OLD, max_retries=0)
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


@pytest.mark.parametrize(
    ("error", "options"),
    [
        ({"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}, {}),
        ({"code": "404", "message": "Resource not found"}, {"api_version": OLD}),
    ],
)
def test_the_older_form_is_named_only_where_it_may_help(error: dict[str, str], options: dict[str, str]):
    with Exact([reply({"error": error}, 404)]) as server:
        fault = refuse(endpoint(server.base, "azure", options=options))
    assert "older form" not in fault.message


def test_limits_that_are_none_count_for_nothing():
    with Exact([golden.AZURE.limited]) as server:
        assert refuse(endpoint(server.base, "azure")).limits is None


def test_a_gateway_that_knows_the_older_form_alone_is_told_how_to_ask_it():
    with Exact([reply({"error": {"code": "404", "message": "Resource not found"}}, 404)]) as server:
        fault = refuse(endpoint(server.base, "azure"))
    assert '[provider.azure.options] api_version = "2024-10-21"' in fault.message
