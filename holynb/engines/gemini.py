"""The Gemini wire: generateContent and streamGenerateContent. Pure but for the class.

Particulars: a bad key is a 400, thought tokens are billed as output but not counted among the candidates', a blocked prompt is a 200
without candidates, the retry delay is in the body, and a minute's quota and an exhausted credit have the same message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holynb.engines import codec, openai, parts, quotas, thinking
from holynb.engines.answer import StreamReader, conclude
from holynb.engines.choices import first_choice
from holynb.engines.classify import ErrorDetail, malformed, readable, to_fault
from holynb.engines.hosted import Hosted, Traits, Wire
from holynb.engines.parts import Part
from holynb.engines.place import in_path
from holynb.errors import Fault
from holynb.types import SERVICE_TIERS, Completion, Endpoint, Limits, Message, Request, Secret, Usage

__all__ = ["WIRE", "Gemini", "Generated", "body", "classify", "read", "usage"]

#: Parameters (`-p`) at the top of the request; any other belongs to generationConfig.
TOP_LEVEL_FIELDS = ("safetySettings", "tools", "toolConfig", "cachedContent", "labels", "serviceTier", "modelArmorConfig")
#: Reasons for a block that say there was none: of the API and of python-genai.
UNBLOCKED = ("BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED")


class Gemini(Hosted):
    """Google's Gemini API."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:
    base = endpoint.base_url
    base = base if base.endswith(("/v1beta", "/v1")) else f"{base}/v1beta"
    model = in_path(request.route.model.removeprefix("models/"), "/:@")
    place = model if model.startswith("tunedModels/") else f"models/{model}"
    return f"{base}/{place}:streamGenerateContent?alt=sse" if request.stream else f"{base}/{place}:generateContent"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    headers = openai.headers(endpoint, None)
    return headers if secret is None else headers | {"x-goog-api-key": secret.reveal()}


def body(request: Request, traits: Traits = frozenset(), wire: str = "gemini") -> dict[str, Any]:
    """The request's JSON. `wire`: whose way of asking for thinking it is."""
    s = request.sampling
    turns = [{"role": "model" if m.role == "assistant" else "user", "parts": _parts(m)} for m in request.messages if m.role != "system"]
    payload: dict[str, Any] = {"contents": turns}
    if system := [{"text": m.content} for m in request.messages if m.role == "system"]:
        payload["systemInstruction"] = {"parts": system}
    optional = {
        "maxOutputTokens": s.max_tokens,
        "temperature": s.temperature,
        "topP": s.top_p,
        "seed": s.seed,
        "stopSequences": list(s.stop) or None,
    }
    payload["generationConfig"] = {name: value for name, value in optional.items() if value is not None}
    thinking.apply(payload, request, traits, wire)
    config: dict[str, Any] = payload.pop("generationConfig")
    if request.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema}
    for name, value in s.extra.items():
        (payload if name in TOP_LEVEL_FIELDS else config)[name] = value
    if config:
        payload["generationConfig"] = config
    if request.tiers:
        payload.setdefault("serviceTier", request.tiers[0])
    return payload


def _parts(message: Message) -> list[dict[str, Any]]:
    if not message.attachments:
        return [{"text": message.content}]
    return parts.content(message, lambda text: {"text": text}, _part)


