"""Servers that nobody here wrote: aimock for OpenAI, Azure, Anthropic, Gemini and Bedrock, moto for SageMaker's signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import aimock, moto
from servers.aimock import Aimock
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.golden import OPENAI, TEXT
from servers.moto import Moto

from holynb.types import Endpoint, Usage

COUNTED = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, "input_tokens": 11, "output_tokens": 5}
ANSWER = "Hi there, 안녕 🍵! This is an answer of several chunks."
FIXTURES = [
    {"match": {"userMessage": "hello"}, "response": {"content": ANSWER, "usage": COUNTED}},
    {"match": {"userMessage": "lengthy"}, "response": {"content": ANSWER, "finishReason": "length"}},
    {
        "match": {"userMessage": "limited"},
        "response": {"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}, "status": 429},
    },
    {
        "match": {"userMessage": "quota"},
        "response": {"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}, "status": 429},
    },
    {
        "match": {"userMessage": "too long"},
        "response": {
            "error": {"message": "maximum context length is 9", "type": "invalid_request_error", "code": "context_length_exceeded"},
            "status": 400,
        },
    },
    {"match": {"userMessage": "overloaded"}, "response": {"error": {"message": "Overloaded", "type": "overloaded_error"}, "status": 529}},
    {"match": {"userMessage": "cut"}, "response": {"content": ANSWER}, "truncateAfterChunks": 2},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    with aimock.running(tmp_path_factory.mktemp("aimock"), FIXTURES, KEY) as found:
        yield found


@pytest.fixture(
    params=[
        "openai",
        "responses",
        "azure",
        "azure-v1",
        "azure-old",
        "azure-responses",
        "azure-responses-old",
        "anthropic",
        "gemini",
        "bedrock",
    ]
)
def where(request: pytest.FixtureRequest, server: Aimock) -> Endpoint:
    wire, old = request.param.removesuffix("-old").removesuffix("-v1"), request.param.endswith("-old")
    base = server.base + {"openai": "/v1", "responses": "/v1", "azure-v1": "/openai/v1"}.get(request.param, "")
    return endpoint(base, wire, options={"api_version": "2025-04-01-preview"} if old else {})


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer(where: Endpoint, stream: bool):
    deltas, answer = ask(where, request("hello", stream=stream, sampling={"max_tokens": 50}))
    assert answer.text == ANSWER
    assert (answer.finish_reason, answer.usage.tokens_in, answer.usage.tokens_out) == ("stop", 11, 5)
    assert "".join(deltas) == (ANSWER if stream else "")
    assert bool(deltas) is stream


def test_an_answer_of_the_longest_length(where: Endpoint):
    assert ask(where, request("lengthy"))[1].finish_reason == "length"


@pytest.mark.parametrize(
    ("words", "kind", "retry", "stops"),
    [
        ("limited", "rate_limit", True, False),
        ("quota", "quota", False, True),
        ("too long", "context_length", False, False),
        ("overloaded", "server", True, False),
    ],
)
def test_refusals(where: Endpoint, words: str, kind: str, retry: bool, stops: bool):
    fault = refuse(where, request(words))
    assert (fault.kind, fault.retry, fault.stops) == (kind, retry, stops)


def test_a_cut_stream(where: Endpoint):
    fault = refuse(where, request("cut", stream=True))
    assert (fault.kind, fault.retry) == ("truncated", True)


def test_a_refused_key(where: Endpoint):
    fault = refuse(where, request("hello"), key="sk-another-key-0123456789")
    assert (fault.kind, fault.stops) == ("auth", True)


def test_the_journal_has_what_was_meant(server: Aimock):
    ask(endpoint(f"{server.base}/v1"), request("hello", sampling={"max_tokens": 7, "temperature": 0.5}, stream=True))
    body = server.journal()[-1]["body"]
    assert {k: body[k] for k in ("model", "messages", "max_tokens", "temperature", "stream", "stream_options")} == {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("chaos", "kind"),
    [("malformedRate", "server"), ("disconnectRate", "connection"), ("dropRate", "server"), ("rateLimitRate", "rate_limit")],
)
def test_chaos(tmp_path: Path, chaos: str, kind: str):
    with aimock.running(tmp_path, FIXTURES) as server:
        server.chaos(**{chaos: 1.0})
        fault = refuse(endpoint(f"{server.base}/v1"), request("hello"))
    assert fault.kind == kind
    assert fault.retry


# -- AWS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with moto.running(tmp_path_factory.mktemp("moto")) as found:
        yield found


def sagemaker(aws: Moto, monkeypatch: pytest.MonkeyPatch, secret: str) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    return endpoint(aws.base, "sagemaker", model="my-endpoint", options={"region": "eu-west-1"})


def test_aws_takes_our_signature(aws: Moto, monkeypatch: pytest.MonkeyPatch):
    aws.answer(json.dumps(OPENAI.whole))
    answer = ask(sagemaker(aws, monkeypatch, aws.secret), request("안녕? / ü", model="my-endpoint"))[1]
    assert (answer.text, answer.usage) == (TEXT, Usage(20, 7, 16, tokens_reasoning=3))


def test_aws_refuses_a_wrong_secret_and_neither_is_shown(aws: Moto, monkeypatch: pytest.MonkeyPatch):
    wrong = "x" * 8 + aws.secret[8:]
    fault = refuse(sagemaker(aws, monkeypatch, wrong), request(model="my-endpoint"))
    assert (fault.kind, fault.stops) == ("auth", True)
    assert aws.access not in fault.message + (fault.raw or "")
