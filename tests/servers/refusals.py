"""What real gateways and servers say when they refuse: one row per refusal, with where its text was read.

The texts are as sent, but for names of accounts and keys; where a page tells only a status, a code or a phrase, the rest of the body is of that
gateway's shape. No page of HolySheep's tells its refusals: its rows are those of its kind. `source` is an issue (`owner/repository#number`), a
file of a repository, or a page of documentation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["REFUSALS", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """One refusal and what it means. `wait`: seconds until the next attempt, None where the server names none."""

    gateway: str
    source: str
    status: int
    body: Any
    kind: str
    wait: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: str = "openai"

    @property
    def stops(self) -> bool:
        """Whether one request is enough: nothing that is sent here can succeed."""
        return self.kind in ("quota", "auth", "not_found")

    @property
    def bytes(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False).encode()

    def __str__(self) -> str:
        return f"{self.gateway}-{self.status}-{self.kind}"


def error(message: Any, code: Any = None, type: str | None = None, param: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code, **more}}


def gemini(code: int, status: str, message: str, *details: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def anthropic(type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_011CZLrUfBVkVHn5T6EqQaf7"}


def exhausted(*quotas: str, delay: str | None = None) -> tuple[Mapping[str, Any], ...]:
    """The details of Gemini's RESOURCE_EXHAUSTED."""
    failure = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
            {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests", "quotaId": quota} for quota in quotas
        ],
    }
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    return (failure, retry) if delay else (failure,)


_LITELLM_BUDGET = (
    "No deployments available - crossed budget: Exceeded budget for deployment model_name: gpt-4o, litellm_params.model: openai/gpt-4o, "
    "model_id: 0f3c: 0.36300000000000004 >= 1d"
)
_LITELLM_DOCS = "docs.litellm.ai/docs/proxy/error_reference"
_CURRENT_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_MORE_CREDITS = "This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens, but can only afford 222."
_AZURE = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-05-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after {0} seconds."

