"""AWS's errors as Faults: names in headers, JSON or XML, and the error of the container inside a ModelError. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holynb.engines import codec, openai
from holynb.engines.classify import ErrorDetail, readable, to_fault
from holynb.errors import Fault

__all__ = ["classify"]

#: AWS's error names → the HTTP status of the same meaning.
_STATUSES: Mapping[str, int] = {
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "ModelNotReadyException": 503,
    "ServiceUnavailable": 503,
    "InternalFailure": 500,
    "InternalDependencyException": 503,
    "UnrecognizedClientException": 401,
    "InvalidSignatureException": 401,
    "SignatureDoesNotMatch": 401,
    "ExpiredTokenException": 401,
    "MissingAuthenticationTokenException": 401,
    "InvalidClientTokenId": 401,
    "AccessDeniedException": 401,
    "IncompleteSignature": 401,
    "InternalStreamFailure": 500,
    "ModelStreamError": 500,
}


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200. A ModelError is classified by the container's own status and message."""
    try:
        value = codec.loads(body)
    except ValueError:
        value = None
    value = value if isinstance(value, Mapping) else {"Message": readable(body)}
    kind = headers.get("x-amzn-errortype", "").split(":")[0] or _text(value.get("__type")).rpartition("#")[2] or _in_xml(body)
    message = next((m for name in ("OriginalMessage", "Message", "message") if (m := _text(value.get(name)))), "")
    status = openai.count(value.get("OriginalStatusCode")) or _STATUSES.get(kind, status)
    return to_fault(status, ErrorDetail(message, "", kind), headers, body)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else codec.excerpt(value).decode() if value else ""


def _in_xml(body: bytes) -> str:
    """The error code in the older XML format, which AWS's front ends still send."""
    match = re.search(rb"<Code>(\w+)</Code>", body)
    return match.group(1).decode() if match else ""
