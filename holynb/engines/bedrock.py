"""The Bedrock wire: Converse and ConverseStream of AWS, signed with SigV4 or with a bearer token. Pure but for the class.

`bedrock/MODEL`: a model's name, an inference profile (`us.…`, `global.…`) or an ARN. Particulars: the model is in the address, input tokens
exclude cached ones, a stream comes in AWS's frames and its exceptions among them, and what only one model understands goes into
additionalModelRequestFields: `-p NAME=VALUE` puts it there, unless NAME is a field of Converse itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holynb.engines import aws_errors, aws_frames, cache_marks, codec, openai, parts, thinking
from holynb.engines.answer import THOUGHT_GAP, StreamReader, conclude
from holynb.engines.aws_hosted import AwsHosted, AwsService
from holynb.engines.classify import malformed
from holynb.engines.finish import finish
from holynb.engines.hosted import Traits, Wire
from holynb.engines.parts import Part
from holynb.engines.place import in_path
from holynb.engines.sse import Event
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Limits, Message, Request, Secret, Usage

__all__ = ["WIRE", "Bedrock", "Converse", "body", "read", "usage"]

SERVICE = AwsService("bedrock", "bedrock-runtime", bearer=True)

#: Where the fields of a model are, and those of inference.
MODEL_FIELDS, INFERENCE = "additionalModelRequestFields", "inferenceConfig"
#: Fields of Converse itself, which `-p` sets where they belong; any other is the model's own. botocore 1.44, ConverseRequest.
TOP_LEVEL_FIELDS = (
    MODEL_FIELDS,
    INFERENCE,
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "outputConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
    "toolConfig",
)
INFERENCE_FIELDS = ("maxTokens", "temperature", "topP", "stopSequences")
#: Name in `Sampling` → what a refusal calls it: left out once a model has refused it. Without `stop` an answer would be another one.
DROPPABLE: Mapping[str, tuple[str, ...]] = {"temperature": ("temperature",), "top_p": ("topp", "top_p")}
#: What Nova sends in the place of what it thought.
REDACTED = "[REDACTED]"


class Bedrock(AwsHosted):
    """Bedrock's runtime, or a gateway that speaks as it does."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE, SERVICE)

    def _url(self, request: Request, wire: Wire) -> str:
        address = super()._url(request, wire)
        return address.removesuffix("-stream") if "no stream" in self._traits() else address


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:
    """The path; the host depends on the region. The model is encoded as botocore does it: `:` and `/` of an ARN, too."""
    model = in_path(endpoint.route.model)
    return f"/model/{model}/converse-stream" if request.stream else f"/model/{model}/converse"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    return {**openai.headers(endpoint, secret), "accept": f"application/json, {aws_frames.CONTENT_TYPE}"}


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:
    """The request's JSON. Consecutive turns of one role are joined, since roles must alternate; the wire has no seed.

    `traits`: `no X` for each of DROPPABLE; `no system`: the model takes no system prompt, so that it stands before the first turn.
    """
    s = request.sampling
    system = "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content.strip())
    turns = _turns(request)
    if system and "no system" in traits and turns:
        turns[0] = _joined([{"text": system}], turns[0][0]), turns[0][1]
    payload: dict[str, Any] = {"messages": [{"role": role, "content": content} for content, role in turns]}
    if system and "no system" not in traits:
        payload["system"] = [{"text": system}]
    temperature, top_p = (None if f"no {name}" in traits else getattr(s, name) for name in DROPPABLE)
    optional = {"maxTokens": s.max_tokens, "temperature": temperature, "topP": top_p, "stopSequences": list(s.stop) or None}
    payload[INFERENCE] = {name: value for name, value in optional.items() if value is not None}
    if request.schema is not None:
        shape = {"schema": codec.dumps(request.schema).decode(), "name": "answer"}
        payload["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": shape}}}
    if request.tiers:
        payload["serviceTier"] = {"type": request.tiers[0]}
    thinking.apply(payload, request, traits, "bedrock")
    cache_marks.bedrock(payload, request, traits)
    for name, value in s.extra.items():
        _set(payload, name, value)
    if not payload[INFERENCE]:
        del payload[INFERENCE]
    return payload


def _set(payload: dict[str, Any], name: str, value: Any) -> None:
    """A parameter of `-p`, where it belongs; a table is added to what is there."""
    if name in TOP_LEVEL_FIELDS:
        there = payload.get(name)
        payload[name] = {**there, **value} if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    else:
        place = INFERENCE if name in INFERENCE_FIELDS else MODEL_FIELDS
        payload[place] = dict(payload.get(place, {}))
        thinking.add(payload[place], {name: value})


