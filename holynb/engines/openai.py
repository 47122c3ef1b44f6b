"""The OpenAI wire: chat completions of OpenAI, HolySheep, DeepSeek, OpenRouter, vLLM, Ray Serve and many others. Pure.

Deviations of real servers are accepted: usage on any chunk or on none, errors inside a 200, codes that are numbers or text or missing, no
[DONE], a number in the place of text. A stream without a finish reason is never an answer, and of several choices the first is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holynb.engines import cache_marks, codec, parts, quotas, thinking
from holynb.engines.answer import StreamReader, conclude
from holynb.engines.choices import at_work, called, first_choice, text, thoughts
from holynb.engines.classify import ErrorDetail, malformed, readable, to_fault
from holynb.engines.counts import count, usage
from holynb.engines.finish import finish
from holynb.engines.hosted import Traits, Wire
from holynb.engines.parts import Part
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Message, Request, Secret

__all__ = ["WIRE", "Chat", "adapt", "body", "classify", "count", "detail_of", "read", "usage"]

#: Parameters that are left out once a model has refused them.
DROPPABLE = ("temperature", "top_p", "stream_options")
REJECTED = re.compile(
    r"unsupported|not support|unrecognized|unknown|unexpected|not permitted|not allowed|deprecated|use '?max", re.IGNORECASE
)


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - other wires have the model in their address
    return f"{endpoint.base_url}/chat/completions"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:  # noqa: ARG001 - as every wire is asked
    """The headers. Streams must not be compressed: a gateway would hold frames back to fill its window."""
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "holynb",
    }
    return headers if secret is None else headers | {"authorization": f"Bearer {secret.reveal()}"}


def traits(endpoint: Endpoint) -> Traits:
    """The initial traits, from the provider's options."""
    return frozenset({"max_completion_tokens"} if endpoint.options.get("max_tokens") == "max_completion_tokens" else ())


def body(request: Request, traits: Traits = frozenset(), wire: str = "openai") -> dict[str, Any]:
    """The request's JSON. `traits`: `max_completion_tokens` (the new name of max_tokens), `no X` for each of DROPPABLE.

    `wire`: whose way of asking for thinking it is, where another wire has the rest of this body.
    """
    s = request.sampling
    max_tokens = "max_completion_tokens" if "max_completion_tokens" in traits else "max_tokens"
    messages = [_turn(m) if m.attachments else {"role": m.role, "content": m.content} for m in request.messages]
    payload: dict[str, Any] = {"model": request.route.model, "messages": messages}
    optional = {max_tokens: s.max_tokens, "temperature": s.temperature, "top_p": s.top_p, "seed": s.seed}
    payload.update((name, value) for name, value in optional.items() if value is not None)
    if s.stop:
        payload["stop"] = list(s.stop)
    if request.schema is not None:
        shape = {"name": "answer", "schema": request.schema, "strict": strict(request.schema)}
        payload["response_format"] = {"type": "json_schema", "json_schema": shape}
    if request.stream:
        payload |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.tiers:
        payload["service_tier"] = request.tiers[0]
    for name in DROPPABLE:
        if f"no {name}" in traits:
            payload.pop(name, None)
    thinking.apply(payload, request, traits, wire)
    if request.cache is not None:
        cache_marks.openai(payload, request, traits)
    if not {"max_tokens", "max_completion_tokens"}.isdisjoint(s.extra):
        payload.pop(max_tokens, None)  # -p names it as this server wants it; both names at once are refused
    thinking.add(payload, s.extra)
    return payload


def _turn(message: Message) -> dict[str, Any]:
    # A document comes before what is asked of it, a picture after, as in OpenAI's own examples.
    pieces = parts.content(message, lambda text: {"type": "text", "text": text}, _part, first=lambda part: part.group == "pdf")
    return {"role": message.role, "content": pieces}


def _part(part: Part) -> dict[str, Any]:
    if part.group == "image":
        return {"type": "image_url", "image_url": {"url": part.address}}
    if part.group == "pdf":
        return {"type": "file", "file": {"filename": parts.file_name(part), "file_data": part.address}}
    return {"type": "input_audio", "input_audio": {"data": part.base64, "format": part.short}}


