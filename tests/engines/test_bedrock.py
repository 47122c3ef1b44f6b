"""The Bedrock wire: what is sent and what is read against botocore's own client; signatures, bearer tokens, regions, refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from servers import aws, golden
from servers.asking import KEY, ask, endpoint, hear, refuse, request, run
from servers.exact import END, Asked, Exact, chunk, reply, stream_head
from servers.golden import BEDROCK, bedrock_delta, bedrock_error, bedrock_exception, bedrock_frame

import holynb
from holynb.engines import aws_hosted, bedrock
from holynb.errors import BadKey, BadSetting, Fault
from holynb.types import Endpoint, Usage

TOKEN = "session-" + KEY[::-1]
MODEL = "us.anthropic.claude-opus-4-6-v1"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-6-v1"
MODELS = (
    MODEL,
    "global.amazon.nova-2-lite-v1:0",
    "openai.gpt-oss-120b-1:0",
    PROFILE,
    "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-pro-v1:0",
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch)


def at(base: str, model: str = MODEL, **options: Any) -> Endpoint:
    page = "https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"
    return endpoint(base, "bedrock", model=model, key_name="AWS_BEARER_TOKEN_BEDROCK", key_page=page, key_optional=True, options=options)


def asked(model: str = MODEL, **options: Any) -> Any:
    return request(model=model, **options)


@contextmanager
def theirs(base: str) -> Iterator[Any]:
    client = boto3.client("bedrock-runtime", region_name="eu-west-1", endpoint_url=base, config=Config(retries={"total_max_attempts": 1}))
    try:
        yield client
    finally:
        client.close()


@lru_cache
def converse_shape() -> Any:
    service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
    return service.operation_model("Converse").input_shape


# -- what is sent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_address_and_body_are_those_of_boto3(model: str, stream: bool):
    messages = [("system", "Be brief."), ("user", "안녕?"), ("assistant", "hm \ud7ff"), ("user", "a"), ("user", "b")]
    sampling = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ("END", "\n\n"), "extra": {"top_k": 5}}
    call = {
        "modelId": model,
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "안녕?"}]},
            {"role": "assistant", "content": [{"text": "hm \ud7ff"}]},
            {"role": "user", "content": [{"text": "a\n\nb"}]},
        ],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["END", "\n\n"]},
        "additionalModelRequestFields": {"top_k": 5},
    }
    with Exact(BEDROCK.streamed() if stream else [reply(BEDROCK.whole)]) as server, theirs(server.base) as client:
        ask(at(server.base, model), asked(model, messages=messages, sampling=sampling, stream=stream), key=None)
        if stream:
            list(client.converse_stream(**call)["stream"])
        else:
            client.converse(**call)
        ours, boto = server.asked
    assert (ours.method, ours.path, ours.json) == (boto.method, boto.path, boto.json)
    assert ours.headers["content-type"] == boto.headers["content-type"] == "application/json"


EXTRAS: list[dict[str, Any]] = [
    {},
    {"top_k": 5, "anthropic_beta": ["x"]},
    {"maxTokens": 7, "topP": 0.5},
    {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "flex"}, "requestMetadata": {"team": "a"}},
    {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}, "outputConfig": {"effort": "low"}},
    {"additionalModelRequestFields": {"a": 1}, "inferenceConfig": {"maxTokens": 3}, "top_k": 2},
    {"toolConfig": {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}]}},
]


@pytest.mark.parametrize("think", [None, "off", "high", 4000])
@pytest.mark.parametrize("extra", EXTRAS, ids=lambda e: ",".join(e) or "none")
@pytest.mark.parametrize("model", MODELS[:3])
def test_every_body_is_a_request_of_converse(model: str, extra: dict[str, Any], think: Any):
    """By botocore's own check of the parameters: a field in the wrong place, or of the wrong type, is none."""
    sampling = {"max_tokens": 4096, "temperature": 0.5, "top_p": 0.5, "stop": ("x",), "extra": extra, "think": think}
    sent = asked(model, sampling=sampling, schema={"type": "object"})
    for traits in (frozenset(), frozenset({"no temperature", "no top_p", "no system", "no think"})):
        body = bedrock.body(sent, traits)
        assert ParamValidator().validate({"modelId": model, **body}, converse_shape()).generate_report() == ""


