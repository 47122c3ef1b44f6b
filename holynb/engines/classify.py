"""Error classification: from status, code, type and message to one Fault. One taxonomy for all wires. Pure.

What a server says in a code counts before what it says in words, and words count only where they are phrases that real servers use
(`tests/servers/refusals.py` has them, with their sources). The order matters: credit and keys first (they stop the run), then errors that
are not retryable, then retryable ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

from holynb.engines import quotas
from holynb.errors import Fault

__all__ = ["ErrorDetail", "malformed", "readable", "to_fault"]

#: Money, a budget or an allowance that is gone. Neither a retry nor a short wait brings it back.
_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "insufficient_user_quota",
        "pre_consume_token_quota_failed",
        "insufficient_balance",
        "not_enough_balance",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_error",
        "enforced_spend_limit_reached",
        "billing_hard_limit_reached",
        "billing_not_active",
        "budget_exceeded",
        "exceeded_current_quota_error",
        "arrearage",
        "allocationquota.freetieronly",
        "accountoverdueerror",
        "openrouter_credits",
        "openrouter_key_limit",
        "openrouter_guardrail_budget",
        "openrouter_workspace_budget",
        "openrouter_free_tier_daily",
    }
)
_QUOTA = re.compile(
    r"insufficient[ _](?:user[ _]|account[ _]|paid[ _])?(?:quota|balance|credits?|funds)"
    r"|\b(?:balance|credits?|quota) (?:is|are) (?:insufficient|not enough|too low)|credit balance|user quota is not enough"
    r"|\bspend(?:ing)? (?:limit|cap|budget)|billing hard limit|specified (?:API |workspace )?usage limits|\bkey limit exceeded"
    r"|out of call volume quota|out of credits|not enough credits|requires more credits|all (?:available )?credits|credit limit exceeded"
    r"|\bbudget has been exceeded|\bexceeded budget|\bcrossed budget|\bExceededBudget\b|\bproxy budget exceeded|\bmax budget\b|\bbudget limit exceeded"
    r"|余额不足|额度(?:不足|已?用[尽完]|已?耗尽)|额度失败|配额(?:不足|已?用[尽完])|欠费|请充值",
    re.IGNORECASE,
)
#: A limit of a day or a month, which no pause within a run outlasts; and of a minute or an hour, which a pause does.
_LONG = re.compile(
    r"(?<![a-z])per[ _-](?:day|month|86400 ?s)|/ ?(?:day|month)\b|\b(?:daily|monthly)\b|\b(?:RPD|TPD)\b|ByDay\b|每[天日月]|[当今本][天日月]",
    re.IGNORECASE,
)
_SHORT = re.compile(
    r"(?<![a-z])per[ _-](?:\d+ )?(?:min|hour|sec)|/ ?(?:min(?:ute)?|hour|sec(?:ond)?|s)(?![\w-])|\b[IO]?(?:RPM|TPM)\b|ByMinute|PerMinute|每(?:分钟|小时|秒)",
    re.IGNORECASE,
)
#: OpenRouter's name for a limit on what is in flight: it passes as the requests end.
_IN_FLIGHT = "openrouter_in_flight_budget"
_RATE_CODES = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limit_reached_error",
        "rate_limited",
        "ratelimitreached",
        "throttling_error",
        "too_many_requests",
        _IN_FLIGHT,
    }
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
_NO_MODEL_CODES = frozenset(
    {
        "model_not_found",
        "deploymentnotfound",
        "not_found_error",
        "model_not_available",
        "invalid_model",
        *(f"{who}_model_access_denied" for who in ("key", "team", "user", "org", "project")),
    }
)
_NO_MODEL = re.compile(
    r"\bmodels?\b.{0,100}(?:not found|does not exist|not available|not supported|no longer)|no such model|unknown model", re.IGNORECASE
)
#: Phrases that mean it whatever the status: gateways send them with 400, 422 and 503.
_NO_SUCH_MODEL = re.compile(
    r"\binvalid model(?: name)?\b|\bnot a valid model id\b|\bmodel not exist\b|\bmodel identifier is invalid|no healthy deployments for this model"
    r"|no 'model_name' with this string|模型不存在|对于模型.{0,100}无可用渠道|模型.{0,100}可用渠道不存在",
    re.IGNORECASE,
)
#: llama.cpp and Hugging Face, which listen before their model is loaded.
_LOADING = re.compile(r"\bloading model\b|\bmodel\b.{0,80}\bloading\b", re.IGNORECASE)
_OOM = re.compile(r"out of memory|\bOOM\b", re.IGNORECASE)
#: "Limit 30000, Requested 39252": no wait makes such a request fit.
_REQUESTED = re.compile(r"limit:? ?([\d,]+).{0,40}?requested:? ?([\d,]+)", re.IGNORECASE | re.DOTALL)
_TOO_LARGE = re.compile(r"request too large|must be reduced", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


_INPUT = re.compile(r"['\"]input['\"]:")
#: As much of a message is looked at: a body of megabytes would take the patterns seconds.
MAX_MESSAGE_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The fields of an error, independent of its JSON. `code` and `type` as sent; `source`: whose limit it was, as OpenRouter says."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    source: str = ""

    @property
    def codes(self) -> set[str]:
        return {self.code.lower(), self.type.lower(), self.source.lower()}


def to_fault(status: int, detail: ErrorDetail, headers: Mapping[str, str], body: bytes = b"") -> Fault:
    """The Fault for an error. `status` is the HTTP status, or the one named by an error inside a 200."""
    # From `input` on, a message of vLLM or FastAPI repeats the request, in which a prompt may say anything.
    message = detail.message[:MAX_MESSAGE_CHARS]
    judged = replace(detail, message=_INPUT.split(message, maxsplit=1)[0])
    wait = quotas.wait(headers)
    if wait is None and status == 429:
        wait = quotas.retry_in_words(judged.message)
    kind, options = _kind(status, judged, wait)
    if (should_retry := headers.get("x-should-retry", "").lower()) in ("true", "false") and not options.get("stops"):
        options["retry"] = should_retry == "true"
    if status == 503 and _LOADING.search(judged.message):
        options["unreachable"] = True
    words = " ".join(message.split())[:300] or detail.code or detail.type or "no reason given"
    label = f" {detail.code or detail.type}" if (detail.code or detail.type) and not (detail.code or detail.type).isdigit() else ""
    raw = body[:8000].decode("utf-8", "replace")[:2000] or None
    return Fault(kind, f"{status}{label}: {words}", status=status, wait=wait, raw=raw, **options)


def _kind(status: int, detail: ErrorDetail, wait: float | None) -> tuple[str, dict[str, Any]]:
    """One of errors.KINDS, and the Fault's options (`stops`, `retry`)."""
    codes, words = detail.codes, detail.message
    if _no_credit(status, detail):
        return "quota", {"stops": True}
    if codes & _NO_MODEL_CODES:  # before the status: some gateways refuse a model with 401
        return "not_found", {"stops": True}
    if status == 401 or codes & _AUTH_CODES or (status in (400, 403) and _AUTH.search(words)):
        return "auth", {"stops": True}
    if _filtered(status, detail):
        return "content_filter", {}
    if _too_long(status, detail):
        return "context_length", {}
    if status == 429 or codes & _RATE_CODES:
        return ("quota", {"stops": True}) if _lasting(words, wait) else ("rate_limit", {})
    if status == 404 or _NO_SUCH_MODEL.search(words) or (status in (400, 403) and _NO_MODEL.search(words)):
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