def strict(schema: Any) -> bool:
    """Whether a schema qualifies for `strict`: every object closed, every property required."""
    if isinstance(schema, list):
        return all(strict(s) for s in schema)
    if not isinstance(schema, Mapping):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
        if not all(strict(s) for s in properties.values()):
            return False
    return all(strict(v) for k, v in schema.items() if k not in ("properties", "enum", "const", "default", "examples", "required"))


def adapt(traits: Traits, fault: Fault) -> Traits:
    """Traits after a refused request. The name of max_tokens is swapped once; refused under both names, it stays refused."""
    detail = detail_of(fault)
    if not (REJECTED.search(detail.message) or detail.code.startswith("unsupported")):
        return traits
    named = {detail.param} if detail.param else set(re.findall(r"\w+", detail.message))
    used = "max_completion_tokens" if "max_completion_tokens" in traits else "max_tokens"
    if used in named and "swapped" not in traits:
        return (traits ^ {"max_completion_tokens"}) | {"swapped"}
    return traits | {f"no {name}" for name in DROPPABLE if name in named}


def detail_of(fault: Fault) -> ErrorDetail:
    """The fields of the error that a Fault was made of."""
    value = _json((fault.raw or "").encode())
    return ErrorDetail(fault.message) if value is None else _detail(value)[0]


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault: an error inside a 200, something that is no chat completion, a filtered answer."""
    # Tests for dict, which parsed JSON consists of: isinstance(…, Mapping) takes several times as long.
    if isinstance(value, dict):
        raise_error(value)
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else first_choice(choices)
        if isinstance(choice, dict):
            raise_error(choice)
        if isinstance(choice, dict) and isinstance(message := choice.get("message"), dict):
            counts, refused = usage(value.get("usage")), text_or_none(message.get("refusal"))
            answer = conclude(
                codec.mend(text(message.get("content")) or refused or ""),
                finish(choice.get("finish_reason")),
                text_or_none(value.get("model")),
                counts,
                thoughts=None if (thought := thoughts(message)) is None else codec.mend(thought),
            )
            answer = answer.on_tier(tier) if (tier := text_or_none(value.get("service_tier"))) else answer
            return replace(answer, finish_reason="refusal") if refused else _told_of_tools(answer, called=called(message))
    raise malformed(codec.excerpt(value), "200, but the answer has no choices")


class Chat(StreamReader):
    """The reader of a stream of chat.completion.chunk."""

    def __init__(self) -> None:
        super().__init__()
        self._refused = self._called = self._in_pieces = False
        self._id: Any = None

    def on_event(self, name: str, chunk: Any) -> str | None:
        """A chunk's text; its usage, model and finish reason are kept. Raises Fault for an error in the middle of a 200."""
        # Once per token of every answer: tests for dict and list, which parsed JSON consists of, cost a third of isinstance(…, Mapping).
        if not isinstance(chunk, dict):
            raise malformed(codec.excerpt(chunk), "the server's stream holds an event that is not a chunk of an answer")
        if "error" in chunk or name == "error" or chunk.get("object") == "error":
            raise_error(chunk, failed=name == "error")
        if self.model is None:
            self.model = text_or_none(chunk.get("model"))
        if (tier := chunk.get("service_tier")) is not None:
            self.tier = text_or_none(tier)  # the last one counts: the first chunks may still say auto
        if counts := chunk.get("usage"):
            self.usage = usage(counts)  # the last one counts: some servers send a running total with every chunk
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choice := choices[0], dict):
            return None  # usage alone, or a content filter's note
        if choice.get("index") and (choice := first_choice(choices)) is None:
            return None  # a second answer, which is ignored
        if self.finish is not None and chunk.get("id") != self._id:
            return None  # a second message in one body
        if (reason := choice.get("finish_reason")) is not None:
            raise_error(choice)  # OpenRouter: what the provider behind it said
            self.ended(reason)
            self._id = chunk.get("id")
        if not (delta := choice.get("delta")) or not isinstance(delta, dict):
            delta = choice.get("message")  # a gateway's only event: the answer as it would be whole
            if self._in_pieces or not isinstance(delta, dict):
                return None
        self._in_pieces = True
        content = delta.get("content")
        words = content if content.__class__ is str else ""
        if words and (len(delta) == 1 or not (delta.get("reasoning_content") or delta.get("reasoning") or delta.get("reasoning_details"))):
            return words  # nearly always
        thought = thoughts(delta)
        at_it = None if thought is None else self.think(thought) if thought else self._unseen_thought()
        piece = text(content) or self._unsaid(delta)
        return at_it if piece is None else piece

    def end(self) -> Completion:
        """The whole answer, a refusal marked as one. Raises Fault."""
        answer = super().end()
        return replace(answer, finish_reason="refusal") if self._refused else _told_of_tools(answer, called=self._called)

    def _unseen_thought(self) -> str:
        """A thought that is not said: progress without text."""
        self.thinking = True
        return ""

    def _unsaid(self, delta: dict[str, Any]) -> str | None:
        """A refusal; the empty text for progress without text (a tool call); else None."""
        if refusal := text_or_none(delta.get("refusal")):
            self._refused = True
            return refusal
        if called(delta):
            self._called = True
            return ""
        return "" if at_work(delta) else None


