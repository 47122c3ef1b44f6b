"""What each wire's servers really send: one answer, whole and streamed, and the refusals that every wire has in its own words."""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from servers.exact import END, chunk, reply, sse, stream_head

from holynb.types import Usage

TEXT = "안녕하세요 🍵 <b>tea</b>"
PIECES = ("안녕", "하세요", " 🍵", " <b>tea</b>")
MODEL = "the-model-2025-04-14"


@dataclass(frozen=True)
class Golden:
    """One wire. `whole` and `stream` are bodies; the others are whole responses."""

    wire: str
    whole: Any
    stream: bytes
    usage: Usage
    limited: bytes
    wait: float | None
    refused: bytes
    too_long: bytes
    filtered: bytes
    failing: bytes
    stream_usage: Usage | None = None
    kind: str = "text/event-stream"
    model: str | None = MODEL
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/v1"

    def __str__(self) -> str:
        return self.wire

    def streamed(self) -> list[bytes]:
        return [stream_head(self.kind), chunk(self.stream), END]


# -- OpenAI and what speaks like it --------------------------------------------------------------------------------------


def openai_chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices, "usage": None} | more


def openai_error(status: int, message: str, code: str | None, kind: str | None = None, **headers: str) -> bytes:
    return reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, **headers)


_USED = {
    "prompt_tokens": 20,
    "completion_tokens": 7,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 3},
}

OPENAI = Golden(
    "openai",
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "usage": _USED,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": TEXT, "refusal": None}, "logprobs": None, "finish_reason": "stop"}
        ],
    },
    sse(
        openai_chunk(""),
        *(openai_chunk(p) for p in PIECES),
        openai_chunk(finish="stop"),
        {**openai_chunk(), "choices": [], "usage": _USED},
        "[DONE]",
    ),
    Usage(20, 7, 16, tokens_reasoning=3),
    openai_error(429, "Rate limit reached for requests", "rate_limit_exceeded", "requests", retry_after="7"),
    7.0,
    openai_error(401, "Incorrect API key provided: {key}", "invalid_api_key", "invalid_request_error"),
    openai_error(400, "This model's maximum context length is 128000 tokens.", "context_length_exceeded", "invalid_request_error"),
    openai_error(400, "Your request was rejected as a result of our safety system.", "content_policy_violation", "invalid_request_error"),
    openai_error(500, "The server had an error while processing your request", None, "server_error"),
)

# -- Responses -----------------------------------------------------------------------------------------------------------


def response_events(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def response(status: str | None = "completed", *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None}
    return whole | {"model": MODEL, "output": list(output), "instructions": None, "service_tier": "default", "usage": None} | more


def response_message(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": t, "annotations": [], "logprobs": []} for t in texts]
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": parts}


def response_delta(text: str, kind: str = "output_text", **more: Any) -> dict[str, Any]:
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    return {"type": f"response.{kind}.delta", "sequence_number": 9, **place, "delta": text, "obfuscation": "x7"} | more


_THOUGHT_ITEM = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"}
_RESPONSE_USED = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 27,
}
_RESPONSE = response("completed", _THOUGHT_ITEM, response_message(TEXT), usage=_RESPONSE_USED)

RESPONSES = Golden(
    "responses",
    _RESPONSE,
    response_events(
        {"type": "response.created", "sequence_number": 0, "response": response("in_progress")},
        {"type": "response.in_progress", "sequence_number": 1, "response": response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**_THOUGHT_ITEM, "summary": []}},
        {"type": "response.reasoning_summary_part.added", "summary_index": 0, "part": {"type": "summary_text", "text": ""}},
        response_delta("hm", "reasoning_summary_text", output_index=0, summary_index=0),
        {"type": "response.reasoning_summary_text.done", "summary_index": 0, "text": "hm"},
        {"type": "response.output_item.done", "output_index": 0, "item": _THOUGHT_ITEM},
        {"type": "response.output_item.added", "output_index": 1, "item": {**response_message(), "status": "in_progress"}},
        {"type": "response.content_part.added", "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}},
        *(response_delta(p) for p in PIECES),
        {"type": "response.output_text.done", "content_index": 0, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", "content_index": 0, "part": {"type": "output_text", "text": TEXT, "annotations": []}},
        {"type": "response.output_item.done", "output_index": 1, "item": response_message(TEXT)},
        {"type": "response.completed", "sequence_number": 20, "response": _RESPONSE},
    ),
    Usage(20, 7, 16, 0, tokens_reasoning=3),
    OPENAI.limited,
    7.0,
    OPENAI.refused,
    openai_error(
        400,
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "context_length_exceeded",
        "invalid_request_error",
    ),
    reply(response("incomplete", response_message("half"), incomplete_details={"reason": "content_filter"}, usage=_RESPONSE_USED)),
    reply(response("failed", error={"code": "server_error", "message": "The model produced an error."}, usage=_RESPONSE_USED)),
)

_FILTER = {
    "hate": {"filtered": True, "severity": "high"},
    "jailbreak": {"detected": True, "filtered": True},
    "violence": {"filtered": False, "severity": "safe"},
}
AZURE_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _FILTER},
    }
}
_ANNOTATED = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
    "choices": [],
}
_LATE = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}],
}

