"""The OpenAI wire: chat completions, as OpenAI, HolySheep, DeepSeek, OpenRouter, vLLM, Ray Serve and many others speak it. Pure but for the class.

Deviations that real servers show are read, not refused: usage on any chunk or on none, errors inside a 200, codes that are numbers or
text or missing, no [DONE]. A stream without a finish reason is never an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from holynb.engines import codec, quotas
from holynb.engines.answer import StreamReader, checked
from holynb.engines.classify import ErrorDetail, malformed, readable, to_fault
from holynb.engines.hosted import Hosted, Traits, Wire
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Request, Secret, Usage

__all__ = ["WIRE", "Chat", "OpenAI", "body", "classify", "learn", "read", "usage"]

#: The server's word → ours.
FINISH: Mapping[str, str] = {"tool_calls": "tool", "function_call": "tool", "max_tokens": "length", "eos": "stop", "end_turn": "stop"}

#: What is left out of a request once a model has refused it.
DROPPABLE = ("temperature", "top_p", "stream_options")
REFUSED = re.compile(
    r"unsupported|not support|unrecognized|unknown|unexpected|not permitted|not allowed|deprecated|use '?max", re.IGNORECASE
)


class OpenAI(Hosted):
    """An OpenAI-compatible server."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - other wires have the model in their address
    return f"{endpoint.base_url}/chat/completions"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:  # noqa: ARG001 - as every wire is asked
    """Streams are not to be compressed: a gateway would hold frames back to fill its window."""
    said = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "holynb",
    }
    return said if secret is None else said | {"authorization": f"Bearer {secret.reveal()}"}


def traits(endpoint: Endpoint) -> Traits:
    """What the providers table says of its servers."""
    return frozenset({"max_completion_tokens"} if endpoint.options.get("max_tokens") == "max_completion_tokens" else ())


def body(request: Request, known: Traits = frozenset()) -> dict[str, Any]:
    """The request's JSON. `known`: `max_completion_tokens` (the new name of max_tokens), `no X` for each of DROPPABLE."""
    s = request.sampling
    longest = "max_completion_tokens" if "max_completion_tokens" in known else "max_tokens"
    said: dict[str, Any] = {"model": request.route.model, "messages": [{"role": m.role, "content": m.content} for m in request.messages]}
    plain = {longest: s.max_tokens, "temperature": s.temperature, "top_p": s.top_p, "seed": s.seed}
    said.update((name, value) for name, value in plain.items() if value is not None)
    if s.stop:
        said["stop"] = list(s.stop)
    if request.schema is not None:
        shape = {"name": "answer", "schema": request.schema, "strict": strict(request.schema)}
        said["response_format"] = {"type": "json_schema", "json_schema": shape}
    if request.stream:
        said |= {"stream": True, "stream_options": {"include_usage": True}}
    for name in DROPPABLE:
        if f"no {name}" in known:
            said.pop(name, None)
    if not {"max_tokens", "max_completion_tokens"}.isdisjoint(s.extra):
        said.pop(longest, None)  # -p names it as this server wants it; both names at once are refused
    said.update(s.extra)
    return said


def strict(schema: Any) -> bool:
    """Whether a schema is of the kind that `strict` takes: every object closed, every property required."""
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