def test_where_a_parameter_goes():
    body = bedrock.body(asked(sampling={"max_tokens": 9, "extra": EXTRAS[5] | {"topP": 0.5}}))
    assert body["inferenceConfig"] == {"maxTokens": 3, "topP": 0.5}
    assert body["additionalModelRequestFields"] == {"a": 1, "top_k": 2}
    schema = {"type": "object", "properties": {"ü": {"type": "string"}}}
    both = bedrock.body(asked(schema=schema, sampling={"extra": EXTRAS[4]}))["outputConfig"]
    assert json.loads(both["textFormat"]["structure"]["jsonSchema"]["schema"]) == schema
    assert both["effort"] == "low"
    assert "inferenceConfig" not in bedrock.body(asked())
    assert "system" not in bedrock.body(asked(messages=[("system", " \n"), ("user", "a")]))


# -- signatures and tokens -------------------------------------------------------------------------------------------------


def signature_of(came: Asked, base: str, token: str | None = None) -> str:
    """What botocore signs for the request that came, with the same keys at the same moment."""
    names = came.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest("POST", base + came.path, headers={n: came.headers[n] for n in names if n != "host"}, data=came.body)
    again.context["timestamp"] = came.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(aws.ACCESS, KEY, token), "bedrock", "eu-west-1")
    return str(auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again))


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("model", MODELS)
def test_the_signature_is_botocores_own(model: str, token: str | None, monkeypatch: pytest.MonkeyPatch):
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    refused = bedrock_error(403, "InvalidSignatureException", "The request signature we calculated does not match")

    def checked(came: Asked, _: int) -> list[Any]:
        right = came.headers["authorization"].rpartition("Signature=")[2] == signature_of(came, server.base, token)
        return [reply(BEDROCK.whole) if right else refused]

    with Exact(checked) as server:
        assert ask(at(server.base, model), asked(model), key=None)[1].text == golden.TEXT
        came = server.asked[0].headers
        assert KEY not in str(came)
        assert came.get("x-amz-security-token") == token
        assert f"Credential={aws.ACCESS}/" in came["authorization"]
        assert "/eu-west-1/bedrock/aws4_request" in came["authorization"]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY[::-1])
        fault = refuse(at(server.base, model), asked(model), key=None)
    assert (fault.kind, fault.stops, "AWS_ACCESS_KEY_ID" in fault.message) == ("auth", True, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_bearer_token_needs_no_aws_keys(stream: bool, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with Exact(BEDROCK.streamed() if stream else [reply(BEDROCK.whole)]) as server:
        assert ask(at(server.base), asked(stream=stream))[1].text == golden.TEXT
        came = server.asked[0].headers
    assert came["authorization"] == f"Bearer {KEY}"
    assert not [name for name in came if name.startswith("x-amz")]


NO_BOTOCORE = """
import sys
sys.modules["botocore"] = None
sys.path.insert(0, {tests!r})
from servers.asking import ask, endpoint, request
from servers.exact import Exact
from servers.golden import BEDROCK, TEXT
from holynb.errors import BadRoute
with Exact(BEDROCK.streamed()) as server:
    where = endpoint(server.base, "bedrock", model="m", key_name="AWS_BEARER_TOKEN_BEDROCK", options={{"region": "eu-west-1"}})
    assert ask(where, request(stream=True, model="m"))[1].text == TEXT
    try:
        ask(where, request(model="m"), key=None)
    except BadRoute as exc:
        print(exc)
"""


def test_without_botocore_a_token_works_and_keys_say_what_is_missing():
    done = subprocess.run(
        [sys.executable, "-c", NO_BOTOCORE.format(tests=str(Path(__file__).parents[1]))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == (
        "bedrock/… signs its requests with botocore: pip install 'holynb[aws]', or set AWS_BEARER_TOKEN_BEDROCK, which needs no botocore.\n"
    )


def test_no_string_of_a_stream_tells_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    secrets = (KEY, TOKEN, aws.ACCESS)
    said = " ".join(secrets)
    frames = [
        bedrock_delta({"text": said}) + bedrock_frame("messageStop", {"stopReason": f"x {KEY}"}),
        bedrock_delta({"text": "x"}) + bedrock_exception("validationException", {"message": said}),
        bedrock_frame("messageStop", {"stopReason": "end_turn"})
        + bedrock_frame("metadata", {"trace": {"promptRouter": {"invokedModelId": said}}}),
    ]
    for data in frames:
        with Exact([stream_head(BEDROCK.kind), chunk(data), END]) as server:
            try:
                text = repr(ask(at(server.base), asked(stream=True), key=None))
            except Fault as fault:
                text = repr((fault.message, vars(fault)))
        assert not [s for s in secrets if s in text], text
        assert "***" in text


# -- regions ---------------------------------------------------------------------------------------------------------------


def address_of(where: Endpoint, key: str | None = KEY) -> str:
    async def found(engine: Any) -> str:
        await engine.ready(lambda text: None)
        return str(engine._url(asked(where.route.model), engine._wire))

    return str(run(found, where, key)).partition("/model/")[0]


@pytest.mark.parametrize("fips", [False, True])
@pytest.mark.parametrize(("service", "wire"), [("bedrock-runtime", "bedrock"), ("sagemaker-runtime", "sagemaker")])
def test_the_address_of_every_region_is_botocores(service: str, wire: str, fips: bool):
    from botocore.endpoint_provider import EndpointProvider

    from holynb.engines import sagemaker

    ours = {"bedrock": bedrock.SERVICE, "sagemaker": sagemaker.SERVICE}[wire]
    loader = Loader()
    rules = EndpointProvider(loader.load_service_model(service, "endpoint-rule-set-1"), loader.load_data("partitions"))
    regions = {r for p in loader.load_data("partitions")["partitions"] for r in p["regions"] if "-global" not in r}
    assert len(regions) > 30
    for region in sorted(regions):
        if fips and wire == "sagemaker" and not region.startswith(("us-east", "us-west", "us-gov")):
            continue  # named otherwise there
        found = rules.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=False).url
        assert ours.address(region, fips=fips) == found, region


@pytest.mark.parametrize("key", [KEY, None])
def test_which_region_is_asked(key: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    config = tmp_path / "config"
    config.write_text("[default]\nregion = us-west-1\n[profile work]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert address_of(at("", PROFILE.replace("eu-west-1", "us-east-2"), region="sa-east-1"), key) == (
        "https://bedrock-runtime.us-east-2.amazonaws.com"
    ), "a model's own region is the only one that has it"
    assert ".sa-east-1." in address_of(at("", region="sa-east-1"), key)
    assert ".eu-west-1." in address_of(at(""), key)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert ".us-west-1." in address_of(at(""), key)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert ".ap-south-1." in address_of(at(""), key)
    config.write_text("[profile work]\n")
    monkeypatch.setenv("AWS_REGION", "ca-central-1")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert address_of(at(""), key) == "https://bedrock-runtime-fips.ca-central-1.amazonaws.com"


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("region", ["evil.example/x", "x@evil.example", "EU", "a b"])
def test_a_region_that_would_lead_elsewhere_is_none(region: str, key: str | None, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadSetting, match="not the name of a region"):
        address_of(at("", PROFILE.replace("eu-west-1", region)), key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    with pytest.raises(BadSetting, match="not the name of a region"):
        address_of(at(""), key)


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for key in (KEY, None):
        with pytest.raises(BadSetting, match="AWS_DEFAULT_REGION"):
            address_of(at(""), key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BadKey, match=r"AWS_PROFILE, or AWS_BEARER_TOKEN_BEDROCK"):
        address_of(at(""), None)
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    with pytest.raises(BadKey, match=r"wrok.*AWS_PROFILE"):
        address_of(at(""), None)


def test_an_sso_session_that_has_ended_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    config = tmp_path / "config"
    config.write_text(
        "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x.example/start\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fault = refuse(at("http://127.0.0.1:9"), asked(), key=None)
    assert (fault.kind, fault.stops) == ("auth", True)
    assert "aws sso login" in fault.message


# -- what is read ----------------------------------------------------------------------------------------------------------


def test_boto3_reads_the_golden_stream_as_we_do():
    with Exact(BEDROCK.streamed()) as server, theirs(server.base) as client:
        events = list(client.converse_stream(modelId=MODEL, messages=[])["stream"])
        deltas, answer = ask(at(server.base), asked(stream=True), key=None)
    said = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    assert "".join(d["text"] for d in said if "text" in d) == "".join(deltas) == golden.TEXT
    counts = next(e["metadata"]["usage"] for e in events if "metadata" in e)
    assert answer.usage.tokens_in == sum(counts[k] for k in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"))
    assert counts["totalTokens"] == (answer.usage.tokens_in or 0) + (answer.usage.tokens_out or 0)


def test_boto3_reads_the_golden_answer_as_we_do():
    with Exact([reply(BEDROCK.whole)]) as server, theirs(server.base) as client:
        answer = client.converse(modelId=MODEL, messages=[])
        ours = ask(at(server.base), asked(), key=None)[1]
    assert ours.text == answer["output"]["message"]["content"][1]["text"]
    assert answer["stopReason"] == "end_turn"
    assert ours.finish_reason == "stop"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}, Usage(5, 2)),
        ({"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokens": 3, "cacheWriteInputTokens": 0}, Usage(8, 2, 3, 0)),
        ({"inputTokens": None, "outputTokens": "2", "cacheDetails": "x"}, Usage()),
        ({"inputTokens": 1, "outputTokens": 1, "cacheWriteInputTokens": 4, "cacheDetails": [{"ttl": "5m", "inputTokens": 4}, 3]},
         Usage(5, 1, None, 4)),
        (None, Usage()),
    ],
)  # fmt: skip
def test_tokens(counts: Any, expected: Usage):
    assert bedrock.usage(counts) == expected


def test_a_prompt_router_names_the_model_it_chose():
    trace = {"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1::foundation-model/x"}}
    assert bedrock.read({**BEDROCK.whole, "trace": trace}).model == trace["promptRouter"]["invokedModelId"]
    assert bedrock.read({**BEDROCK.whole, "trace": {"promptRouter": 3}}).model is None


EXCEPTIONS = [
    ("throttlingException", {"message": "Too many tokens, please wait before trying again."}, "rate_limit", True),
    ("throttlingException", {"message": "Too many tokens per day, please wait before trying again."}, "quota", False),
    ("modelStreamErrorException", {"message": "x", "originalStatusCode": 500, "originalMessage": "overloaded"}, "server", True),
    ("modelStreamErrorException", {"message": "Model produced invalid sequence as part of ToolUse"}, "server", True),
    ("modelStreamErrorException", {"message": "x", "originalStatusCode": 429, "originalMessage": "busy"}, "rate_limit", True),
    ("internalServerException", {"message": "x"}, "server", True),
    ("serviceUnavailableException", {"message": "x"}, "server", True),
    ("modelTimeoutException", {"message": "x"}, "timeout", True),
    ("validationException", {"message": "prompt is too long: 3 tokens > 2 maximum"}, "context_length", False),
    ("validationException", {"message": "odd"}, "bad_request", False),
]


@pytest.mark.parametrize(("name", "value", "kind", "again"), EXCEPTIONS)
def test_an_exception_within_a_stream(name: str, value: Any, kind: str, again: bool):
    data = bedrock_delta({"text": "half"}) + bedrock_exception(name, value)
    with Exact([stream_head(BEDROCK.kind), chunk(data), END]) as server:
        fault = refuse(at(server.base), asked(stream=True))
    assert (fault.kind, fault.retry) == (kind, again)


def test_an_error_of_the_stream_itself_is_in_its_headers():
    data = golden.frame(b"", message_type="error", error_code="InternalFailure", error_message="the machine broke")
    with Exact([stream_head(BEDROCK.kind), chunk(data), END]) as server:
        fault = refuse(at(server.base), asked(stream=True))
    assert (fault.kind, fault.retry) == ("server", True)
    assert "the machine broke" in fault.message


def test_what_was_thought_stands_beside_the_answer():
    with Exact(BEDROCK.streamed()) as server:
        assert ask(at(server.base), asked(stream=True))[1].reasoning == "hm"
    assert bedrock.read(BEDROCK.whole).reasoning == "hm"


REASONED = [
    ([{"redactedContent": "eA=="}], None),
    ([{"text": "[REDACTED]"}], None),
    ([{"text": "a"}, {"redactedContent": "eA=="}, {"text": "b"}], "a\n\nb"),
    ([{"signature": "s"}, 3, None], None),
]


@pytest.mark.parametrize(("pieces", "expected"), REASONED)
def test_thoughts_in_several_blocks_or_hidden(pieces: list[Any], expected: str | None):
    """Nova thinks in secret and says so in a word; Claude's older thoughts come encrypted."""
    blocks = [{"reasoningContent": {"reasoningText": p} if isinstance(p, dict) and "text" in p else p} for p in pieces]
    whole = bedrock.read({"output": {"message": {"content": [*blocks, {"text": "tea"}]}}, "stopReason": "end_turn"})
    reader = bedrock.Converse()
    reader.feed(b"".join(bedrock_delta({"reasoningContent": p}, block) for block, p in enumerate(pieces)))
    reader.feed(bedrock_delta({"text": "tea"}, 9) + bedrock_frame("messageStop", {"stopReason": "end_turn"}))
    for answer in (whole, reader.end()):
        assert (answer.text, answer.reasoning, answer.thinking) == ("tea", expected, True)


# -- refusals --------------------------------------------------------------------------------------------------------------

ADVICE = [
    (400, "ValidationException", (f"Invocation of model ID {MODEL[3:]} with on-demand throughput isn’t supported. Retry your request with the "
     "ID or ARN of an inference profile that contains this model."), "not_found",
     ["bedrock/eu.anthropic.claude-opus-4-6-v1", "bedrock/global.anthropic.claude-opus-4-6-v1", "list-inference-profiles"]),
    (400, "ValidationException", "The provided model identifier is invalid.", "not_found", ["no model", "list-foundation-models"]),
    (404, "ResourceNotFoundException", "Could not resolve the foundation model from the provided model identifier.", "not_found", ["eu-west-1"]),
    (404, "ResourceNotFoundException", ("Model use case details have not been submitted for this account. Fill out the Anthropic use case "
     "details form before using the model."), "not_found", ["Model catalog"]),
    (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", "auth", ["Ask for access", "eu-west-1"]),
    (403, "AccessDeniedException", "User: arn:aws:iam::1:user/u is not authorized to perform: bedrock:InvokeModel on resource: x", "auth",
     ["policy"]),
    (403, "AccessDeniedException", ("Model access is denied due to IAM user or service role is not authorized to perform the required AWS "
     "Marketplace actions (aws-marketplace:ViewSubscriptions, aws-marketplace:Subscribe)"), "auth", ["aws-marketplace:Subscribe"]),
    (403, "ExpiredTokenException", "The security token included in the request is expired", "auth", ["have expired", "aws sso login"]),
    (403, "UnrecognizedClientException", "The security token included in the request is invalid.", "auth", ["refused the AWS keys"]),
    (403, "InvalidSignatureException", "Signature expired: 20261129T000000Z is now earlier than 20261129T020000Z", "auth", ["clock"]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "name", "message", "kind", "words"), ADVICE)
def test_a_refusal_says_what_to_do_next(status: int, name: str, message: str, kind: str, words: list[str]):
    model = MODEL[3:] if "on-demand" in message else MODEL
    with Exact([bedrock_error(status, name, message)]) as server:
        fault = refuse(at(server.base, model), asked(model), key=None)
    assert (fault.kind, fault.stops, fault.retry) == (kind, True, False)
    assert [w for w in words if w not in fault.message] == [], fault.message
    assert f"{status} {name}" in fault.message, "the number that the server sent"


@pytest.mark.parametrize(
    "message", ["Authentication failed: Please make sure your API Key is valid.", "Bearer Token has expired", "Invalid API Key format"]
)
def test_a_refused_token_is_told_from_refused_keys(message: str):
    with Exact([reply({"Message": message}, 403)]) as server:
        fault = refuse(at(server.base), asked())
    assert (fault.kind, fault.stops) == ("auth", True)
    assert "refused the key in AWS_BEARER_TOKEN_BEDROCK" in fault.message
    assert "%infer key bedrock" in fault.message
    assert "api-keys.html" in fault.message


LEARNED = [
    ("This model doesn't support the temperature field. Remove temperature and try again.", "no temperature"),
    ("The model returned the following errors: `temperature` is deprecated for this model.", "no temperature"),
    ("The model returned the following errors: `temperature` and `top_p` cannot both be specified for this model. Please use only one.",
     "no topP"),
    ("This model doesn't support system messages. Try again without system messages or use a model that supports system messages.", "no system"),
    ("The model is unsupported for streaming.", "no stream"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "trait"), LEARNED)
def test_what_a_model_does_not_take_is_learned_once(message: str, trait: str):
    whole = trait == "no stream"

    def script(_: Asked, number: int) -> list[Any]:
        return (
            [bedrock_error(400, "ValidationException", message)] if number == 0 else [reply(BEDROCK.whole)] if whole else BEDROCK.streamed()
        )

    sampling = {"temperature": 0.5, "top_p": 0.5, "stop": ("x",)}
    sent = asked(messages=[("system", "Be brief."), ("user", "hi")], sampling=sampling, stream=True)
    with Exact(script) as server:
        fault = refuse(at(server.base), sent)
        assert (fault.kind, fault.retry, fault.wait) == ("bad_request", True, 0.0)
        assert ask(at(server.base), sent)[1].text == golden.TEXT
        first, second = server.asked
    if trait in ("no temperature", "no top_p"):
        assert {"temperature", "topP"} - set(second.json["inferenceConfig"]) == {{"no top_p": "topP"}.get(trait, "temperature")}
    assert second.json["inferenceConfig"]["stopSequences"] == ["x"]
    assert first.json["system"] == [{"text": "Be brief."}]
    if trait == "no system":
        assert "system" not in second.json
        assert second.json["messages"][0]["content"] == [{"text": "Be brief.\n\nhi"}]
    assert second.path.endswith("/converse" if whole else "/converse-stream")


def test_a_stop_sequence_is_never_left_out():
    message = "This model doesn't support the stopSequences field. Remove stopSequences and try again."
    with Exact([bedrock_error(400, "ValidationException", message)]) as server:
        fault = refuse(at(server.base), asked(sampling={"stop": ("x",)}))
    assert (fault.kind, fault.retry) == ("bad_request", False)


# -- service tiers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "word", "tier"), [(False, "flex", "flex"), (True, "flex", "flex"), (True, "default", "standard")])
def test_a_service_tier_is_asked_for_and_the_one_that_served_is_told(stream: bool, word: str, tier: str):
    where = at("", tiers={"flex": "flex", "standard": "default", "priority": "priority"})
    stop = golden.bedrock_frame("messageStop", {"stopReason": "end_turn"})
    last = golden.bedrock_frame("metadata", {"usage": {}, "serviceTier": {"type": word}})
    streamed = [stream_head(BEDROCK.kind), chunk(bedrock_delta({"text": "x"}) + stop + last), END]
    with Exact(streamed if stream else [reply({**BEDROCK.whole, "serviceTier": {"type": word}})]) as server:
        answer = ask(replace(where, base_url=server.base), asked(stream=stream, tiers=("flex",)))[1]
        sent = server.asked[0].json
    assert sent["serviceTier"] == {"type": "flex"}
    assert answer.tier == tier


# -- a run -----------------------------------------------------------------------------------------------------------------


def test_rows_with_a_schema_that_the_model_does_not_take_are_asked_in_words(monkeypatch: pytest.MonkeyPatch):
    """The first refusal is learned, the schema goes into the prompt, and every row is signed and answered."""
    refused = bedrock_error(400, "ValidationException", "This model doesn't support the outputConfig.textFormat field.")
    answer = {**BEDROCK.whole, "output": {"message": {"role": "assistant", "content": [{"text": '{"n": 7}'}]}}}

    def script(came: Asked, _: int) -> list[Any]:
        return [refused if "outputConfig" in came.json else reply(answer)]

    with Exact(script) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.base)
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        run_ = holynb.infer([f"row {i}" for i in range(3)], f"bedrock/{PROFILE}", schema=schema, cache=False, concurrency=1).wait(60)
        bodies = [a.json for a in server.asked]
    frame = run_.frame()
    assert list(frame["n"]) == [7, 7, 7]
    assert (list(frame["tokens_in"]), list(frame["tokens_cached"])) == ([20] * 3, [10] * 3)
    assert ["outputConfig" in b for b in bodies] == [True, False, False, False]
    assert '"n"' in bodies[1]["system"][0]["text"]


@pytest.mark.parametrize("later", [{}, {"metrics": {"latencyMs": 5}}, {"usage": {}}, {"usage": None}, {"usage": 5}])
def test_what_a_stream_cost_outlasts_a_later_event_that_says_less(later: dict[str, Any]):
    first = {"usage": {"inputTokens": 5, "outputTokens": 9}, "serviceTier": {"type": "flex"}}
    reader = bedrock.Converse()
    for name, event in (("messageStop", {"stopReason": "end_turn"}), ("metadata", first), ("metadata", later)):
        reader.on_event(name, event)
    assert (reader.usage, reader.tier) == (Usage(5, 9), "flex")


# -- a chain that gives no keys ------------------------------------------------------------------------------------------


def program(folder: Path, says: str) -> str:
    """A profile whose keys come from a program that says this."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{says}\nEOF\n")
    path.chmod(0o755)
    return f"credential_process = {path}"


@pytest.mark.parametrize(
    "says",
    [
        "no JSON",
        "[]",
        json.dumps({"Version": 1, "AccessKeyId": 5, "SecretAccessKey": 7}),
        json.dumps({"Version": 1, "AccessKeyId": None, "SecretAccessKey": KEY}),
        json.dumps({"Version": 1, "AccessKeyId": "AKIA\nx: y", "SecretAccessKey": KEY}),
        json.dumps({"Version": 1, "AccessKeyId": aws.ACCESS, "SecretAccessKey": KEY, "SessionToken": "토큰"}),
        json.dumps({"Version": 1, "AccessKeyId": aws.ACCESS, "SecretAccessKey": KEY, "Expiration": "soon"}),
        json.dumps({"Version": 1, "AccessKeyId": aws.ACCESS, "SecretAccessKey": KEY, "Expiration": "2001-01-01T00:00:00Z"}),
    ],
)
def test_a_program_that_gives_no_keys_is_no_fault_of_holynb(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    error = chain_error(program(tmp_path, says), tmp_path, monkeypatch)
    assert re.search(r"The AWS keys cannot be used \(.+\): set AWS_PROFILE", error), error
    assert KEY not in error


@pytest.mark.parametrize("text", ["credential_process = /nonexistent", "credential_process = 'unbalanced", "credential_process ="])
def test_a_program_that_does_not_start_is_said(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "The AWS keys cannot be used (" in chain_error(text, tmp_path, monkeypatch)


def test_a_role_that_may_not_be_assumed_and_a_token_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    role = "role_arn = arn:aws:iam::123456789012:role/x"
    error = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"
    with Exact([reply(error, 403, content_type="text/xml")]) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.base)
        assert "not authorized to perform: sts:AssumeRole" in chain_error(f"{role}\nsource_profile = other", tmp_path, monkeypatch)
    missing = chain_error(f"{role}\nweb_identity_token_file = /nonexistent", tmp_path, monkeypatch)
    assert "No such file or directory: '/nonexistent'" in missing


def test_a_program_that_does_not_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aws_hosted, "FETCH_S", 0.2)
    assert "did not come within 0.2 s" in chain_error("credential_process = sleep 1", tmp_path, monkeypatch)


def test_whoever_has_the_keys_may_be_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys of a role that end in the middle of a run, while STS cannot be reached: rows are tried again, and the run goes on."""
    from botocore.exceptions import EndpointConnectionError

    def away(self: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://sts.eu-west-1.amazonaws.com")

    monkeypatch.setattr(Credentials, "get_frozen_credentials", away)
    fault = refuse(at("http://127.0.0.1:9"), asked(), key=None)
    assert (fault.kind, fault.retry, fault.stops) == ("connection", True, False)


def chain_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run says whose profile is this."""
    config = tmp_path / "config"
    config.write_text(f"[profile p]\n{text}\n[profile other]\naws_access_key_id = {aws.ACCESS}\naws_secret_access_key = {KEY}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "p")

    async def begin(engine: Any) -> None:
        await engine.ready(print)
        await hear(engine, asked())

    with Exact([reply(BEDROCK.whole)]) as server:
        with pytest.raises((BadKey, Fault)) as caught:
            run(begin, at(server.base), key=None)
        assert server.asked == []
    if isinstance(caught.value, Fault):
        assert (caught.value.kind, caught.value.stops) == ("auth", True)
    return str(caught.value)