LITELLM = [
    Refusal("litellm", "BerriAI/litellm#14144", 429, error(_LITELLM_BUDGET, "429", "internal_server_error"), "quota"),
    Refusal(
        "litellm",
        "docs.litellm.ai/docs/proxy/provider_budget_routing",
        429,
        error(
            "No deployments available - crossed budget for provider: Exceeded budget for provider openai: 0.000735 >= 1e-12", "429", "None"
        ),
        "quota",
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#4208",
        400,
        error("Budget has been exceeded! Current cost: 0.0010747, Max budget: 0.0", 400, "auth_error"),
        "quota",
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#14144",
        400,
        error("litellm.BadRequestError: OpenAIException - Budget has been exceeded! Current cost: 14.2, Max budget: 100.", "400"),
        "quota",
    ),
    Refusal(
        "litellm",
        _LITELLM_DOCS,
        429,
        error("Budget has been exceeded! Key=analytics-team (sk-...W8TA) Current cost: 0.06, Max budget: 0.05", "429", "budget_exceeded"),
        "quota",
    ),
    Refusal("litellm", "BerriAI/litellm#37000", 429, error("Ask the platform team.", "429", "budget_exceeded"), "quota"),
    Refusal("litellm", "BerriAI/litellm#4606", 422, error("Budget has been exceeded! Team=99c74652", "422", "budget_exceeded"), "quota"),
    Refusal(
        "litellm",
        "docs.litellm.ai/docs/proxy/users",
        400,
        error("ExceededBudget: End User=ishaan3 over budget. Spend=0.000887, Budget=0.0001", 401, "auth_error", "None"),
        "quota",
    ),
    Refusal(
        "litellm",
        "docs.litellm.ai/docs/proxy/users",
        429,
        error("LiteLLM User: engineer-1, exceeded budget for model=claude-opus-4-8", "429", "budget_exceeded"),
        "quota",
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm litellm/proxy/hooks/max_budget_limiter.py",
        429,
        error("Max budget limit reached.", "429", "None"),
        "quota",
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#8821",
        400,
        error(
            {
                "error": "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view available models for your key."
            },
            "400",
            "None",
            "None",
        ),
        "not_found",
    ),
    Refusal(
        "litellm", "BerriAI/litellm#3142", 400, error("400: {'error': 'Invalid model name passed in model=nope'}", 400, "None"), "not_found"
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#8326",
        400,
        error("litellm.BadRequestError: You passed in model=nope. There is no 'model_name' with this string", "400"),
        "not_found",
    ),
    Refusal("litellm", _LITELLM_DOCS, 400, error("There are no healthy deployments for this model. Passed model=nope", "400"), "not_found"),
    Refusal(
        "litellm",
        "winfunc/opcode#358",
        401,
        error(
            "key not allowed to access model. This key can only access models=['gpt-5']. Tried to access nope",
            "401",
            "key_model_access_denied",
        ),
        "not_found",
    ),
    Refusal(
        "litellm",
        _LITELLM_DOCS,
        429,
        error(
            "Rate limit exceeded for api_key: b2f139a7. Limit type: requests. Current limit: 1, Remaining: 0. "
            "Limit resets at: 2026-08-27 00:15:18 UTC",
            "429",
            "throttling_error",
        ),
        "rate_limit",
        60.0,
        {"retry-after": "60", "rate_limit_type": "requests", "reset_at": "2026-08-27 00:15:18 UTC"},
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#13898",
        429,
        error(
            "LiteLLM Rate Limit Handler for rate limit type = team. Crossed TPM / RPM / Max Parallel Request Limit. current rpm: 1", "429"
        ),
        "rate_limit",
    ),
    Refusal(
        "litellm",
        "BerriAI/litellm#5634",
        429,
        error(
            "No deployments available for selected model, Try again in 60 seconds. Passed model=gpt-4o. pre-call-checks=False, "
            "cooldown_list=['c9d48646f355a0ca27eecefe772512a8f6']",
            "429",
            "None",
        ),
        "rate_limit",
        60.0,
    ),
    Refusal(
        "litellm",
        "jasonacox/TinyLLM#17",
        429,
        error(
            f"litellm.RateLimitError: AzureException RateLimitError - Error code: 429 - {{'error': {{'code': '429', 'message': '{_AZURE.format(86400)}'}}}}",
            "429",
            "throttling_error",
        ),
        "quota",
        86400.0,
    ),
    Refusal(
        "litellm",
        _LITELLM_DOCS,
        401,
        error("Authentication Error, Invalid proxy server token passed.", "401", "token_not_found_in_db"),
        "auth",
    ),
]