AZURE = Golden(
    "azure",
    {**OPENAI.whole, "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
    sse(
        _ANNOTATED,
        openai_chunk(""),
        *(openai_chunk(p) for p in PIECES),
        _LATE,
        openai_chunk(finish="stop"),
        {**openai_chunk(), "choices": [], "usage": _USED},
        "[DONE]",
    ),
    Usage(20, 7, 16, tokens_reasoning=3),
    reply(
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded the call rate limit. Please retry after 37 seconds.",
            }
        },
        429,
        x_ratelimit_limit_requests="-1",
        x_ratelimit_remaining_requests="0",
    ),
    37.0,
    reply({"error": {"code": "401", "message": "Access denied due to invalid subscription key {key} or wrong API endpoint."}}, 401),
    OPENAI.too_long,
    reply(AZURE_FILTERED, 400),
    reply({"error": {"code": "InternalServerError", "message": "Backend returned unexpected response."}}, 500),
    path="",
)
AZURE_RESPONSES = replace(RESPONSES, wire="azure-responses", limited=AZURE.limited, wait=37.0, refused=AZURE.refused, path="")


# -- Anthropic -----------------------------------------------------------------------------------------------------------


def anthropic_events(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def anthropic_error(status: int, kind: str, message: str, **headers: str) -> bytes:
    return reply({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}, status, **headers)


def _block(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


_COUNTED = {"input_tokens": 4, "cache_creation_input_tokens": 6, "cache_read_input_tokens": 10, "output_tokens": 1}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": _COUNTED,
}

ANTHROPIC = Golden(
    "anthropic",
    {
        **_MESSAGE,
        "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": {**_COUNTED, "output_tokens": 7},
    },
    anthropic_events(
        {"type": "message_start", "message": _MESSAGE},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        _block(0, type="thinking_delta", thinking="hm"),
        _block(0, type="signature_delta", signature="x"),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        *(_block(1, type="text_delta", text=p) for p in PIECES),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ),
    Usage(20, 7, 10, 6),
    anthropic_error(
        429, "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute.", retry_after="7"
    ),
    7.0,
    anthropic_error(401, "authentication_error", "invalid x-api-key {key}"),
    anthropic_error(400, "invalid_request_error", "prompt is too long: 205351 tokens > 200000 maximum"),
    reply({**_MESSAGE, "stop_reason": "refusal", "usage": _COUNTED}),
    anthropic_error(529, "overloaded_error", "Overloaded"),
)


# -- Gemini --------------------------------------------------------------------------------------------------------------


def gemini_part(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [] if text is None else [{"text": text}]}
    candidate = {"content": content, "index": 0} | ({"finishReason": finish} if finish else {})
    return {"candidates": [candidate], "modelVersion": MODEL, "responseId": "r"} | more


def gemini_error(code: int, status: str, message: str, *details: dict[str, Any]) -> bytes:
    return reply({"error": {"code": code, "message": message, "status": status, "details": list(details)}}, code)


_META = {
    "promptTokenCount": 18,
    "toolUsePromptTokenCount": 2,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 16,
    "totalTokenCount": 27,
}
_THOUGHT = gemini_part("hm")
_THOUGHT["candidates"][0]["content"]["parts"][0]["thought"] = True
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"}
QUOTA = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}],
}

GEMINI = Golden(
    "gemini",
    gemini_part(TEXT, "STOP", usageMetadata=_META),
    sse(
        _THOUGHT,
        *(gemini_part(p, usageMetadata={"promptTokenCount": 18}) for p in PIECES[:-1]),
        gemini_part(PIECES[-1], "STOP", usageMetadata=_META),
    ),
    Usage(20, 7, 16, tokens_reasoning=3),
    gemini_error(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details. Please retry in 45.9s.",
        QUOTA,
        RETRY,
    ),
    46.0,
    gemini_error(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key: {key}",
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"},
    ),
    gemini_error(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    reply({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 20}, "modelVersion": MODEL}),
    gemini_error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    path="",
)


VERTEX = replace(GEMINI, wire="vertex", options={"project": "my-project"})


# -- SageMaker -----------------------------------------------------------------------------------------------------------


