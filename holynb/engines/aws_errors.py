"""AWS's errors as Faults: names in headers, JSON, XML or frames, a container's error inside a ModelError, and what to do next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holynb.engines import codec, openai
from holynb.engines.aws_frames import Frame
from holynb.engines.classify import ErrorDetail, readable, to_fault
from holynb.errors import Fault
from holynb.types import Endpoint

__all__ = ["advice", "classify", "of_frame"]

#: AWS's error names → the HTTP status of the same meaning. In a stream they begin with a small letter.
_STATUSES: Mapping[str, int] = {
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "ServiceQuotaExceededException": 429,
    "ModelNotReadyException": 503,
    "ServiceUnavailable": 503,
    "ServiceUnavailableException": 503,
    "InternalFailure": 500,
    "InternalServerException": 500,
    "InternalDependencyException": 503,
    "ValidationException": 400,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "UnrecognizedClientException": 401,
    "InvalidSignatureException": 401,
    "SignatureDoesNotMatch": 401,
    "ExpiredToken": 401,
    "ExpiredTokenException": 401,
    "RequestExpired": 401,
    "MissingAuthenticationTokenException": 401,
    "InvalidClientTokenId": 401,
    "AccessDenied": 401,
    "AccessDeniedException": 401,
    "IncompleteSignature": 401,
    "InternalStreamFailure": 500,
    "ModelStreamError": 500,
    "ModelErrorException": 500,
    "ModelStreamErrorException": 500,
}
#: What names no model that answers here, whatever the error's name. The apostrophe is AWS's.
_NO_MODEL = re.compile(
    r"on-demand throughput isn.t supported|model identifier is invalid|resolve the foundation model|use case details have not been submitted"
    r"|reached the end of its life|marked by provider as legacy",
    re.IGNORECASE,
)

#: Beginning of a region's name → the group of regions in the names of inference profiles.
#: docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html
_GROUPS = (("us-gov-", "us-gov"), ("us-", "us"), ("eu-", "eu"), ("ap-", "apac"))

# -- what to do next: the first that fits. What stands in braces is filled in.
_PROFILE = (
    "{provider} serves {model} through an inference profile only ({words}). Its name is the model's with a group of regions before it "
    "({provider}/{group}.{name}, {provider}/global.{name}); aws bedrock list-inference-profiles lists those of your region."
)
_FORM = (
    "{provider} requires a use-case form before {model} ({words}). Fill it in once for the account, in the Bedrock console under "
    "Model catalog."
)
_UNKNOWN = "{provider} has no model {model} in {region} ({words}). aws bedrock list-foundation-models lists those of a region."
_MARKETPLACE = (
    "{provider} could not subscribe to {model} for you ({words}). Let someone with AWS Marketplace rights call the model once, "
    "or add aws-marketplace:Subscribe and aws-marketplace:ViewSubscriptions to this role."
)
_NOT_GRANTED = (
    "{provider} does not let this account use {model} ({words}). Ask for access in the Bedrock console of {region} (Model catalog), "
    "or name another model."
)
_NOT_ALLOWED = (
    "The AWS keys are not allowed to do this ({words}). Add that action to the policy of the user or role, or set AWS_PROFILE to another."
)
_CLOCK = "{provider} refused the signature because of its time ({words}). Correct this machine's clock, and run the cell again."
_EXPIRED = "The AWS keys have expired ({words}). Sign in again (aws sso login) or set new ones, and run the cell again."
_BEARER = (
    "{provider} refused the key in {key} ({words}). It may have expired, or be one of another region than {region}. Get one at {page}, then "
    "set it with %infer key {provider}."
)
_REFUSED = "{provider} refused the AWS keys ({words}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY anew, or AWS_PROFILE to another."

_ADVICE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "not_found": ((r"on-demand throughput", _PROFILE), (r"use case details", _FORM), (r"model", _UNKNOWN)),
    "auth": (
        (r"aws-marketplace|marketplace (?:actions|subscription)", _MARKETPLACE),
        (r"don.t have access to the model|model access is denied|access to this model", _NOT_GRANTED),
        (r"not authorized to perform", _NOT_ALLOWED),
        (r"signature (?:expired|not yet current)|RequestExpired", _CLOCK),
    ),
}


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200. A ModelError is classified by the container's own status and message."""
    try:
        value = codec.loads(body)
    except ValueError:
        value = None
    named = isinstance(value, Mapping)
    value = value if isinstance(value, Mapping) else {"Message": readable(body)}
    kind = headers.get("x-amzn-errortype", "").split(":")[0] or _text(value.get("__type")).rpartition("#")[2] or _in_xml(body)
    # A 403 in words of AWS is about who asks; a firewall in front of it sends a page.
    meant = 401 if status == 403 and named else status
    return _fault(kind, value, meant, status, (headers, body))