def _no_credit(status: int, detail: ErrorDetail) -> bool:
    """Whether money, a budget or an allowance is gone. 412 is Portkey's status for that."""
    codes = detail.codes
    if codes & _QUOTA_CODES:
        return True
    if codes & (_CONTEXT_CODES | _FILTER_CODES | {_IN_FLIGHT}):
        return False  # words about credit are not the reason there
    return status in (402, 412) or _QUOTA.search(detail.message) is not None or _QUOTA.search(detail.code) is not None


def _lasting(words: str, wait: float | None) -> bool:
    """Whether a rate limit is one of a day or longer: by its name, where no shorter one is named, or by its wait."""
    if wait is not None and wait > quotas.LASTING_S:
        return True
    if "PerDay" in words:  # Google's names of quotas, where those of a minute may stand beside them
        return True
    return _LONG.search(words) is not None and _SHORT.search(words) is None


def _filtered(status: int, detail: ErrorDetail) -> bool:
    # 446 is Portkey's status for a guardrail that denied the request.
    return status == 446 or bool(detail.codes & _FILTER_CODES) or (status in (400, 403, 451) and _FILTER.search(detail.message) is not None)


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


def malformed(body: bytes, why: str, *, retry: bool = True) -> Fault:
    """The Fault for a reply that does not parse: HTML, half a JSON, another protocol. A retry may reach a healthy gateway."""
    excerpt = readable(body)
    raw = body[:8000].decode("utf-8", "replace")[:2000] or None
    return Fault("server", f"{why}: {excerpt}" if excerpt else why, raw=raw, retry=retry)


def readable(body: bytes) -> str:
    """The text of an HTML page or a plain body, on one line, cut short."""
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text:
        text = unescape(_TAG.sub(" ", text))
    return " ".join(text.split())[:200]
