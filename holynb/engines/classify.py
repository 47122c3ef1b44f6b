"""Error classification: from status, code, type and message to one Fault. One taxonomy for all wires. Pure.

The order matters: credit and keys first (they stop the run), then errors that are not retryable, then retryable ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

from holynb.engines import quotas
from holynb.errors import Fault

__all__ = ["ErrorDetail", "malformed", "readable", "to_fault"]

_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_error",
        "enforced_spend_limit_reached",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
)
_QUOTA = re.compile(
    r"insufficient[ _](?:user[ _])?(?:quota|balance|credits?|funds)|credit balance|spend(?:ing)? limit|out of credits|not enough credits"
    r"|余额不足|额度不足|欠费",
    re.IGNORECASE,
)
_AUTH_CODES = frozenset(
    {"invalid_api_key", "authentication_error", "api_key_invalid", "invalid_authentication", "unauthorized", "unauthenticated"}
)
_AUTH = re.compile(
    r"(?:invalid|incorrect|wrong|expired|no) api[ _-]?key|api[ _-]?key\b.{0,30}(?:not valid|invalid|expired|missing)", re.IGNORECASE
)
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "request_too_large"})
_CONTEXT = re.compile(
    r"context[ _-]?(?:length|window|size)|prompt is too long|token count.{0,40}exceeds|(?:input|prompt)\b.{0,40}\btoo (?:long|large)"
    r"|too many (?:input |prompt )?tokens|reduce the length",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation_blocked", "sensitive_words_detected"}
)
_FILTER = re.compile(r"content (?:management )?policy|content[ _-]filter|\bflagged\b|safety system|moderation", re.IGNORECASE)
_NO_MODEL_CODES = frozenset({"model_not_found", "deploymentnotfound", "not_found_error", "model_not_available"})
_NO_MODEL = re.compile(
    r"\bmodels?\b.{0,100}(?:not found|does not exist|not available|not supported|no longer)|no such model|unknown model", re.IGNORECASE
)
_OOM = re.compile(r"out of memory|\bOOM\b", re.IGNORECASE)
#: "Limit 30000, Requested 39252": no wait makes such a request fit.
_REQUESTED = re.compile(r"limit:? ?([\d,]+).{0,40}?requested:? ?([\d,]+)", re.IGNORECASE | re.DOTALL)
_TOO_LARGE = re.compile(r"request too large|must be reduced", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The fields of an error, independent of its wire's JSON. `code` and `type` as sent."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""

    @property
    def codes(self) -> set[str]:
        return {self.code.lower(), self.type.lower()}


def to_fault(status: int, detail: ErrorDetail, headers: Mapping[str, str], body: bytes = b"") -> Fault:
    """The Fault for an error. `status` is the HTTP status, or the one named by an error inside a 200."""
    wait = quotas.wait(headers)
    if wait is None and status == 429:
        wait = quotas.retry_in_words(detail.message)
    kind, options = _kind(status, detail)
    if (should_retry := headers.get("x-should-retry", "").lower()) in ("true", "false") and not options.get("stops"):
        options["retry"] = should_retry == "true"
    words = " ".join(detail.message.split())[:300] or detail.code or detail.type or "no reason given"
    label = f" {detail.code or detail.type}" if (detail.code or detail.type) and not (detail.code or detail.type).isdigit() else ""
    raw = body.decode("utf-8", "replace")[:2000] or None
    return Fault(kind, f"{status}{label}: {words}", status=status, wait=wait, raw=raw, **options)


def _kind(status: int, detail: ErrorDetail) -> tuple[str, dict[str, Any]]:
    """One of errors.KINDS, and the Fault's options (`stops`, `retry`)."""
    codes, words = detail.codes, detail.message
    if status == 402 or codes & _QUOTA_CODES or (status in (400, 403, 429) and (_QUOTA.search(words) or _QUOTA.search(detail.code))):
        return "quota", {"stops": True}
    if status == 401 or codes & _AUTH_CODES or (status in (400, 403) and _AUTH.search(words)):
        return "auth", {"stops": True}
    if _filtered(status, detail):
        return "content_filter", {}
    if _too_long(status, detail):
        return "context_length", {}
    if status == 429 or codes & {"rate_limit_exceeded", "rate_limit_error"}:
        return "rate_limit", {}
    if status == 404 or codes & _NO_MODEL_CODES or (status in (400, 403) and _NO_MODEL.search(words)):
        return "not_found", {"stops": True}
    if status == 403:
        # A firewall in front of the server may dislike one prompt; the server's own 403 is about the key.
        return ("auth", {"stops": True}) if detail.code or detail.type or detail.param else ("bad_request", {})
    if _OOM.search(words):
        return "oom", {}
    if status in (408, 504, 524):
        return "timeout", {}
    if status >= 500 or status in (409, 425) or status < 400:
        return "server", {"retry": False} if status in (501, 505) else {}
    return "bad_request", {}


def _filtered(status: int, detail: ErrorDetail) -> bool:
    return bool(detail.codes & _FILTER_CODES) or (status in (400, 403, 451) and _FILTER.search(detail.message) is not None)


def _too_long(status: int, detail: ErrorDetail) -> bool:
    if status == 413 or detail.codes & _CONTEXT_CODES:
        return True
    if status == 429:
        match = _REQUESTED.search(detail.message)
        larger = match is not None and _number(match.group(2)) > _number(match.group(1))
        return larger or _TOO_LARGE.search(detail.message) is not None
    return (status in (400, 422) or status >= 500) and _CONTEXT.search(detail.message) is not None


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def malformed(body: bytes, why: str) -> Fault:
    """The Fault for a reply that does not parse: HTML, half a JSON, another protocol. A retry may reach a healthy gateway."""
    excerpt = readable(body)
    return Fault("server", f"{why}: {excerpt}" if excerpt else why, raw=body.decode("utf-8", "replace")[:2000] or None)


def readable(body: bytes) -> str:
    """The text of an HTML page or a plain body, on one line, cut short."""
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text:
        text = unescape(_TAG.sub(" ", text))
    return " ".join(text.split())[:200]