def _part(part: Part) -> dict[str, Any]:
    if part.url:
        return {"fileData": {"mimeType": part.kind, "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.kind, "data": part.base64}}


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault."""
    answer = Generated()
    text = answer.on_event("message", value)
    if answer.finish is None and not text:
        raise malformed(codec.excerpt(value), "200, but the answer has no candidates")
    completion = conclude(codec.mend(text or ""), answer.finish, answer.model, answer.usage, said=answer.said, thoughts=answer.thoughts)
    return completion.on_tier(answer.tier)


class Generated(StreamReader):
    """The reader of a stream of GenerateContentResponse. It has no end marker: the finish reason comes with the last text."""

    def __init__(self) -> None:
        super().__init__()
        self._called = False
        self._id: Any = None
        self._counts: dict[str, Any] = {}

    def on_event(self, name: str, chunk: Any) -> str | None:
        """A chunk's text; its thoughts are kept beside. Raises Fault for an error, and for a prompt that was blocked."""
        if not isinstance(chunk, Mapping):
            raise malformed(codec.excerpt(chunk), "the server answered with something that does not belong to an answer")
        if chunk.get("error") or name == "error":
            status, detail, _ = _detail(chunk)
            raise to_fault(status or 500, detail, {}, codec.excerpt(chunk))
        progress: str | None = None
        if isinstance(counts := chunk.get("usageMetadata"), Mapping) and counts:
            self._counts.update((name, n) for name, n in counts.items() if n is not None)  # a later chunk may leave some out
            before, self.usage = self.usage.tokens_reasoning, usage(self._counts)
            if self.usage.tokens_reasoning and self.usage.tokens_reasoning != before:
                progress, self.thinking = "", True  # its count grows, whether or not it says what it thinks
            tier = counts.get("serviceTier") or counts.get("trafficType")  # of Vertex
            self.tier = tier if isinstance(tier, str) else self.tier
        model = chunk.get("modelVersion")
        self.model = model if isinstance(model, str) else self.model
        if "promptFeedback" in chunk:
            self._blocked(chunk["promptFeedback"])
        if (candidate := first_choice(chunk.get("candidates"))) is None:
            return progress  # usage alone, or a second answer, which is ignored
        if self.finish is not None and chunk.get("responseId") != self._id:
            return None  # a second message in one body
        text, word = self._text(candidate.get("content")), candidate.get("finishReason")
        if word is not None:
            self.ended("tool_calls" if word == "STOP" and self._called else word)
            self._id = chunk.get("responseId")
            self.said = said if isinstance(said := candidate.get("finishMessage"), str) else self.said
        return progress if text is None else text

    def _blocked(self, feedback: Any) -> None:
        reason = feedback.get("blockReason") if isinstance(feedback, Mapping) else None
        if reason and reason not in UNBLOCKED:
            blocked = f"the prompt was blocked ({reason}): rephrase it, or set -p safetySettings=[…]"
            raise Fault("content_filter", blocked, usage=self.usage if self.usage != Usage() else None)

    def _text(self, content: Any) -> str | None:
        parts = content.get("parts") if isinstance(content, Mapping) else None
        parts = [p for p in parts if isinstance(p, Mapping)] if isinstance(parts, list) else []
        if any(p.get("thought") for p in parts):
            self.thinking = True
            self.think("".join(p["text"] for p in parts if p.get("thought") and isinstance(p.get("text"), str)))
        texts = [p["text"] for p in parts if isinstance(p.get("text"), str) and not p.get("thought")]
        if texts:
            return "".join(texts)
        self._called = self._called or any("functionCall" in p for p in parts)
        return "" if parts else None


def usage(counts: Any) -> Usage:
    """Token counts. Thoughts are counted beside the candidates and billed as output; what tools put into the prompt, as input."""
    if not isinstance(counts, Mapping):
        return Usage()
    prompt, tools, out, thoughts, cached = (
        openai.count(counts.get(k))
        for k in ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount")
    )
    both = None if out is None and thoughts is None else (out or 0) + (thoughts or 0)
    return Usage(None if prompt is None else prompt + (tools or 0), both, cached, tokens_reasoning=thoughts)


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200."""
    try:
        value = codec.loads(body)
    except ValueError:
        value = None
    value = value[0] if isinstance(value, list) and value else value  # a stream's error comes in a list
    if not isinstance(value, Mapping):
        return to_fault(status, ErrorDetail(readable(body)), headers, body)
    _, detail, details = _detail(value)
    fault = to_fault(status, detail, headers, body)
    if fault.kind == "rate_limit":
        fault.wait = max((w for w in (*_delays(details), fault.wait) if w is not None), default=None)
    return fault


def _detail(value: Mapping[str, Any]) -> tuple[int | None, ErrorDetail, list[Mapping[str, Any]]]:
    """Status, error and details. The name of the status is the type; a reason among the details (API_KEY_INVALID) is the code."""
    error = value.get("error")
    error = error if isinstance(error, Mapping) else {"message": error}
    listed = error.get("details")
    details = [d for d in listed if isinstance(d, Mapping)] if isinstance(listed, list) else []
    message, name, number = error.get("message"), error.get("status"), error.get("code")
    words, kind = message if isinstance(message, str) else "", name if isinstance(name, str) else ""
    code = next((d["reason"] for d in details if isinstance(d.get("reason"), str) and d["reason"]), "")
    if kind == "RESOURCE_EXHAUSTED" and _is_exhausted(words, details):
        code = "insufficient_quota"
    if kind == "FAILED_PRECONDITION" and "billing" in words.lower():
        code = "billing_error"
    if kind == "FAILED_PRECONDITION" and "location is not supported" in words:
        code = "unauthorized"  # no request from here can succeed
    status = number if isinstance(number, int) and 400 <= number < 600 else None
    return status, ErrorDetail(words, code, kind), details


def _is_exhausted(words: str, details: list[Mapping[str, Any]]) -> bool:
    """Whether a quota is unusable today: it is 0, or a daily one, which may come with a retry delay of seconds that leads nowhere."""
    if "limit: 0" in words or any("PerDay" in quota for quota in _quotas(details)):
        return True
    return any(wait > quotas.LASTING_S for wait in _delays(details))


def _delays(details: list[Mapping[str, Any]]) -> list[float]:
    """The retry delays among the details, seconds."""
    delays = (quotas.seconds(d["retryDelay"]) for d in details if isinstance(d.get("retryDelay"), str))
    return [d for d in delays if d is not None]


def _quotas(details: list[Mapping[str, Any]]) -> Iterator[str]:
    """The ids of the quotas that are exceeded."""
    for detail in details:
        listed = detail.get("violations")
        for violation in listed if isinstance(listed, list) else ():
            if isinstance(violation, Mapping) and isinstance(violation.get("quotaId"), str):
                yield violation["quotaId"]


def no_limits(headers: Mapping[str, str]) -> Limits | None:  # noqa: ARG001 - as every wire is asked
    """None: this server sends no quota headers."""
    return None


def tier(headers: Mapping[str, str]) -> str | None:
    """The service tier. Older versions name it among the headers alone, and relays put other words there (`paid`)."""
    word = headers.get("x-gemini-service-tier", "").lower()
    return word if word in SERVICE_TIERS else None


WIRE = Wire(url, headers, body, read, Generated, classify, no_limits, tier=tier)
