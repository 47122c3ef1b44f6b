"""The taxonomy: what real servers say when they refuse, and what it means. One row per shape seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.engines import openai
from holynb.engines.classify import ErrorDetail, to_fault
from holynb.errors import KINDS


def error(message: str, code: Any = None, type: str | None = None, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": type, "param": param, "code": code}}).encode()


#: status, body → kind, retry, stops
CASES: list[tuple[int, bytes, str, bool, bool]] = [
    (401, error("Incorrect API key provided", "invalid_api_key", "invalid_request_error"), "auth", False, True),
    (401, b"", "auth", False, True),
    (400, error("Invalid API key"), "auth", False, True),
    (403, error("You are not allowed to sample from this model", type="permission_error"), "auth", False, True),
    (403, b"<html><title>403 Forbidden</title>cloudflare</html>", "bad_request", False, False),
    (402, error("Insufficient Balance", "invalid_request_error", "unknown_error"), "quota", False, True),
    (429, error("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), "quota", False, True),
    (429, error("Out", "credit_balance_exhausted", "insufficient_quota"), "quota", False, True),
    (429, error("Out", "organization_spend_limit_exceeded", "insufficient_quota"), "quota", False, True),
    (400, error("Your credit balance is too low to access the API", type="invalid_request_error"), "quota", False, True),
    (403, error("用户额度不足", "insufficient_user_quota", "new_api_error"), "quota", False, True),
    (
        429,
        error("Rate limit reached for gpt-4.1 on requests per min (RPM): Limit 3, Used 3, Requested 1.", "rate_limit_exceeded", "requests"),
        "rate_limit",
        True,
        False,
    ),
    (
        429,
        error("Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 5000.", "rate_limit_exceeded", "tokens"),
        "rate_limit",
        True,
        False,
    ),
    (
        429,
        error(
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30,000, Requested 39,252. The input or output tokens must be reduced",
            "rate_limit_exceeded",
            "tokens",
        ),
        "context_length",
        False,
        False,
    ),
    (429, error("tokens per min (TPM): Limit 30000, Requested 39252", "rate_limit_exceeded", "tokens"), "context_length", False, False),
    (429, b"Too Many Requests", "rate_limit", True, False),
    (429, error("You exceeded your current quota, please check your plan and billing details"), "rate_limit", True, False),
    (400, error("This model's maximum context length is 128000 tokens", "context_length_exceeded"), "context_length", False, False),
    (
        400,
        error(
            "You passed 1015 input tokens and requested 100 output tokens. However, the model's context length is only 1024 tokens",
            400,
            "BadRequestError",
            "input_tokens",
        ),
        "context_length",
        False,
        False,
    ),
    (
        400,
        json.dumps(
            {
                "object": "error",
                "message": "This model's maximum context length is 2048 tokens",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        ).encode(),
        "context_length",
        False,
        False,
    ),
    (400, error("the request exceeds the available context size", 400, "exceed_context_size_error"), "context_length", False, False),
    (500, error("the request exceeds the available context size. try increasing the context size"), "context_length", False, False),
    (413, b"<html><title>413 Request Entity Too Large</title></html>", "context_length", False, False),
    (
        400,
        error(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy",
            "content_filter",
            None,
            "prompt",
        ),
        "content_filter",
        False,
        False,
    ),
    (403, error("Your chosen model requires moderation and your input was flagged", 403), "content_filter", False, False),
    (
        404,
        error("The model `gpt-9` does not exist or you do not have access to it", "model_not_found", "invalid_request_error"),
        "not_found",
        False,
        True,
    ),
    (404, b"404 page not found", "not_found", False, True),
    (400, error("Model gpt-9 not found"), "not_found", False, True),
    (400, error("messages: Field required", param="messages"), "bad_request", False, False),
    (422, json.dumps({"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}).encode(), "bad_request", False, False),
    (405, b"Method Not Allowed", "bad_request", False, False),
    (408, b"", "timeout", True, False),
    (409, error("conflict"), "server", True, False),
    (500, error("The server had an error", type="server_error"), "server", True, False),
    (500, error("CUDA out of memory. Tried to allocate 2.00 GiB", 500, "InternalServerError"), "oom", True, False),
    (501, b"", "server", False, False),
    (502, b"<html><head><title>502 Bad Gateway</title></head></html>", "server", True, False),
    (503, error("Model is loading", 503), "server", True, False),
    (504, b"gateway timeout", "timeout", True, False),
    (524, b"<html>A timeout occurred</html>", "timeout", True, False),
    (529, error("Overloaded", type="overloaded_error"), "server", True, False),
]


@pytest.mark.parametrize(("status", "body", "kind", "retry", "stops"), CASES)
def test_one_taxonomy(status: int, body: bytes, kind: str, retry: bool, stops: bool):
    fault = openai.classify(status, {}, body)
    assert (fault.kind, fault.retry, fault.stops, fault.status) == (kind, retry, stops, status)
    assert fault.message.startswith(str(status))
    assert (fault.raw or "") == body.decode()


@pytest.mark.parametrize(
    ("body", "loads"),
    [
        (error("Loading model", 503, "unavailable_error"), True),  # llama.cpp
        (b'{"error":"Model org/name is currently loading","estimated_time":20.0}', True),  # Hugging Face
        (error("The model is overloaded. Please try again later.", 503), False),
        (error("no healthy upstream"), False),
    ],
)
def test_a_server_that_still_loads_has_taken_no_request(body: bytes, loads: bool):
    fault = openai.classify(503, {}, body)
    assert (fault.kind, fault.retry, fault.unreachable) == ("server", True, loads)


def test_the_words_of_a_page_are_readable():
    body = b"<html><head><style>h1 { color: red }</style><title>502 Bad Gateway</title></head><body><h1>nginx &amp; co</h1></body></html>"
    assert openai.classify(502, {}, body).message == "502: 502 Bad Gateway nginx & co"


def test_message_and_raw_are_cut():
    fault = openai.classify(500, {}, error("x" * 9000))
    assert len(fault.message) < 400
    assert len(fault.raw or "") == 2000


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after": "2.5"}, "", 2.5),
        ({}, "Please retry after 37 seconds.", 37.0),
        ({}, "Please try again in 6m0s. Visit", 360.0),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "Please try again in 1.2s.", 1.2),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0.0),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], message: str, wait: float | None):
    assert openai.classify(429, headers, error(message)).wait == wait


def test_the_server_may_say_whether_to_retry_but_not_for_a_key():
    assert openai.classify(500, {"x-should-retry": "false"}, b"").retry is False
    assert openai.classify(400, {"x-should-retry": "true"}, error("odd")).retry is True
    assert openai.classify(401, {"x-should-retry": "true"}, b"").retry is False


@given(
    st.integers(300, 599),
    st.binary(max_size=200) | st.from_type(str).map(str.encode),
    st.dictionaries(st.sampled_from(["retry-after", "x-should-retry"]), st.text()),
)
def test_no_answer_is_too_odd_to_classify(status: int, body: bytes, headers: dict[str, str]):
    fault = openai.classify(status, headers, body)
    assert fault.kind in KINDS
    assert "\n" not in fault.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "param", "metadata", "raw", "detail", "choices", "object"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_no_json_is_too_odd_to_classify(value: Any):
    assert openai.classify(400, {}, json.dumps(value).encode()).kind in KINDS


def test_a_detail_keeps_its_codes_apart_from_case():
    assert to_fault(400, ErrorDetail(code="Content_Filter"), {}).kind == "content_filter"