OPENROUTER = [
    Refusal("openrouter", "continuedev/continue#11154", 402, error(_MORE_CREDITS, 402, metadata={"provider_name": None}), "quota"),
    Refusal(
        "openrouter",
        "open-assistant-org/open-assistant#80",
        402,
        error(
            "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
            402,
            metadata={"limit_source": "openrouter_credits"},
        ),
        "quota",
    ),
    Refusal(
        "openrouter",
        "openrouter.ai/docs/api_reference/limits",
        402,
        error("Too many requests in flight for your balance.", 402, metadata={"limit_source": "openrouter_in_flight_budget"}),
        "rate_limit",
        2.0,
        {"retry-after": "2"},
    ),
    Refusal(
        "openrouter",
        "openrouter.ai/docs/api_reference/errors-and-debugging",
        403,
        error("Budget limit exceeded", 403, metadata={"limit_source": "openrouter_workspace_budget", "resets_at": "2026-12-01T00:00:00Z"}),
        "quota",
    ),
    Refusal(
        "openrouter",
        "gptme/gptme#1449",
        403,
        error("Key limit exceeded (monthly limit). Manage it using https://openrouter.ai/settings/keys", 403),
        "quota",
    ),
    Refusal(
        "openrouter",
        "RightNow-AI/openfang#697",
        400,
        {"error": {"message": "healer-alpha is not a valid model ID", "code": 400}, "user_id": "user_1"},
        "not_found",
    ),
    Refusal(
        "azure-api-management",
        "MicrosoftDocs/azure-docs#16282",
        403,
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 5.03:23:11"},
        "quota",
        wire="azure",
    ),
    Refusal(
        "openrouter",
        "Gitlawb/openclaude#936",
        429,
        error(
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
            429,
            metadata={"headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1777420800000"}},
        ),
        "quota",
    ),
    Refusal(
        "openrouter",
        "Avarok-Cybersecurity/atlas#543",
        429,
        error("Rate limit exceeded", 429, metadata={"limit_source": "openrouter_free_tier_daily"}),
        "quota",
    ),
    Refusal(
        "openrouter", "openrouter.ai/docs/api_reference/limits", 429, error("Rate limit exceeded: free-models-per-min. ", 429), "rate_limit"
    ),
    Refusal(
        "openrouter",
        "BerriAI/litellm#9035",
        429,
        error(
            "Provider returned error",
            429,
            metadata={
                "raw": "m is temporarily rate-limited upstream. Please retry shortly, or add your own key",
                "provider_name": "Google",
            },
        ),
        "rate_limit",
    ),
    Refusal(
        "openrouter",
        "anomalyco/opencode#24462",
        429,
        error(
            "Error from provider: Provider returned error",
            429,
            metadata={"raw": '{"error":{"message":"Your account is suspended due to insufficient balance, please recharge your account"}}'},
        ),
        "quota",
    ),
    Refusal(
        "openrouter",
        "vyancharuk/nodejs-api-boilerplate#16",
        404,
        error("No endpoints found for nousresearch/hermes-3:free.", 404),
        "not_found",
    ),
    Refusal(
        "openrouter",
        "truefoundry/models#826",
        404,
        error(
            "No endpoints available matching your guardrail restrictions and data policy. Configure: https://openrouter.ai/settings/privacy",
            404,
        ),
        "not_found",
    ),
    Refusal(
        "openrouter",
        "openrouter.ai/docs/errors",
        403,
        error(
            'openai/gpt-4 requires moderation on OpenRouter. Your input was flagged for "violence".',
            403,
            metadata={"reasons": ["violence"], "flagged_input": "…", "provider_name": "OpenAI", "model_slug": "openai/gpt-4"},
        ),
        "content_filter",
    ),
    Refusal("openrouter", "openrouter.ai/docs/errors", 502, error("Your chosen model is down", 502), "server"),
    Refusal(
        "openrouter",
        "openrouter.ai/docs/errors",
        503,
        error("There is no available model provider that meets your routing requirements", 503),
        "server",
    ),
]

