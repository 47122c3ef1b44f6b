"""The SageMaker wire: signatures against botocore's own client, frames cut anywhere, and containers that speak differently."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.loaders import Loader
from servers import aws, golden
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import END, Exact, chunk, reply, stream_head

from holynb import engines
from holynb.engines import finish, sagemaker
from holynb.errors import BadKey, BadSetting
from holynb.types import Completion, Endpoint, Usage

REGION = {"region": "eu-west-1"}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch, region=None)


def at(server: Exact, **options: Any) -> Endpoint:
    return endpoint(server.base, "sagemaker", model="my-endpoint", key_name=None, options=REGION | options)


def build_request(**options: Any) -> Any:
    return request(model="my-endpoint", **options)


def theirs(server: Exact) -> Any:
    return boto3.client(
        "sagemaker-runtime", region_name="eu-west-1", endpoint_url=server.base, config=Config(retries={"total_max_attempts": 1})
    )


# -- out -----------------------------------------------------------------------------------------------------------------


def test_the_address_is_the_one_boto3_uses():
    with Exact([reply(golden.SAGEMAKER.whole)]) as server:
        answer = json.loads(
            theirs(server).invoke_endpoint(EndpointName="my-endpoint", ContentType="application/json", Body=b"{}")["Body"].read()
        )
        ours = ask(at(server), build_request())[1]
        first, second = server.asked
    assert (first.method, first.path) == (second.method, second.path) == ("POST", "/endpoints/my-endpoint/invocations")
    assert ours.text == answer["choices"][0]["message"]["content"]


def test_the_signature_is_botocores_own():
    """Signed anew by botocore with the same moment, the same request has the same signature."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    with Exact([reply(golden.SAGEMAKER.whole)]) as server:
        ask(at(server, headers={"X-Amzn-SageMaker-Target-Variant": "blue"}), build_request())
        came = server.asked[0]
    signature = came.headers["authorization"]
    assert signature.startswith(f"AWS4-HMAC-SHA256 Credential={aws.ACCESS}/")
    assert "/eu-west-1/sagemaker/aws4_request" in signature
    names = signature.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date", "x-amzn-sagemaker-target-variant"} <= set(names)
    again = AWSRequest(
        "POST", server.base + came.path, headers={n: came.headers[n] for n in names if n not in ("host", "x-amz-date")}, data=came.body
    )
    again.context["timestamp"] = came.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(aws.ACCESS, KEY), "sagemaker", "eu-west-1")
    again.headers["X-Amz-Date"] = came.headers["x-amz-date"]
    canonical = auth.canonical_request(again)
    assert auth.signature(auth.string_to_sign(again, canonical), again) == signature.rpartition("Signature=")[2]


def test_the_secret_never_leaves():
    with Exact([reply(golden.SAGEMAKER.whole)]) as server:
        ask(at(server), build_request())
        assert KEY not in str(server.asked[0].headers)


def test_tgi_and_own_templates():
    payload = {"max_tokens": 9, "temperature": 0.5}
    tgi = sagemaker.wire(endpoint("", "sagemaker", options={"schema": "tgi"})).body(
        build_request(messages=[("system", "Be brief."), ("user", "hi")], sampling=payload), frozenset()
    )
    assert tgi == {"inputs": "Be brief.\n\nhi", "parameters": {"max_new_tokens": 9, "temperature": 0.5, "details": True}}
    own = {"request": {"text": "$prompt", "who": "$system", "n": "$max_tokens", "keep": 3, "all": ["$messages"]}, "response": "out.0.text"}
    body = sagemaker.wire(endpoint("", "sagemaker", options=own)).body(
        build_request(messages=[("system", "s"), ("user", "hi")], stream=True), frozenset()
    )
    assert body == {
        "text": "hi",
        "who": "s",
        "keep": 3,
        "all": [[{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]],
        "stream": True,
    }
    assert "model" not in sagemaker.wire(endpoint("", "sagemaker")).body(build_request(), frozenset())


@pytest.mark.parametrize("options", [{"schema": "tgj"}, {"request": "text"}])
def test_options_that_are_wrong_are_named(options: dict[str, Any]):
    with pytest.raises(BadSetting, match=r"provider\.sagemaker\.options"):
        engines.connect(endpoint("", "sagemaker", options=options), lambda: None)


def test_no_keys_and_no_region_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    where = endpoint("", "sagemaker", options={})
    with pytest.raises(BadSetting, match="AWS_DEFAULT_REGION"):
        ask(where, build_request())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BadKey, match="AWS_PROFILE"):
        ask(where, build_request())