def learn(known: Traits, fault: Fault) -> Traits:
    """What a refused request teaches. A name of max_tokens is swapped once; what is refused under both names stays refused."""
    value = _json((fault.raw or "").encode())
    detail = ErrorDetail(fault.message) if value is None else _detail(value)[0]
    if not (REFUSED.search(detail.message) or detail.code.startswith("unsupported")):
        return known
    named = {detail.param} if detail.param else set(re.findall(r"\w+", detail.message))
    used = "max_completion_tokens" if "max_completion_tokens" in known else "max_tokens"
    if used in named and "swapped" not in known:
        return (known ^ {"max_completion_tokens"}) | {"swapped"}
    return known | {f"no {name}" for name in DROPPABLE if name in named}


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault: an error inside a 200, something that is no chat completion, a filtered answer."""
    if isinstance(value, Mapping):
        _refuse(value)
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) and isinstance(choices[0].get("message"), Mapping):
            choice, message, counted = choices[0], choices[0]["message"], usage(value.get("usage"))
            reason = choice.get("finish_reason")
            refused = message.get("refusal")
            finish = _finish(reason) or "unknown"
            text = _text(message.get("content")) or (refused if isinstance(refused, str) else "")
            return checked(Completion(codec.mend(text), "refusal" if refused else finish, _word(value.get("model")), counted))
    raise malformed(codec.dumps(value), "200, but the answer has no choices")


class Chat(StreamReader):
    """The fold of a stream of chat.completion.chunk."""

    def take(self, name: str, chunk: Any) -> str | None:
        """A chunk's text; its usage, model and finish reason are kept. Raises Fault for an error in the middle of a 200."""
        # Once per token of every answer: plain tests of dict and list, which parsed JSON is made of, cost a third of isinstance(…, Mapping).
        if not isinstance(chunk, dict):
            raise malformed(codec.dumps(chunk), "the server's stream holds an event that is no chunk of an answer")
        _refuse(chunk, failed=name == "error")
        if self.model is None:
            self.model = _word(chunk.get("model"))
        if (counted := chunk.get("usage")) is not None:
            self.usage = usage(counted)  # the last one counts: some servers send a running total with every chunk
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choice := choices[0], dict) or choice.get("index"):
            return None  # usage alone, what a content filter noted, or a second answer that nobody reads
        if (reason := choice.get("finish_reason")) is not None:
            self.finish_reason = _finish(reason) or self.finish_reason
        if not isinstance(delta := choice.get("delta"), dict):
            return None
        return _text(delta.get("content")) or _text(delta.get("refusal")) or _busy(delta)


def _busy(delta: dict[str, Any]) -> str | None:
    """A sign of work without text: thinking, or a tool's call."""
    return "" if any(delta.get(k) for k in ("reasoning_content", "reasoning", "tool_calls", "function_call")) else None


def usage(said: Any) -> Usage:
    """Counts, None where the server did not say. Cached tokens are part of the prompt's, reasoning of the completion's: nothing is added."""
    if not isinstance(said, Mapping):
        return Usage()
    details = said.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    cached = count(details.get("cached_tokens"))
    if cached is None:
        cached = count(said.get("prompt_cache_hit_tokens"))  # DeepSeek
    return Usage(count(said.get("prompt_tokens")), count(said.get("completion_tokens")), cached, count(details.get("cache_write_tokens")))


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200."""
    value = _json(body)
    detail, _ = _detail(value)
    if not isinstance(value, Mapping):
        detail = ErrorDetail(readable(body))
    fault = to_fault(status, detail, headers, body)
    fault.limits = quotas.openai(headers)
    return fault


def _refuse(value: Mapping[str, Any], *, failed: bool = False) -> None:
    """Raise the Fault of an error that came with status 200."""
    if failed or value.get("error") or value.get("object") == "error":
        detail, status = _detail(value)
        raise to_fault(status or 500, detail, {}, codec.dumps(value))


def _detail(value: Any) -> tuple[ErrorDetail, int | None]:
    """The words of an error, in any of its shapes, and the status it names. vLLM's old form has no `error` around it; some send only text."""
    error = value.get("error") or value if isinstance(value, Mapping) else value
    if not isinstance(error, Mapping):
        return ErrorDetail(error if isinstance(error, str) else ""), None
    meta = error.get("metadata")  # OpenRouter: the words of the provider behind it
    raw = meta.get("raw") if isinstance(meta, Mapping) else None
    message = error.get("message") or error.get("detail") or error.get("msg") or ""
    words = message if isinstance(message, str) else codec.dumps(message).decode()
    words = f"{words} ({raw})" if isinstance(raw, str) and raw else words
    code = "" if error.get("code") is None else str(error["code"])
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else None
    return ErrorDetail(words, code, _word(error.get("type")) or "", _word(error.get("param")) or ""), status


def _finish(reason: Any) -> str | None:
    return FINISH.get(reason, reason) if isinstance(reason, str) and reason else None


def _text(content: Any) -> str:
    """Text, or the text among parts of content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))


def _json(data: bytes) -> Any:
    try:
        return codec.loads(data)
    except ValueError:
        return None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def count(value: Any) -> int | None:
    """A count of tokens; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


WIRE = Wire(url, headers, body, read, Chat, classify, quotas.openai, traits, learn)