OPENAI = [
    Refusal("openai", "dev-hato/hato-bot#4552", 429, error(_CURRENT_QUOTA, "insufficient_quota", "insufficient_quota"), "quota"),
    Refusal(
        "openai",
        "platform.openai.com/docs/guides/error-codes",
        400,
        error("Billing hard limit has been reached", "billing_hard_limit_reached", "invalid_request_error"),
        "quota",
    ),
    Refusal(
        "openai", "songquanpeng/one-api#330", 429, error("Your account is not active", "billing_not_active", "billing_not_active"), "quota"
    ),
    Refusal(
        "openai",
        "platform.openai.com/docs/guides/rate-limits",
        429,
        error(
            "Rate limit reached for gpt-4.1 in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
            "rate_limit_exceeded",
            "requests",
        ),
        "rate_limit",
        20.0,
    ),
    Refusal(
        "openai",
        "danielmiessler/Fabric#364",
        429,
        error(
            "Rate limit reached for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 5000. Please try "
            "again in 8s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        "rate_limit",
        8.0,
    ),
    Refusal(
        "openai",
        "feder-cr/invisible_playwright_mcp#109",
        429,
        error(
            "Rate limit reached for gpt-4o-mini in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again "
            "in 7m12s. You can increase your rate limit by adding a payment method to your account.",
            "rate_limit_exceeded",
            "requests",
        ),
        "quota",
        432.0,
    ),
    Refusal(
        "openai",
        "MSU-AI-Agents/fall-2025-course#76",
        429,
        error(
            "Rate limit reached for gpt-3.5-turbo in organization org-x on requests per day (RPD): Limit 10000, Used 10000, Requested 1. Please try "
            "again in 8.64s.",
            "rate_limit_exceeded",
            "requests",
        ),
        "quota",
        8.64,
    ),
    Refusal(
        "groq",
        "continuedev/continue#10920",
        429,
        error(
            "Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_x` service tier `on_demand` on tokens per day (TPD): "
            "Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        "quota",
        578.016,
    ),
]

AZURE = [
    Refusal("azure", "microsoft/PubSec-Info-Assistant#479", 429, error(_AZURE.format(54), "429"), "rate_limit", 54.0, wire="azure"),
    Refusal(
        "azure", "microsoft/action-python#12", 429, error(_AZURE.format(3), "429"), "rate_limit", 1.5, {"retry-after-ms": "1500"}, "azure"
    ),
    Refusal("azure", "alex-wolf-ps/dbchatprov2#2", 429, error(_AZURE.format(86400), "429"), "quota", 86400.0, wire="azure"),
    Refusal(
        "azure",
        "pollinations/pollinations#6260",
        429,
        error(
            "The system is currently experiencing high demand and cannot process your request. Please retry after 20 seconds.",
            "too_many_requests",
        ),
        "rate_limit",
        20.0,
        wire="azure",
    ),
    Refusal(
        "azure",
        "learn.microsoft.com/azure/ai-services/openai/how-to/troubleshooting",
        404,
        error(
            "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, try again.",
            "DeploymentNotFound",
        ),
        "not_found",
        wire="azure",
    ),
    Refusal(
        "azure",
        "openai/openai-agents-python#806",
        400,
        error(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "content_filter",
            param="prompt",
            innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True, "severity": "high"}}},
        ),
        "content_filter",
        wire="azure",
    ),
    Refusal(
        "azure",
        "learn.microsoft.com/azure/ai-services/openai/quotas-limits",
        401,
        error("Access denied due to invalid subscription key or wrong API endpoint.", "401"),
        "auth",
        wire="azure",
    ),
    Refusal(
        "github-models",
        "docs.github.com/github-models/use-github-models/prototyping-with-ai-models",
        429,
        error("Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 3434 seconds before retrying.", "RateLimitReached"),
        "quota",
        3434.0,
    ),
    Refusal(
        "github-models",
        "docs.github.com/github-models/use-github-models/prototyping-with-ai-models",
        429,
        error("Rate limit of 10 per 60s exceeded for UserByModelByMinute. Please wait 34 seconds before retrying.", "RateLimitReached"),
        "rate_limit",
        34.0,
    ),
]

_FREE = "-FreeTier"
_MINUTE, _DAY = (f"GenerateRequestsPer{span}PerProjectPerModel{_FREE}" for span in ("Minute", "Day"))
GEMINI = [
    Refusal(
        "gemini",
        "ai.google.dev/gemini-api/docs/rate-limits",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", _CURRENT_QUOTA, *exhausted(_MINUTE, delay="46s")),
        "rate_limit",
        46.0,
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "langgenius/dify#19838",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", _CURRENT_QUOTA, *exhausted("GenerateRequestsPerDayPerProjectPerModel")),
        "quota",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "google-gemini/gemini-cli packages/core/src/utils/googleQuotaErrors.ts",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", _CURRENT_QUOTA, *exhausted(_DAY, delay="26s")),
        "quota",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "google-gemini/gemini-cli#8437",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", _CURRENT_QUOTA, *exhausted(_MINUTE, _DAY)),
        "quota",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "continuedev/continue#9570",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            f"{_CURRENT_QUOTA} limit: 0, model: gemini-3-pro. Please retry in 45.57s.",
            *exhausted(_MINUTE, delay="45s"),
        ),
        "quota",
        45.57,
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "dev.to/nils44344",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", f"{_CURRENT_QUOTA} Please retry in 10h17m5.72s."),
        "quota",
        37025.72,
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "googleapis/python-genai#2065",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        "rate_limit",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "google-gemini/gemini-cli#26633",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "No capacity available for model on the server", {"reason": "MODEL_CAPACITY_EXHAUSTED"}),
        "rate_limit",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "google-gemini/gemini-cli#25198",
        400,
        gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", {"reason": "API_KEY_INVALID"}),
        "auth",
        wire="gemini",
    ),
    Refusal(
        "gemini",
        "ai.google.dev/gemini-api/docs/troubleshooting",
        400,
        gemini(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        "auth",
        wire="gemini",
    ),
]