def of_frame(frame: Frame) -> Fault:
    """The Fault of a frame that reports an exception within a 200."""
    try:
        value = codec.loads(frame.payload)
    except ValueError:
        value = None
    value = value if isinstance(value, Mapping) else {"Message": frame.message or readable(frame.payload)}
    return _fault(frame.error, value, frame.status, None, ({}, frame.payload))


def _fault(name: str, value: Mapping[str, Any], meant: int, sent: int | None, reply: tuple[Mapping[str, str], bytes]) -> Fault:
    """`meant`: the status where its name says none; `sent`: what the message shows, None within a stream; `reply`: headers and body."""
    kind = name[:1].upper() + name[1:]
    error = value.get("error")  # a gateway's shape, in the place of AWS's
    inner = error if isinstance(error, Mapping) else {}
    code, kind = (c if isinstance(c, str) else "" for c in (inner.get("code"), kind or inner.get("type")))
    value = {**inner, **value}
    message = next((m for f in ("OriginalMessage", "originalMessage", "Message", "message") if (m := _text(value.get(f)))), "")
    original = openai.count(value.get("OriginalStatusCode")) or openai.count(value.get("originalStatusCode"))
    meant = original or (404 if _NO_MODEL.search(message[:2000]) else _STATUSES.get(kind, meant))
    fault = to_fault(meant, ErrorDetail(message, code, kind), *reply)
    if sent is not None and original is None and sent != meant:
        fault.message = f"{sent}{fault.message.removeprefix(str(meant))}"  # the number that the server sent
    return fault


def advice(fault: Fault, endpoint: Endpoint, region: str, *, keyed: bool) -> str | None:
    """The message of a Fault with what to do next; None where AWS has no words of its own. `keyed`: by a bearer token."""
    if fault.status is None or fault.kind not in _ADVICE or (fault.kind == "not_found" and endpoint.wire != "bedrock"):
        return None
    words, sentence = fault.message, None
    if "ModelError" in words:  # a container's own refusal
        return f"{endpoint.route.provider} answered {words}"
    for pattern, template in _ADVICE[fault.kind]:
        if re.search(pattern, words, re.IGNORECASE):
            sentence = template
            break
    if sentence is None and fault.kind == "auth":
        sentence = _BEARER if keyed else _EXPIRED if "expired" in words.lower() else _REFUSED
    if sentence is None:
        return None
    return sentence.format(
        provider=endpoint.route.provider,
        model=endpoint.route.model,
        name=endpoint.route.model.rpartition("/")[2],
        words=words,
        region=region or "this region",
        group=next((g for start, g in _GROUPS if region.startswith(start)), "us"),
        key=endpoint.key_name,
        page=endpoint.key_page,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else codec.excerpt(value).decode() if value else ""


def _in_xml(body: bytes) -> str:
    """The error code in the older XML format, which AWS's front ends still send."""
    match = re.search(rb"<Code>(\w+)</Code>", body)
    return match.group(1).decode() if match else ""