def frame(payload: bytes, **headers: str) -> bytes:
    """One message of AWS's event stream: lengths and CRC, headers as text, payload, CRC."""
    headers = {"event_type": "PayloadPart", "content_type": "application/octet-stream", "message_type": "event"} | headers
    if headers["message_type"] != "event":
        del headers["event_type"]
    packed = b"".join(
        struct.pack("!B", len(n) + 1) + b":" + n.encode() + struct.pack("!BH", 7, len(v)) + v.encode()
        for n, v in ((k.replace("_", "-"), v) for k, v in headers.items())
    )
    prelude = struct.pack("!II", len(packed) + len(payload) + 16, len(packed))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + packed + payload
    return message + struct.pack("!I", binascii.crc32(message))


def frames(data: bytes, size: int = 50) -> bytes:
    """Bytes cut into parts without regard to what they hold, as containers' writes are."""
    return b"".join(frame(data[i : i + size]) for i in range(0, len(data), size))


SAGEMAKER = Golden(
    "sagemaker",
    OPENAI.whole,
    frames(OPENAI.stream),
    Usage(20, 7, 16, tokens_reasoning=3),
    reply({"message": "Rate exceeded"}, 400, x_amzn_errortype="ThrottlingException:http://internal.amazon.com/"),
    None,
    reply({"message": "The security token included in the request is invalid. {key}"}, 403, x_amzn_errortype="UnrecognizedClientException"),
    reply(
        {
            "Message": "Received client error (400) from primary",
            "OriginalStatusCode": 400,
            "OriginalMessage": '{"error": "maximum context length is 4096"}',
        },
        424,
        x_amzn_errortype="ModelError",
    ),
    reply(
        {"Message": "x", "OriginalStatusCode": 400, "OriginalMessage": "rejected by the content filter"}, 424, x_amzn_errortype="ModelError"
    ),
    reply({"Message": "x", "OriginalStatusCode": 500, "OriginalMessage": "worker died"}, 424, x_amzn_errortype="ModelError"),
    kind="application/vnd.amazon.eventstream",
    options={"region": "eu-west-1"},
    path="",
)


# -- Bedrock -------------------------------------------------------------------------------------------------------------


def bedrock_frame(event: str, value: Any) -> bytes:
    """One event of ConverseStream, padded as AWS pads it."""
    return frame(json.dumps(value | {"p": "abcdefgh"}).encode(), event_type=event, content_type="application/json")


def bedrock_delta(delta: Mapping[str, Any], block: int = 0) -> bytes:
    return bedrock_frame("contentBlockDelta", {"contentBlockIndex": block, "delta": delta})


def bedrock_exception(name: str, value: Any) -> bytes:
    return frame(json.dumps(value).encode(), message_type="exception", exception_type=name, content_type="application/json")


def bedrock_error(status: int, name: str, message: str) -> bytes:
    return reply({"message": message}, status, x_amzn_errortype=f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/")


_COUNTS = {
    "inputTokens": 4,
    "outputTokens": 7,
    "totalTokens": 27,
    "cacheReadInputTokens": 10,
    "cacheWriteInputTokens": 6,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 2}, {"ttl": "5m", "inputTokens": 4}],
}
BEDROCK_EVENTS = (
    bedrock_frame("messageStart", {"role": "assistant"}),
    bedrock_delta({"reasoningContent": {"text": "hm"}}),
    bedrock_delta({"reasoningContent": {"signature": "sig"}}),
    bedrock_frame("contentBlockStop", {"contentBlockIndex": 0}),
    *(bedrock_delta({"text": piece}, 1) for piece in PIECES),
    bedrock_frame("contentBlockStop", {"contentBlockIndex": 1}),
    bedrock_frame("messageStop", {"stopReason": "end_turn"}),
    bedrock_frame("metadata", {"usage": _COUNTS, "metrics": {"latencyMs": 551}}),
)

BEDROCK = Golden(
    "bedrock",
    {
        "output": {
            "message": {
                "role": "assistant",
                "content": [{"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}}, {"text": TEXT}],
            }
        },
        "stopReason": "end_turn",
        "usage": _COUNTS,
        "metrics": {"latencyMs": 551},
    },
    b"".join(BEDROCK_EVENTS),
    Usage(20, 7, 10, 6, tokens_cache_write_1h=2),
    bedrock_error(429, "ThrottlingException", "Too many tokens, please wait before trying again."),
    None,
    reply({"Message": "Authentication failed: Please make sure your API Key is valid. {key}"}, 403),
    bedrock_error(
        400, "ValidationException", "The model returned the following errors: prompt is too long: 210000 tokens > 200000 maximum"
    ),
    bedrock_error(400, "ValidationException", "Output blocked by content filtering policy"),
    bedrock_error(500, "InternalServerException", "The system encountered an unexpected error during processing. Try your request again."),
    kind="application/vnd.amazon.eventstream",
    model=None,
    path="",
)

WIRES = (OPENAI, RESPONSES, AZURE, AZURE_RESPONSES, ANTHROPIC, GEMINI, VERTEX, SAGEMAKER, BEDROCK)