def _told_of_tools(answer: Completion, *, called: bool) -> Completion:
    """The answer; one that is nothing but the call of a tool ended by it. A tool that was asked for by name ends in `stop`."""
    only_called = called and answer.finish_reason in ("stop", "unknown") and not answer.text.strip()
    return replace(answer, finish_reason="tool") if only_called else answer


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200."""
    value = _json(body)
    value = value[0] if isinstance(value, list) and value else value  # Gemini's compatible endpoint sends its error in a list
    detail, _ = _detail(value)
    if not isinstance(value, Mapping):
        detail = ErrorDetail(readable(body))
    fault = to_fault(status, detail, headers, body)
    fault.limits = quotas.openai(headers)
    return fault


def raise_error(value: Mapping[str, Any], *, failed: bool = False) -> None:
    """Raise the Fault of an error that came with status 200."""
    if failed or value.get("error") or value.get("object") == "error":
        detail, status = _detail(value)
        raise to_fault(status or 500, detail, {}, codec.excerpt(value))


def _detail(value: Any) -> tuple[ErrorDetail, int | None]:
    """An error in any of its shapes, and the status it names. vLLM's old form has no `error` around it; some send only text, or a list."""
    error = (value.get("error") or value.get("errors") or value) if isinstance(value, Mapping) else value
    error = error[0] if isinstance(error, list) and error else error
    if not isinstance(error, Mapping):
        return ErrorDetail(error if isinstance(error, str) else ""), None
    meta = error.get("metadata")  # OpenRouter: the message of the provider behind it, and whose limit it was
    meta = meta if isinstance(meta, Mapping) else {}
    raw, source = meta.get("raw"), meta.get("limit_source")
    words = _words(error.get("message") or error.get("detail") or error.get("msg") or "")
    words = f"{words} ({raw})" if isinstance(raw, str) and raw else words
    words = f"{words} ({', '.join(named)})" if (named := _google_quotas(error.get("details"))) else words
    code = error.get("code")
    code = code if isinstance(code, str) else str(code) if isinstance(code, int) and abs(code) < 2**63 else ""
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else None
    kind, param = text_or_none(error.get("type")) or "", text_or_none(error.get("param")) or ""
    return ErrorDetail(words, code, kind, param, source if isinstance(source, str) else ""), status


def _google_quotas(details: Any) -> list[str]:
    """The names of the quotas that Gemini's compatible endpoint says are exceeded; its message is the same for a minute's and a day's."""
    listed = [d["violations"] for d in details if isinstance(d, Mapping) and "violations" in d] if isinstance(details, list) else []
    violations = [v for several in listed if isinstance(several, list) for v in several]
    return [v["quotaId"] for v in violations if isinstance(v, Mapping) and isinstance(v.get("quotaId"), str)]


def _words(message: Any) -> str:
    """A message as text. Of a validation error (FastAPI's) without the input that it repeats: a prompt may say anything."""
    if isinstance(message, str):
        return message
    if isinstance(message, list):
        message = [{k: v for k, v in m.items() if k in ("loc", "msg", "type")} if isinstance(m, Mapping) else m for m in message]
    return codec.excerpt(message).decode()


def _json(data: bytes) -> Any:
    try:
        return codec.loads(data)
    except ValueError:
        return None


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


WIRE = Wire(url, headers, body, read, Chat, classify, quotas.openai, traits, adapt)
