"""OpenAI's wire format: parses request bodies, builds responses and errors. Pure; knows no sockets and no processes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ApiError", "ApiRequest", "chunk", "completion", "error_body", "parse_request", "usage"]

#: Fields that would change the answer and are not implemented, with their neutral values: refused rather than ignored.
_UNSUPPORTED = {
    "tools": None,
    "functions": None,
    "logit_bias": None,
    "logprobs": None,
    "top_logprobs": None,
    "suffix": None,
    "echo": None,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "best_of": 1,
    "prompt_logprobs": None,
    "min_p": 0,
    "audio": None,
}
_MAX_CHOICES = 128
_ROLES = {"system", "developer", "user", "assistant", "tool"}


class ApiError(Exception):
    """An answer in OpenAI's error shape. `status` is HTTP's."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A validated request. `messages` for a chat, `prompts` (texts or ids) for plain completions. None: not given."""

    chat: bool
    messages: tuple[Mapping[str, str], ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    stream: bool = False
    usage_chunk: bool = False
    model: str = ""
    schema: str | None = None
    """The JSON schema, as text, that the answer must follow."""


def parse_request(body: Any, *, chat: bool) -> ApiRequest:
    """The request of a JSON body. Raises ApiError 400, naming the field."""
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.")
    for name, neutral in _UNSUPPORTED.items():
        if body.get(name) not in (None, neutral, False, [], {}):
            raise ApiError(400, f"{name} is not supported by this pool.", param=name, code="unsupported_parameter")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    stream, usage_chunk = _flag(body, "stream"), _flag(_object(body, "stream_options"), "include_usage")
    return ApiRequest(
        chat,
        messages=_messages(body.get("messages")) if chat else (),
        prompts=() if chat else _prompts(body.get("prompt")),
        n=_number(body, "n", 1, _MAX_CHOICES, whole=True) or 1,
        max_tokens=_number(body, limit, 1, math.inf, whole=True) or (None if chat else 16),
        temperature=_number(body, "temperature", 0, 5),
        top_p=_number(body, "top_p", 0, 1),
        top_k=_number(body, "top_k", -1, math.inf, whole=True),
        seed=_number(body, "seed", -(2**63), 2**63 - 1, whole=True),
        stop=_stops(body.get("stop")),
        ignore_eos=_flag(body, "ignore_eos"),
        stream=stream,
        usage_chunk=usage_chunk and stream,
        model=str(body.get("model") or ""),
        schema=_schema(body),
    )


def chunk(request: ApiRequest, head: Mapping[str, Any], choice: int, piece: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream. `piece` has text, finish (the last one) or role (the first one)."""
    finish = piece.get("finish")
    if not request.chat:
        item = {"index": choice, "text": piece.get("text", ""), "logprobs": None, "finish_reason": finish}
    else:
        delta = {k: v for k, v in (("role", piece.get("role")), ("content", piece.get("text"))) if v is not None}
        item = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**head, "object": "chat.completion.chunk" if request.chat else "text_completion", "choices": [item]}


def completion(
    request: ApiRequest, head: Mapping[str, Any], choices: Sequence[tuple[str, str | None]], usage: Mapping[str, Any]
) -> dict[str, Any]:
    """A whole response. `choices`: text and finish reason of each."""
    items: list[dict[str, Any]] = [
        {"index": i, "finish_reason": finish, "logprobs": None}
        | ({"message": {"role": "assistant", "content": text, "refusal": None}} if request.chat else {"text": text})
        for i, (text, finish) in enumerate(choices)
    ]
    return {**head, "object": "chat.completion" if request.chat else "text_completion", "choices": items, "usage": dict(usage)}


def usage(tokens_in: int, tokens_out: int, cached: int, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The usage object. `cached`: prompt tokens that were in the KV cache. `notes` is ours, and there only where it is not empty."""
    total = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {**total, "prompt_tokens_details": {"cached_tokens": cached}} | ({"notes": list(notes)} if notes else {})


def head(request: ApiRequest, number: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of a response share."""
    return {"id": ("chatcmpl-" if request.chat else "cmpl-") + number, "created": int(time.time()), "model": model}


def error_body(error: ApiError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _messages(value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ApiError(400, "messages must be a list of at least one message.", param="messages")
    return tuple(_message(m, i) for i, m in enumerate(value))


def _message(value: Any, i: int) -> Mapping[str, str]:
    where = f"messages.{i}"
    if not isinstance(value, dict) or not _is_one_of(value.get("role"), _ROLES):
        raise ApiError(400, f"{where} needs a role: one of {', '.join(sorted(_ROLES))}.", param=f"{where}.role")
    role = "system" if value["role"] == "developer" else value["role"]
    content = value.get("content")
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) and _is_one_of(p.get("type"), {"text", "input_text"}) else None for p in content]
        if any(not isinstance(p, str) for p in parts):
            raise ApiError(400, f"{where}.content holds something other than text; this pool reads text only.", param=f"{where}.content")
        content = "".join(str(p) for p in parts)
    if not isinstance(content, str):
        raise ApiError(400, f"{where}.content must be text.", param=f"{where}.content")
    return {"role": role, "content": content}


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """A text, ids, or a list of either."""
    many = value if isinstance(value, list) and value and not all(_is_id(v) for v in value) else [value]
    out: list[str | tuple[int, ...]] = []
    for one in many:
        if isinstance(one, str):
            out.append(one)
        elif isinstance(one, list) and one and all(_is_id(v) for v in one):
            out.append(tuple(one))
        else:
            raise ApiError(400, "prompt must be text, a list of texts, or token ids.", param="prompt")
    return tuple(out)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(body: Mapping[str, Any], name: str, low: float, high: float, *, whole: bool = False) -> Any:
    value = body.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        top = f" to {high:g}" if high < math.inf else ""
        raise ApiError(400, f"{name} must be {kind} from {low:g}{top}, not {value!r:.40}.", param=name)
    return value


def _is_one_of(value: Any, words: Collection[str]) -> bool:
    """Whether it is one of these words. A list or an object is not (and cannot be looked up in a set)."""
    return isinstance(value, str) and value in words


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise ApiError(400, f"{name} must be an object, not {value!r:.40}.", param=name)
    return value or {}


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false, not {value!r:.40}.", param=name)
    return bool(value)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > 16:
        raise ApiError(400, "stop must be a text or a list of at most 16 texts, none empty.", param="stop")
    return tuple(stops)


def _schema(body: Mapping[str, Any]) -> str | None:
    """The schema of `response_format`, as text: any object for `json_object`, None for plain text."""
    value = body.get("response_format")
    if value is None or (isinstance(value, dict) and value.get("type") == "text"):
        return None
    if not isinstance(value, dict) or not _is_one_of(value.get("type"), {"json_object", "json_schema"}):
        raise ApiError(400, "response_format must be an object whose type is text, json_object or json_schema.", param="response_format")
    if body.get("ignore_eos"):
        raise ApiError(400, "ignore_eos goes on where response_format ends: take one of them.", param="ignore_eos")
    if value["type"] == "json_object":
        return '{"type": "object"}'
    spec = value.get("json_schema")
    schema = spec.get("schema") if isinstance(spec, dict) else None
    if not isinstance(schema, dict):
        where = "response_format.json_schema"
        raise ApiError(400, f"{where} must be an object with a schema, as {{'name': ..., 'schema': {{...}}}}.", param=f"{where}.schema")
    return json.dumps(schema)
