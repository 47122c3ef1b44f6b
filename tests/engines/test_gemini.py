"""The Gemini wire: what goes out, thoughts, blocked prompts, quotas of a minute and of a day, and the official SDK as oracle."""

from __future__ import annotations

from typing import Any

import pytest
from google import genai
from google.genai import types
from servers import golden, google_sdk
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import Exact, reply, sse, streamed
from servers.golden import gemini_error, gemini_part

from holynb.engines import finish as finishes
from holynb.engines import gemini
from holynb.types import Usage


def client(server: Exact) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=server.base, api_version="v1beta"))


@pytest.mark.filterwarnings("ignore")  # the SDK's own
@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_asks_the_same_and_reads_the_same(stream: bool):
    steps = golden.GEMINI.streamed() if stream else [reply(golden.GEMINI.whole)]
    with Exact(steps) as server:
        text = google_sdk.said(client(server), "gemini-2.5-flash", stream=stream)
        sent = request(**google_sdk.ASKED, stream=stream, model="gemini-2.5-flash")
        ours = ask(endpoint(server.base, "gemini"), sent)[1]
        first, second = server.asked
    assert (first.method, first.path.replace("%3A", ":")) == (second.method, second.path)
    theirs_json = first.json
    theirs_json["systemInstruction"].pop("role", None)
    assert theirs_json == second.json
    assert first.headers["x-goog-api-key"] == second.headers["x-goog-api-key"] == KEY
    assert ours.text == text == golden.TEXT


@pytest.mark.parametrize(
    ("base", "model", "stream", "url"),
    [
        ("https://g.com", "gemini-2.5-flash", False, "https://g.com/v1beta/models/gemini-2.5-flash:generateContent"),
        ("https://g.com", "models/x", True, "https://g.com/v1beta/models/x:streamGenerateContent?alt=sse"),
        ("https://g.com/v1", "tunedModels/a b", False, "https://g.com/v1/tunedModels/a%20b:generateContent"),
    ],
)
def test_addresses(base: str, model: str, stream: bool, url: str):
    assert gemini.url(endpoint(base, "gemini"), request(model=model, stream=stream)) == url


def test_what_p_says_goes_where_it_belongs():
    body = gemini.body(request(sampling={"extra": {"topK": 5, "thinkingConfig": {"thinkingBudget": 0}, "safetySettings": []}}))
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "안녕?"}]}],
        "safetySettings": [],
        "generationConfig": {"topK": 5, "thinkingConfig": {"thinkingBudget": 0}},
    }
    turns = gemini.body(request(messages=[("user", "a"), ("assistant", "b")]))
    assert [t["role"] for t in turns["contents"]] == ["user", "model"]
    assert "generationConfig" not in turns


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"promptTokenCount": 1, "candidatesTokenCount": 2}, Usage(1, 2)),
        ({"promptTokenCount": 1, "thoughtsTokenCount": 3}, Usage(1, 3, tokens_reasoning=3)),
        ({"promptTokenCount": 1, "candidatesTokenCount": 50, "thoughtsTokenCount": 30}, Usage(1, 80, tokens_reasoning=30)),
        ({"promptTokenCount": 1}, Usage(1)),
        (None, Usage()),
    ],
)
def test_thoughts_are_billed_as_output(reported: Any, expected: Usage):
    assert gemini.usage(reported) == expected


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"])
def test_filtered_answers_are_errors(reason: str):
    with Exact([streamed(sse(gemini_part("half"), gemini_part(None, reason, usageMetadata=golden._META)))]) as server:
        fault = refuse(endpoint(server.base, "gemini"), request(stream=True))
    assert (fault.kind, fault.usage) == ("content_filter", Usage(20, 7, 16, tokens_reasoning=3))


def test_a_blocked_prompt_in_a_stream():
    with Exact([streamed(sse({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}))]) as server:
        fault = refuse(endpoint(server.base, "gemini"), request(stream=True))
    assert (fault.kind, fault.usage) == ("content_filter", Usage(4))
    assert "blocked (SAFETY)" in fault.message


def test_every_finish_reason_of_the_vendors_client_has_a_meaning():
    words = [r.value for r in types.FinishReason if r is not types.FinishReason.FINISH_REASON_UNSPECIFIED]
    assert [w for w in words if w not in finishes.GEMINI] == []


@pytest.mark.parametrize(("reason", "finish"), [("STOP", "stop"), ("MAX_TOKENS", "length"), ("OTHER", "other")])
def test_finish_reasons(reason: str, finish: str):
    assert gemini.read(gemini_part("x", reason)).finish_reason == finish


def test_an_answer_that_went_wrong_in_the_model_may_go_right_the_next_time():
    with Exact([reply(gemini_part("x", "MALFORMED_RESPONSE"))]) as server:
        fault = refuse(endpoint(server.base, "gemini"))
    assert (fault.kind, fault.retry) == ("server", True)


DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}


@pytest.mark.parametrize(
    ("response", "kind", "wait"),
    [
        (gemini_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", golden.QUOTA, golden.RETRY), "rate_limit", 46.0),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "Please retry in 10h17m5.72s."), "quota", None),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", DAY, golden.RETRY), "quota", None),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", DAY), "quota", None),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0, model: gemini-3", golden.QUOTA, golden.RETRY), "quota", None),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."), "rate_limit", None),
        (
            gemini_error(400, "FAILED_PRECONDITION", "Gemini API free tier is not available. Please enable billing on your project"),
            "quota",
            None,
        ),
        (gemini_error(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), "auth", None),
        (gemini_error(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"), "not_found", None),
        (gemini_error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."), "timeout", None),
        (gemini_error(500, "INTERNAL", "An internal error has occurred."), "server", None),
        (gemini_error(400, "INVALID_ARGUMENT", "Please use a valid role: user, model."), "bad_request", None),
        (reply([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}], 503), "server", None),
    ],
)
def test_refusals(response: bytes, kind: str, wait: float | None):
    with Exact([response]) as server:
        fault = refuse(endpoint(server.base, "gemini"))
    assert (fault.kind, fault.wait if fault.kind == "rate_limit" else None) == (kind, wait)
    assert fault.stops is (kind in ("quota", "auth", "not_found"))


def test_what_a_stream_cost_outlasts_a_later_chunk_that_says_less():
    reader = gemini.Generated()
    full = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 7}
    for counts in (full, {"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": None}, {"totalTokenCount": 16}):
        reader.on_event("message", {"usageMetadata": counts})
    assert reader.usage == Usage(5, 11, tokens_reasoning=7)