ANTHROPIC = [
    Refusal(
        "anthropic",
        "anthropics/claude-code#71670",
        429,
        anthropic("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
        "rate_limit",
        7.0,
        {"retry-after": "7"},
        "anthropic",
    ),
    Refusal(
        "anthropic",
        "cline/cline#124",
        429,
        anthropic(
            "rate_limit_error",
            "Number of request tokens has exceeded your per-minute rate limit (https://docs.anthropic.com/en/api/rate-limits)",
        ),
        "rate_limit",
        wire="anthropic",
    ),
    Refusal(
        "anthropic",
        "SakanaAI/AI-Scientist#115",
        429,
        anthropic(
            "rate_limit_error",
            "Number of request tokens has exceeded your daily rate limit (https://docs.anthropic.com/en/api/rate-limits)",
        ),
        "quota",
        wire="anthropic",
    ),
    Refusal("anthropic", "docs.claude.com/en/api/errors", 529, anthropic("overloaded_error", "Overloaded"), "server", wire="anthropic"),
    Refusal(
        "anthropic",
        "askimo-ai/askimo#277",
        400,
        anthropic(
            "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
        ),
        "quota",
        wire="anthropic",
    ),
    Refusal(
        "anthropic",
        "anthropics/claude-code#2127",
        400,
        anthropic(
            "invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2025-07-01 at 00:00 UTC."
        ),
        "quota",
        wire="anthropic",
    ),
    Refusal(
        "anthropic",
        "docs.claude.com/en/api/errors",
        402,
        anthropic("billing_error", "There is an issue with your billing."),
        "quota",
        wire="anthropic",
    ),
]

AWS = [
    Refusal(
        "bedrock",
        "aws-samples/amazon-bedrock-client-for-mac#99",
        429,
        {"message": "Too many tokens, please wait before trying again."},
        "rate_limit",
        headers={"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"},
        wire="sagemaker",
    ),
    Refusal(
        "bedrock",
        "minorun365/agent-book#29",
        429,
        {"message": "Too many tokens per day, please wait before trying again."},
        "quota",
        headers={"x-amzn-errortype": "ThrottlingException"},
        wire="sagemaker",
    ),
    Refusal(
        "sagemaker",
        "docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html",
        400,
        {"__type": "ThrottlingException", "message": "Rate exceeded"},
        "rate_limit",
        wire="sagemaker",
    ),
    Refusal(
        "sagemaker",
        "docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html",
        429,
        {"Message": "Model is not ready for inference request"},
        "server",
        headers={"x-amzn-errortype": "ModelNotReadyException"},
        wire="sagemaker",
    ),
    Refusal(
        "bedrock",
        "docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
        400,
        {"message": "The provided model identifier is invalid."},
        "not_found",
        headers={"x-amzn-errortype": "ValidationException"},
        wire="sagemaker",
    ),
    *(
        Refusal("bedrock", source, status, {"message": message}, kind, headers={"x-amzn-errortype": f"{name}:http://x/"}, wire="bedrock")
        for source, status, name, message, kind in (
            (
                "langchain-ai/langchain-aws#1019",
                400,
                "ValidationException",
                (
                    "Invocation of model ID amazon.nova-2-lite-v1:0 with on-demand throughput isn’t supported. Retry your request with the ID or "
                    "ARN of an inference profile that contains this model."
                ),
                "not_found",
            ),
            (
                "truera/trulens#779",
                404,
                "ResourceNotFoundException",
                "Could not resolve the foundation model from the provided model identifier.",
                "not_found",
            ),
            (
                "obot-platform/obot#6747",
                404,
                "ResourceNotFoundException",
                (
                    "Model use case details have not been submitted for this account. Fill out the Anthropic use case details form before using "
                    "the model. If you have already filled out the form, try again in 15 minutes."
                ),
                "not_found",
            ),
            (
                "aws-samples/amazon-bedrock-workshop#386",
                404,
                "ResourceNotFoundException",
                (
                    "Access denied. This Model is marked by provider as Legacy and you have not been actively using the model in the last 15 days. "
                    "Please upgrade to an active model on Amazon Bedrock"
                ),
                "not_found",
            ),
            (
                "langgenius/dify#2829",
                403,
                "AccessDeniedException",
                "You don't have access to the model with the specified model ID.",
                "auth",
            ),
            (
                "aws-samples/sample-host-openclaw-on-amazon-bedrock-agentcore#41",
                403,
                "AccessDeniedException",
                (
                    "Model access is denied due to IAM user or service role is not authorized to perform the required AWS Marketplace actions "
                    "(aws-marketplace:ViewSubscriptions, aws-marketplace:Subscribe) to enable access to this model."
                ),
                "auth",
            ),
            ("vercel/ai#4163", 403, "UnrecognizedClientException", "The security token included in the request is invalid.", "auth"),
            (
                "aws-samples/amazon-bedrock-client-for-mac#112",
                400,
                "ValidationException",
                "The model is unsupported for streaming.",
                "bad_request",
            ),
            (
                "NousResearch/hermes-agent#111043",
                400,
                "ValidationException",
                "This model doesn't support the temperature field. Remove temperature and try again.",
                "bad_request",
            ),
            (
                "aws-samples/bedrock-access-gateway#191",
                400,
                "ValidationException",
                (
                    "The model returned the following errors: `temperature` and `top_p` cannot both be specified for this model. Please use only "
                    "one."
                ),
                "bad_request",
            ),
            (
                "RooCodeInc/Roo-Code#248",
                400,
                "ValidationException",
                "The maximum tokens you requested exceed the model limit of 4096. Try again with a maximum tokens value lower than 4096.",
                "bad_request",
            ),
        )
    ),
    Refusal(
        "bedrock",
        "anomalyco/opencode#47073",
        403,
        {"Message": "Authentication failed: Please make sure your API Key is valid."},
        "auth",
        wire="bedrock",
    ),
]

RELAYS = [
    Refusal(
        "deepseek", "oficcejo/aiagents-stock#33", 402, error("Insufficient Balance", "invalid_request_error", "unknown_error"), "quota"
    ),
    Refusal(
        "deepseek",
        "api-docs.deepseek.com/quick_start/error_codes",
        503,
        error("Server is busy, please try again later.", None, "server_error"),
        "server",
    ),
    Refusal(
        "deepseek", "ConardLi/easy-dataset#9", 400, error("Model Not Exist", "invalid_request_error", "invalid_request_error"), "not_found"
    ),
    Refusal("holysheep", "holysheep.ai/articles", 402, error("Insufficient Balance", "insufficient_balance", "billing_error"), "quota"),
    Refusal("holysheep", "holysheep.ai/articles", 403, error("Insufficient Balance", None, "new_api_error"), "quota"),
    Refusal(
        "new-api",
        "clacky-ai/openclacky#100",
        403,
        error("预扣费额度失败, 用户剩余额度: ＄2.533620, 需要预扣费额度: ＄2.627750 (request id: 2026051120)", "", "new_api_error", ""),
        "quota",
    ),
    Refusal(
        "new-api",
        "QuantumNous/new-api service/billing_session.go",
        403,
        error("token quota is not enough", "pre_consume_token_quota_failed", "new_api_error"),
        "quota",
    ),
    Refusal(
        "new-api",
        "QuantumNous/new-api#7448",
        403,
        error("用户额度不足, 剩余额度: ＄-0.01", "insufficient_user_quota", "new_api_error"),
        "quota",
    ),
    Refusal(
        "one-api",
        "popjane/free_chatgpt_api#78",
        403,
        error("user quota is not enough (request id: 2025)", None, "v_api_error", ""),
        "quota",
    ),
    Refusal("one-api", "songquanpeng/one-api model/token.go", 401, error("该令牌额度已用尽", None, "one_api_error"), "quota"),
    Refusal(
        "new-api",
        "666ghj/BettaFish#535",
        429,
        error("当前分组上游负载已饱和，请稍后再试 (request id: 2026)", None, "new_api_error", ""),
        "rate_limit",
    ),
    Refusal(
        "new-api",
        "WEIFENG2333/VideoCaptioner#1120",
        429,
        error("当前分组上游负载已饱和，请稍后再试", "bad_response_status_code", "upstream_error", "404"),
        "rate_limit",
    ),
    Refusal(
        "new-api",
        "666ghj/BettaFish#579",
        429,
        error("当前分组上游负载已饱和，请稍后再试", "insufficient_quota", "insufficient_quota", ""),
        "quota",
    ),
    Refusal(
        "one-api",
        "songquanpeng/one-api#2308",
        503,
        error("当前分组 default 下对于模型 gpt-5 无可用渠道 (request id: 2025)", type="one_api_error"),
        "not_found",
    ),
    Refusal("sub2api", "Wei-Shaw/sub2api#890", 403, {"code": "INSUFFICIENT_BALANCE", "message": "Insufficient account balance"}, "quota"),
    Refusal(
        "moonshot",
        "MoonshotAI/kimi-code#1857",
        429,
        error(
            "Your account org-x <ak-x> is suspended due to insufficient balance, please recharge your account",
            type="exceeded_current_quota_error",
        ),
        "quota",
    ),
    Refusal(
        "moonshot",
        "harry0703/MoneyPrinterTurbo#339",
        429,
        error("Your account request reached max request: 3, please try again after 1 seconds", type="rate_limit_reached_error"),
        "rate_limit",
        1.0,
    ),
    Refusal("zhipu", "zhayujie/CowAgent#2910", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, "quota"),
    Refusal(
        "zhipu",
        "zai-org/GLM-5#148",
        429,
        {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}},
        "quota",
    ),
    Refusal(
        "dashscope",
        "1Panel-dev/MaxKB#5297",
        400,
        error("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage"),
        "quota",
    ),
    Refusal(
        "siliconflow",
        "FoundationAgents/OpenManus#438",
        403,
        {
            "code": 30011,
            "message": "The selected model requires paid balance. Your paid balance is insufficient. Please top up and try again.",
            "data": None,
        },
        "quota",
    ),
    Refusal(
        "xai",
        "continuedev/continue#10373",
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team x has either used all available credits or reached its monthly spending limit.",
        },
        "quota",
    ),
    Refusal(
        "mistral",
        "raycast/extensions#31107",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
        "rate_limit",
    ),
    Refusal(
        "mistral",
        "continuedev/continue#6185",
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        "rate_limit",
    ),
]