def _turns(request: Request) -> list[tuple[list[dict[str, Any]], str]]:
    """(content, role) of each turn."""
    turns: list[tuple[list[dict[str, Any]], str]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        content = _content(message)
        if turns and turns[-1][1] == message.role:
            turns[-1] = _joined(turns[-1][0], content), message.role
        else:
            turns.append((content, message.role))
    return turns


def _content(message: Message) -> list[dict[str, Any]]:
    if not message.attachments:
        return [{"text": message.content}]
    numbers = itertools.count(1)
    return parts.content(message, lambda text: {"text": text}, lambda part: _block(part, numbers))


def _joined(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two contents as one; texts that meet are one text."""
    if "text" in first[-1] and "text" in second[0]:
        return [*first[:-1], {"text": f"{first[-1]['text']}\n\n{second[0]['text']}"}, *second[1:]]
    return [*first, *second]


def _block(part: Part, numbers: Iterator[int]) -> dict[str, Any]:
    """A part. A document has to have a name, and AWS asks for one that says nothing: a model may read it as an instruction."""
    block = {"format": part.short, "source": {"bytes": part.base64}}
    return {"document": {**block, "name": f"document {next(numbers)}"}} if part.group == "pdf" else {part.group: block}


def adapt(traits: Traits, fault: Fault) -> Traits:
    """What the refusal says the model does not take: a sampling parameter, a system prompt, streams."""
    words = fault.message.lower()
    if "cannot both be specified" in words:
        return traits | {"no top_p"}
    if not (openai.REJECTED.search(words) or "doesn't support" in words or "doesn’t support" in words):
        return traits
    if "stream" in words:
        return traits | {"no stream"}
    refused = {f"no {name}" for name, spellings in DROPPABLE.items() if any(s in words for s in spellings)}
    return traits | refused | ({"no system"} if "system message" in words or "system prompt" in words else set())


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault."""
    output = value.get("output") if isinstance(value, Mapping) else None
    message = output.get("message") if isinstance(output, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        raise malformed(codec.excerpt(value), "200, but the answer has no message")
    blocks = [b for b in content if isinstance(b, Mapping)]
    text = codec.mend("".join(b["text"] for b in blocks if isinstance(b.get("text"), str)))
    reasoning = [b["reasoningContent"] for b in blocks if "reasoningContent" in b]
    thoughts = codec.mend(THOUGHT_GAP.join(filter(None, map(_thought, reasoning)))) if reasoning else None
    answer = conclude(text, finish(value.get("stopReason")), _model(value), usage(value.get("usage")), thoughts=thoughts)
    return answer.on_tier(_tier(value))


def _thought(reasoning: Any) -> str:
    """The words of what was thought, in a block or in a piece of one; a redacted one has none."""
    inner = reasoning.get("reasoningText", reasoning) if isinstance(reasoning, Mapping) else None
    words = inner.get("text") if isinstance(inner, Mapping) else None
    return words if isinstance(words, str) and words.strip() != REDACTED else ""


class Converse(StreamReader):
    """The reader of a stream of Converse's events. It has no end marker: usage comes after the finish reason."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = aws_frames.FrameDecoder()
        self._begun_message = False
        self._thinking_block: Any = None

    def feed(self, data: bytes) -> str | None:
        """The text of the frames that these bytes complete. Raises Fault for a frame that is an exception, or broken."""
        text: str | None = None
        for frame in self._frames.feed(data):
            if self.done:
                break
            if frame.error or frame.status != 200:
                raise aws_errors.of_frame(frame)
            piece = self._fold([Event(frame.event, frame.payload)])
            text = piece if text is None else text + (piece or "")
        return text

    def on_event(self, name: str, chunk: Any) -> str | None:
        """An event's text; "" for tools and for what is thought, which is kept beside."""
        if not isinstance(chunk, Mapping):
            raise malformed(codec.excerpt(chunk), "the server's stream holds an event that does not belong to a message")
        if name == "messageStart":
            self.done = self._begun_message  # a second message in one body
            self._begun_message = True
        elif name == "messageStop":
            self.ended(chunk.get("stopReason"))
        elif name == "metadata":
            if isinstance(counted := chunk.get("usage"), Mapping) and counted:  # a later event may say less
                self.usage = usage(counted)
            self.model, self.tier = _model(chunk) or self.model, _tier(chunk) or self.tier
        elif name == "contentBlockDelta" and isinstance(delta := chunk.get("delta"), Mapping):
            if isinstance(text := delta.get("text"), str):
                return text
            return self._think(chunk.get("contentBlockIndex"), delta["reasoningContent"]) if "reasoningContent" in delta else ""
        return None

    def _think(self, block: Any, piece: Any) -> str | None:
        self.thinking, words = True, _thought(piece)
        if not words:
            return ""  # a signature, or what is redacted
        gap = THOUGHT_GAP if self._thoughts and block != self._thinking_block else ""
        self._thinking_block = block
        return self.think(gap + words)


def _model(value: Mapping[str, Any]) -> str | None:
    """The model that a prompt router chose; Bedrock names a model in no other case."""
    for name in ("trace", "promptRouter", "invokedModelId"):
        value = value.get(name) if isinstance(value, Mapping) else None  # type: ignore[assignment]
    return value if isinstance(value, str) else None


def _tier(value: Mapping[str, Any]) -> str | None:
    """Bedrock's word for the service tier."""
    tier = value.get("serviceTier")
    word = tier.get("type") if isinstance(tier, Mapping) else None
    return word if isinstance(word, str) else None


def usage(counts: Any) -> Usage:
    """Token counts. `inputTokens` excludes tokens read from and written to the cache, so the three are added."""
    if not isinstance(counts, Mapping):
        return Usage()
    uncached, out, cached, written = (
        openai.count(counts.get(k)) for k in ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )
    total = None if uncached is None else uncached + (cached or 0) + (written or 0)
    details = counts.get("cacheDetails")
    details = [d for d in details if isinstance(d, Mapping)] if isinstance(details, list) else []
    for_an_hour = next((n for d in details if d.get("ttl") == "1h" and (n := openai.count(d.get("inputTokens"))) is not None), None)
    return Usage(total, out, cached, written, tokens_cache_write_1h=for_an_hour)


def no_limits(headers: Mapping[str, str]) -> Limits | None:  # noqa: ARG001 - as every wire is asked
    """None: Bedrock sends no quota headers."""
    return None


WIRE = Wire(url, headers, body, read, Converse, aws_errors.classify, no_limits, adapt=adapt, streams=(aws_frames.CONTENT_TYPE,))
