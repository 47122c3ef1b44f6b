"""The Anthropic wire: Messages, whole and streamed. Pure but for the class.

Particulars: max_tokens is required, the system prompt is a field of its own, input_tokens excludes cached tokens, errors may come inside a
200 stream, and newer models refuse sampling parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holynb.engines import cache_marks, codec, openai, parts, quotas, thinking
from holynb.engines.answer import THOUGHT_GAP, StreamReader, conclude
from holynb.engines.classify import ErrorDetail, malformed, readable, to_fault
from holynb.engines.finish import finish
from holynb.engines.hosted import Hosted, Traits, Wire
from holynb.engines.parts import Part
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Request, Secret, Usage

__all__ = ["VERSION", "WIRE", "Anthropic", "Messages", "body", "classify", "read", "status_of", "usage"]

#: The version that every server and gateway of this wire accepts.
VERSION = "2023-06-01"
#: Default, since the wire requires one.
MAX_TOKENS = 2048

DROPPABLE = ("temperature", "top_p")
#: Types of blocks in which a model thinks.
THINKING = ("thinking", "redacted_thinking")


class Anthropic(Hosted):
    """Anthropic's API, or a gateway that speaks it."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - other wires have the model in their address
    return f"{endpoint.base_url.removesuffix('/v1')}/v1/messages"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    headers = {**openai.headers(endpoint, None), "anthropic-version": str(endpoint.options.get("version", VERSION))}
    return headers if secret is None else headers | {"x-api-key": secret.reveal()}


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:
    """The request's JSON. Consecutive turns of one role are joined, since roles must alternate; the wire has no seed."""
    s = request.sampling
    payload: dict[str, Any] = {"model": request.route.model, "max_tokens": s.max_tokens or MAX_TOKENS, "messages": _turns(request)}
    if system := "\n\n".join(m.content for m in request.messages if m.role == "system"):
        payload["system"] = system
    optional = {"temperature": s.temperature, "top_p": s.top_p}
    payload.update((name, value) for name, value in optional.items() if value is not None and f"no {name}" not in traits)
    if s.stop:
        payload["stop_sequences"] = list(s.stop)
    if request.schema is not None:
        payload["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
    if request.stream:
        payload["stream"] = True
    thinking.apply(payload, request, traits, "anthropic")
    if request.tiers:
        payload["service_tier"] = request.tiers[0]
    cache_marks.anthropic(payload, request, traits)
    thinking.add(payload, s.extra)
    return payload


def _turns(request: Request) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        content = parts.content(message, _text_block, _block) if message.attachments else message.content
        if turns and turns[-1]["role"] == message.role:
            before = turns[-1]["content"]
            if isinstance(before, str) and isinstance(content, str):
                turns[-1]["content"] = f"{before}\n\n{content}"
            else:
                turns[-1]["content"] = [*_blocks(before), *_blocks(content)]
        else:
            turns.append({"role": message.role, "content": content})
    return turns


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [_text_block(content)]


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _block(part: Part) -> dict[str, Any]:
    """A picture or a PDF; its vendor says that it should come before the text."""
    source = {"type": "url", "url": part.url} if part.url else {"type": "base64", "media_type": part.kind, "data": part.base64}
    return {"type": "document" if part.group == "pdf" else "image", "source": source}


def adapt(traits: Traits, fault: Fault) -> Traits:
    """Drop the sampling parameters that a refusal names: newer models take none."""
    message = fault.message.lower()
    if "cannot both be specified" in message:
        return traits | {"no top_p"}
    if not openai.REJECTED.search(message):
        return traits
    return traits | {f"no {name}" for name in DROPPABLE if name in message}


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault."""
    if isinstance(value, Mapping):
        if value.get("type") == "error" or value.get("error"):
            raise to_fault(*_detail(value, 500), {}, codec.excerpt(value))
        content = value.get("content")
        content = [] if content is None and "stop_reason" in value else content
        if isinstance(content, list | str):
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else [b for b in content if isinstance(b, Mapping)]
            model = model if isinstance(model := value.get("model"), str) else None
            text, thoughts = codec.mend("".join(map(_text, blocks))), _thoughts(blocks)
            answer = conclude(text, finish(value.get("stop_reason")), model, usage(value.get("usage")), thoughts=thoughts)
            return answer.on_tier(_tier(value.get("usage")))
    raise malformed(codec.excerpt(value), "200, but the answer has no content")


class Messages(StreamReader):
    """The reader of a stream of message events."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, Any] = {}
        self._begun_message = False
        self._gap = ""  # between two blocks of thinking

    def on_event(self, name: str, chunk: Any) -> str | None:
        """An event's text. message_start counts the input, message_delta the output so far. Raises Fault for an error event."""
        if not isinstance(chunk, Mapping):
            raise malformed(codec.excerpt(chunk), "the server's stream holds an event that does not belong to a message")
        kind = chunk.get("type") or name
        if kind == "error" or chunk.get("error"):
            raise to_fault(*_detail(chunk, 500), {}, codec.excerpt(chunk))
        if kind == "message_start" and self._begun_message:
            self.done = True  # a second message in one body
        elif kind == "message_start" and isinstance(message := chunk.get("message"), Mapping):
            self._begun_message = True
            self.model = message.get("model") if isinstance(message.get("model"), str) else None
            self._count(message.get("usage"))
        elif kind == "message_delta":
            self._count(chunk.get("usage"))
            if isinstance(delta := chunk.get("delta"), Mapping):
                self.ended(delta.get("stop_reason"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "content_block_delta" and isinstance(delta := chunk.get("delta"), Mapping):
            if delta.get("type") == "text_delta" and isinstance(text := delta.get("text"), str):
                return text
            if delta.get("type") == "thinking_delta":
                return self._think(delta)
            return ""  # signatures and tools: progress without text
        elif kind == "content_block_start" and isinstance(block := chunk.get("content_block"), Mapping):
            if block.get("type") in THINKING:
                self.thinking, self._gap = True, THOUGHT_GAP if self._thoughts else ""
                return self._think(block)
            return _text(block) or None  # gateways put a block's text here
        return None

    def _think(self, piece: Mapping[str, Any]) -> str | None:
        words = _thought(piece)
        self.thinking, self._gap, gap = True, "" if words else self._gap, self._gap
        return self.think(gap + words) if words else None

    def _count(self, counts: Any) -> None:
        if isinstance(counts, Mapping):
            self._counts.update((k, v) for k, v in counts.items() if v is not None)
            self.usage = usage(self._counts)
            self.tier = _tier(self._counts)


def _text(block: Mapping[str, Any]) -> str:
    text = block.get("text")
    return text if block.get("type") == "text" and isinstance(text, str) else ""


def _thought(block: Mapping[str, Any]) -> str:
    """The words of a block of thinking, or of a piece of one; a redacted one has none, and neither has one that is omitted."""
    words = block.get("thinking")
    return words if isinstance(words, str) else ""


def _thoughts(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    thinking = [_thought(b) for b in blocks if b.get("type") in THINKING]
    return codec.mend(THOUGHT_GAP.join(filter(None, thinking))) if thinking else None


def _tier(counts: Any) -> str | None:
    """The service tier, which is counted among the tokens."""
    tier = counts.get("service_tier") if isinstance(counts, Mapping) else None
    return tier if isinstance(tier, str) else None


def usage(counts: Any) -> Usage:
    """Token counts. `input_tokens` excludes tokens read from and written to the cache, so the three are added; `output_tokens` is all."""
    if not isinstance(counts, Mapping):
        return Usage()
    uncached, out, cached, written = (
        openai.count(counts.get(k)) for k in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    total = None if uncached is None else uncached + (cached or 0) + (written or 0)
    by_age = counts.get("cache_creation")
    for_an_hour = openai.count(by_age.get("ephemeral_1h_input_tokens")) if isinstance(by_age, Mapping) else None
    split = counts.get("output_tokens_details")
    thought = openai.count(split.get("thinking_tokens")) if isinstance(split, Mapping) else None
    return Usage(total, out, cached, written, tokens_cache_write_1h=for_an_hour, tokens_reasoning=thought)


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200."""
    try:
        value = codec.loads(body)
    except ValueError:
        value = None
    detail = _detail(value, status)[1] if isinstance(value, Mapping) else ErrorDetail(readable(body))
    fault = to_fault(status, detail, headers, body)
    fault.limits = quotas.anthropic(headers)
    return fault


#: The HTTP statuses of errors that come inside a 200, or in a file.
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def _detail(value: Mapping[str, Any], status: int) -> tuple[int, ErrorDetail]:
    error = value.get("error")
    error = error if isinstance(error, Mapping) else {"message": error}
    kind, message = error.get("type"), error.get("message")
    kind, details = kind if isinstance(kind, str) else "", error.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else None
    detail = ErrorDetail(message if isinstance(message, str) else "", code if isinstance(code, str) else "", kind)
    return (status_of(kind) if status == 500 else status), detail


def status_of(kind: object) -> int:
    """The HTTP status of an error of this type that comes without one."""
    return _STATUSES.get(kind, 500) if isinstance(kind, str) else 500


WIRE = Wire(url, headers, body, read, Messages, classify, quotas.anthropic, adapt=adapt)