OTHERS = [
    Refusal(
        "vllm",
        "vllm-project/vllm#3485",
        404,
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        "not_found",
    ),
    Refusal(
        "vllm",
        "vllm-project/vllm#4667",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 2048 tokens",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        "context_length",
    ),
    Refusal(
        "ray", "ray-project/ray#52624", 503, "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1).", "server"
    ),
    Refusal("portkey", "portkey.ai/docs/api-reference/inference-api/error-codes", 412, error("Usage limit exceeded", "04"), "quota"),
    Refusal(
        "portkey",
        "portkey.ai/docs/api-reference/inference-api/error-codes",
        446,
        error("The guardrail checks defined in the config failed.", None, "hooks_failed"),
        "content_filter",
    ),
    Refusal("helicone", "Helicone/helicone#5153", 429, error("Insufficient credits", 429), "quota"),
    Refusal(
        "helicone", "Helicone/helicone#889", 429, {"message": "Rate limit reached. Please wait before making more requests."}, "rate_limit"
    ),
    Refusal(
        "workers-ai",
        "diegosouzapw/OmniRoute#6980",
        429,
        {
            "errors": [
                {
                    "code": 4006,
                    "message": "you have used up your daily free allocation of 10,000 neurons, please upgrade to Cloudflare's Workers Paid plan",
                }
            ],
            "success": False,
        },
        "quota",
    ),
    Refusal(
        "ai-gateway",
        "developers.cloudflare.com/ai-gateway/features/rate-limiting",
        429,
        {"success": False, "result": [], "messages": [], "error": [{"code": 2003, "message": "Rate limited"}]},
        "rate_limit",
    ),
    Refusal(
        "cloudflare",
        "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-1xxx-errors",
        429,
        "<html><head><title>Access denied | api.example.com used Cloudflare to restrict access</title></head><body><h1>Error 1015</h1>"
        "<h2>You are being rate limited</h2></body></html>",
        "rate_limit",
        30.0,
        {"retry-after": "30"},
    ),
    Refusal(
        "cloudflare",
        "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors",
        524,
        "error code: 524",
        "timeout",
    ),
    Refusal(
        "cloudflare",
        "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors",
        521,
        "<html><title>521: Web server is down</title></html>",
        "server",
    ),
]

