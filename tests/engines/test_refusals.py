"""Real refusals of gateways: their kind, their wait, and that one request is enough where nothing can succeed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers.exact import Exact, reply, sse
from servers.refusals import REFUSALS, Refusal, error

import holynb
from holynb.engines import anthropic, aws_errors, azure, gemini, openai

CLASSIFY = {"openai": openai, "azure": azure, "gemini": gemini, "anthropic": anthropic, "sagemaker": aws_errors, "bedrock": aws_errors}


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_each_means_what_it_says(refusal: Refusal):
    fault = CLASSIFY[refusal.wire].classify(refusal.status, refusal.headers, refusal.bytes)
    assert (fault.kind, fault.stops, fault.wait) == (refusal.kind, refusal.stops, refusal.wait), fault.message
    assert fault.retry is (refusal.kind in ("rate_limit", "server", "timeout"))


def test_each_names_its_source():
    assert all("#" in r.source or "/" in r.source or "." in r.source for r in REFUSALS)
    assert len({(r.source, r.bytes) for r in REFUSALS}) == len(REFUSALS)


#: A budget in OpenAI's shape that the body alone tells: an error within a 200 has no status of its own.
WITHIN_200 = [
    r for r in REFUSALS if r.wire == "openai" and r.kind == "quota" and isinstance(r.body, dict) and "error" in r.body and r.status != 412
]


@pytest.mark.parametrize("refusal", WITHIN_200, ids=str)
def test_a_budget_that_ends_within_a_200_is_one_too(refusal: Refusal):
    with pytest.raises(holynb.errors.Fault) as whole:
        openai.read(refusal.body)
    with pytest.raises(holynb.errors.Fault) as stream:
        openai.Chat().feed(sse(refusal.body))
    assert (whole.value.kind, stream.value.kind) == ("quota", "quota")


@pytest.mark.parametrize(
    "message",
    [
        "Upstream retry budget exhausted",
        "Rate limit: 20 requests per minute and 200 requests per day",
        "Maximum 100 credits per 1 hour or 400 credits per day",
        "The model is not available right now. Please try again later.",
        "max_tokens is larger than the thinking budget_tokens",
    ],
)
def test_words_that_only_sound_like_it_do_not_stop_a_run(message: str):
    for status in (400, 429, 500, 503):
        assert openai.classify(status, {}, json.dumps(error(message)).encode()).kind in ("bad_request", "rate_limit", "server", "not_found")
        assert not (status != 400 and openai.classify(status, {}, json.dumps(error(message)).encode()).stops)


@pytest.mark.parametrize("model", ["minimax/minimax-m2", "openai/gpt-4o-mini", "x/second-opinion"])
def test_the_name_of_a_model_is_no_span_of_time(model: str):
    said = f"Rate limit reached for {model}: free-models-per-day. https://x.ai/settings/limits"
    assert openai.classify(429, {}, json.dumps(error(said)).encode()).kind == "quota"
    assert openai.classify(429, {}, json.dumps(error(f"Rate limit reached for {model}/daily-1 per minute")).encode()).kind == "rate_limit"


def test_what_a_server_repeats_of_a_prompt_is_no_reason():
    asked = "余额不足: my budget has been exceeded and the credit balance is too low"
    detail = [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {"messages": [{"content": asked}]}}]
    fault = openai.classify(422, {}, json.dumps({"detail": detail}).encode())
    assert (fault.kind, fault.stops) == ("bad_request", False)
    assert "Field required" in fault.message
    told = f"[{{'type': 'missing', 'loc': ('body', 'model'), 'msg': 'Field required', 'input': {{'messages': '{asked}'}}}}]"
    fault = openai.classify(400, {}, json.dumps({"object": "error", "message": told, "type": "BadRequestError", "code": 400}).encode())
    assert (fault.kind, fault.stops) == ("bad_request", False)


#: One of each gateway, status and meaning.
RUNS = list({str(r): r for r in REFUSALS if r.wire == "openai" and r.stops}.values())


@pytest.fixture(autouse=True)
def a_slow_machine_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request has the endpoint to itself until it is answered, however late that is."""
    monkeypatch.setattr("holynb.scheduler.scheduler.VERIFY_WAIT_S", 30.0)


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("refusal", RUNS, ids=str)
def test_a_run_of_twenty_rows_sends_one_request(refusal: Refusal):
    with Exact([reply(refusal.body, refusal.status)]) as server:
        frame = _run(server)
        assert len(server.asked) == 1
    assert set(frame["error_type"]) == {refusal.kind}


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize(
    "body", [error("Invalid model name passed in model=gpt-4.1-mni", "400", "None"), error("Model Not Exist", "invalid_request_error")]
)
def test_a_model_that_the_gateway_does_not_have_is_answered_with_the_nearest(body: Any):
    with Exact([reply(body, 400)]) as server:
        frame = _run(server, model="gpt-4.1-mni")
    assert frame["error"][0].endswith("Did you mean openai/gpt-4.1-mini?")


@pytest.mark.usefixtures("keyed")
def test_a_route_whose_budget_is_crossed_is_left_for_the_next():
    crossed = next(r for r in REFUSALS if r.gateway == "litellm" and r.kind == "quota")
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}], "model": "other"}

    def script(request: Any, number: int) -> list[Any]:
        return [reply(crossed.body, crossed.status) if request.json["model"] == "gpt-4.1" else reply(answer)]

    with Exact(script) as server:
        run = holynb.infer(
            [f"row {i}" for i in range(20)], "openai/gpt-4.1", api_base=server.base, fallback="openai/gpt-4o", cache=False
        ).wait(60)
        asked = [r.json["model"] for r in server.asked]
    assert asked.count("gpt-4.1") == 1
    assert set(run.frame()["text"]) == {"well"}


def _run(server: Exact, model: str = "gpt-4.1-mini") -> Any:
    run = holynb.infer([f"row {i}" for i in range(20)], f"openai/{model}", api_base=server.base, cache=False, retries=2)
    with pytest.raises(holynb.InferError):
        run.wait(60)
    return run.frame()