# -- in ------------------------------------------------------------------------------------------------------------------


def test_boto3_reads_the_golden_stream():
    with Exact(golden.SAGEMAKER.streamed()) as server:
        stream = theirs(server).invoke_endpoint_with_response_stream(EndpointName="my-endpoint", Body=b"{}")["Body"]
        parts = b"".join(event["PayloadPart"]["Bytes"] for event in stream)
        assert server.asked[0].path == "/endpoints/my-endpoint/invocations-response-stream"
    assert parts == golden.OPENAI.stream


def tgi(text: str, **more: Any) -> dict[str, Any]:
    return {"index": 1, "token": {"id": 1, "text": text, "logprob": 0.0, "special": False}, "generated_text": None, "details": None} | more


LAST = tgi("!", generated_text="hello!", details={"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 5})


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_containers_of_tgi_stream_events_or_lines(lines: bool, size: int):
    events = [tgi("hel"), tgi("lo"), tgi("<s>", token={"text": "<s>", "special": True}), LAST]
    data = b"".join(json.dumps(e).encode() + b"\n" for e in events) if lines else golden.sse(*events)
    with Exact([stream_head(golden.SAGEMAKER.kind), chunk(golden.frames(data, size)), END]) as server:
        deltas, answer = ask(at(server, schema="tgi"), build_request(stream=True))
    assert "".join(deltas) == answer.text == "hello!"
    assert (answer.finish_reason, answer.usage) == ("stop", Usage(5, 2))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_lines_of_an_own_container(end: bytes):
    data = b'{"out": [{"text": "a"}]}\n{"other": 1}\n{"out": [{"text": "b"}]}' + end
    with Exact([stream_head(golden.SAGEMAKER.kind), chunk(golden.frames(data, 9)), END]) as server:
        answer = ask(at(server, request={"x": "$prompt"}, response="out.0.text"), build_request(stream=True))[1]
    assert (answer.text, answer.finish_reason) == ("ab", "unknown")


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({"schema": "tgi"}, [{"generated_text": "hi"}], Completion("hi", "unknown")),
        (
            {"schema": "tgi"},
            {"generated_text": "hi", "details": {"finish_reason": "length", "generated_tokens": 3, "prefill": [{}, {}]}},
            Completion("hi", "length", None, Usage(2, 3)),
        ),
        ({"request": {}, "response": "outputs.1.text"}, {"outputs": [{}, {"text": "hi"}]}, Completion("hi", "unknown")),
    ],
)
def test_whole_answers_of_other_containers(options: dict[str, Any], value: Any, expected: Completion):
    with Exact([reply(value)]) as server:
        assert ask(at(server, **options), build_request())[1] == expected


def test_no_text_where_it_should_be():
    with Exact([reply({"outputs": []})]) as server:
        fault = refuse(at(server, request={}, response="outputs.1.text"), build_request())
    assert "no text at outputs.1.text" in fault.message