MORE = [
    Refusal(
        "openrouter",
        "NousResearch/hermes-agent#45243",
        403,
        error("API key budget limit exceeded (daily limit)", 403),
        "quota",
    ),
    Refusal(
        "ai-gateway",
        "developers.cloudflare.com/ai-gateway/features/spend-limits",
        429,
        {
            "success": False,
            "result": [],
            "messages": [],
            "error": [{"code": 2045, "message": "Spend limit exceeded: rule 'per-user' (cost limit 0.002 per 3600s, fixed) for a model"}],
        },
        "quota",
    ),
    Refusal(
        "ai-gateway",
        "developers.cloudflare.com/ai-gateway/features/rate-limiting",
        429,
        {"code": 2003, "message": "Rate limited"},
        "rate_limit",
    ),
    Refusal(
        "gemini-compatible",
        "ai.google.dev/gemini-api/docs/openai",
        429,
        [gemini(429, "RESOURCE_EXHAUSTED", _CURRENT_QUOTA, *exhausted(_MINUTE, _DAY))],
        "quota",
    ),
    Refusal(
        "gemini-compatible",
        "ai.google.dev/gemini-api/docs/openai",
        429,
        [gemini(429, "RESOURCE_EXHAUSTED", f"{_CURRENT_QUOTA} Please retry in 38.5s.", *exhausted(_MINUTE))],
        "rate_limit",
        38.5,
    ),
    Refusal(
        "vertex",
        "felixbinder/introspection_self_prediction#66",
        429,
        error(
            "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model with base model: gemini-pro.",
            429,
        ),
        "rate_limit",
    ),
    Refusal(
        "vertex",
        "cloud.google.com/vertex-ai/docs/generative-ai/quotas-genai",
        429,
        error("Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_day_per_project_per_base_model", 429),
        "quota",
    ),
    Refusal(
        "azure",
        "learn.microsoft.com/azure/ai-services/openai/quotas-limits",
        429,
        error("Quota exceeded for this deployment. Please retry after 2 hours.", "QuotaExceeded"),
        "quota",
        7200.0,
        wire="azure",
    ),
]

REFUSALS = [*LITELLM, *OPENROUTER, *OPENAI, *AZURE, *GEMINI, *ANTHROPIC, *AWS, *RELAYS, *OTHERS, *MORE]