@pytest.mark.parametrize(
    ("headers", "payload", "kind"),
    [
        ({"message_type": "exception", "exception_type": "ModelStreamError"}, {"Message": "broken", "ErrorCode": "StreamBroken"}, "server"),
        ({"message_type": "exception", "exception_type": "InternalStreamFailure"}, {"Message": "x"}, "server"),
        ({"message_type": "exception", "exception_type": "ThrottlingException"}, {"Message": "x"}, "rate_limit"),
    ],
)
def test_frames_that_are_errors(headers: dict[str, str], payload: dict[str, str], kind: str):
    data = golden.frames(golden.OPENAI.stream[:300]) + golden.frame(json.dumps(payload).encode(), **headers)
    with Exact([stream_head(golden.SAGEMAKER.kind), chunk(data), END]) as server:
        fault = refuse(at(server), build_request(stream=True))
    assert (fault.kind, fault.retry) == (kind, True)


def test_a_frame_with_a_wrong_checksum():
    broken = golden.SAGEMAKER.stream[:40] + b"X" + golden.SAGEMAKER.stream[41:]
    with Exact([stream_head(golden.SAGEMAKER.kind), chunk(broken), END]) as server:
        fault = refuse(at(server), build_request(stream=True))
    assert (fault.kind, fault.retry) == ("server", True)
    assert "broken" in fault.message


@pytest.mark.parametrize(
    ("status", "kind", "value", "ours"),
    [
        (400, "ValidationError", {"message": "Endpoint my-endpoint of account 1 not found."}, "bad_request"),
        (403, "InvalidSignatureException", {"message": "The request signature we calculated does not match"}, "auth"),
        (403, "ExpiredTokenException", {"message": "The security token included in the request is expired"}, "auth"),
        (429, "ModelNotReadyException", {"Message": "warming up"}, "server"),
        (503, "ServiceUnavailable", {"Message": "x"}, "server"),
        (530, "InternalDependencyException", {"Message": "x"}, "server"),
        (424, "ModelError", {"OriginalStatusCode": 429, "OriginalMessage": "busy"}, "rate_limit"),
        (424, "ModelError", {"OriginalStatusCode": 500, "OriginalMessage": "CUDA out of memory"}, "oom"),
    ],
)
def test_refusals(status: int, kind: str, value: Any, ours: str):
    with Exact([reply(value, status, x_amzn_errortype=kind)]) as server:
        assert refuse(at(server), build_request()).kind == ours


def test_what_a_server_says_of_a_signature_shows_no_key():
    words = f"The Canonical String for this request should have been 'POST {KEY} {aws.ACCESS}'"
    with Exact([reply({"message": words}, 403, x_amzn_errortype="InvalidSignatureException")]) as server:
        fault = refuse(at(server), build_request())
    assert aws.ACCESS not in fault.message + (fault.raw or "")


@pytest.mark.parametrize(
    ("status", "kind", "value", "words"),
    [
        (403, "ExpiredTokenException", {"message": "The security token included in the request is expired"}, "aws sso login"),
        (403, "UnrecognizedClientException", {"message": "The security token included in the request is invalid."}, "refused the AWS keys"),
        (403, "AccessDeniedException", {"message": "User: u is not authorized to perform: sagemaker:InvokeEndpoint"}, "to the policy"),
        (424, "ModelError", {"OriginalStatusCode": 401, "OriginalMessage": "no token"}, "sagemaker answered 401 ModelError: no token"),
    ],
)
def test_whose_keys_were_refused_is_said(status: int, kind: str, value: Any, words: str):
    """They are AWS's, which no %infer key sets; or those of a container, which AWS passes on."""
    with Exact([reply(value, status, x_amzn_errortype=kind)]) as server:
        fault = refuse(at(server), build_request())
    assert (fault.kind, words in fault.message, "%infer key" in fault.message) == ("auth", True, False)


def test_every_stop_reason_of_bedrock_has_a_meaning():
    """Gateways in front of it pass its words on."""
    words = Loader().load_service_model("bedrock-runtime", "service-2")["shapes"]["StopReason"]["enum"]
    assert "content_filtered" in words
    assert [w for w in words if w not in {**finish.ANTHROPIC, **finish.BEDROCK}] == []
