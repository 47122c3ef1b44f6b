"""The Responses wire: `POST {base}/responses`, for OpenAI's models that have no chat completions. Pure but for the class.

A row is one turn, and nothing of it is kept: `store: false` is sent, since the server would else keep each prompt and answer for later
retrieval, as chat completions do not. The wire has no stop sequences and no seed: a request with them is refused, never sent without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from holynb.config.providers import LACKING
from holynb.engines import cache_marks, codec, counts, openai, parts, quotas, thinking
from holynb.engines.answer import THOUGHT_GAP, StreamReader, conclude
from holynb.engines.choices import text
from holynb.engines.classify import ErrorDetail, malformed, to_fault
from holynb.engines.finish import finish
from holynb.engines.hosted import Hosted, Traits, Wire
from holynb.engines.parts import Part
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Message, Request, Secret, Usage

__all__ = ["WIRE", "ResponseEvents", "Responses", "adapt", "body", "read", "usage"]

#: Parameters that are left out once a model has refused them.
DROPPABLE = ("temperature", "top_p")
#: Statuses of a response that is not over: what `background` leaves behind.
UNFINISHED = ("queued", "in_progress")
#: Names of counts → chat completions'.
NAMES: Mapping[str, str] = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
#: Items that ask the caller to run something.
CALLS = ("function_call", "custom_tool_call", "computer_call", "local_shell_call")
#: Events that end a stream.
ENDS = ("completed", "incomplete", "failed", "cancelled")
#: Codes of a failed response (openai-python 2.54, types/responses/response_error.py) that the request is to blame for: no retry cures it.
OF_THE_REQUEST = frozenset(
    {
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)
#: How these events of a stream begin that only say that a tool is at work.
_AT_WORK = ("response.web_search_call", "response.file_search_call", "response.code_interpreter_call", "response.mcp_")


class Responses(Hosted):
    """A server that speaks OpenAI's Responses."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - other wires have the model in their address
    return f"{endpoint.base_url}/responses"


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:
    """The request's JSON. `traits`: `no X` for each of DROPPABLE. Raises Fault for what the wire cannot say."""
    s = request.sampling
    if lacking := [f"--{name}" for name in LACKING if getattr(s, name) not in (None, ())]:
        problem = f"{request.route.model} uses OpenAI's Responses API, which has no {' and no '.join(lacking)}: run the cell without"
        raise Fault("bad_request", problem, retry=False)
    payload: dict[str, Any] = {"model": request.route.model, **_prompt(request), "store": False}
    optional = {"max_output_tokens": s.max_tokens, "temperature": s.temperature, "top_p": s.top_p}
    payload.update((name, value) for name, value in optional.items() if value is not None)
    if request.schema is not None:
        shape = {"type": "json_schema", "name": "answer", "schema": request.schema, "strict": openai.strict(request.schema)}
        payload["text"] = {"format": shape}
    if request.tiers:
        payload["service_tier"] = request.tiers[0]
    if request.stream:
        payload["stream"] = True
    for name in DROPPABLE:
        if f"no {name}" in traits:
            payload.pop(name, None)
    thinking.apply(payload, request, traits, "responses")
    cache_marks.responses(payload, request, traits)
    thinking.add(payload, s.extra)
    return payload


def _prompt(request: Request) -> dict[str, Any]:
    """A first system turn as `instructions`, the others in their order. `-p instructions` leaves all of them in their order."""
    messages = request.messages
    instructed = bool(messages) and messages[0].role == "system" and "instructions" not in request.sampling.extra
    turns = [{"role": m.role, "content": _content(m) if m.attachments else m.content} for m in (messages[1:] if instructed else messages)]
    return {"instructions": messages[0].content, "input": turns} if instructed else {"input": turns}


def _content(message: Message) -> list[dict[str, Any]]:
    return parts.content(message, lambda text: {"type": "input_text", "text": text}, _part, first=lambda part: part.group == "pdf")


def _part(part: Part) -> dict[str, Any]:
    if part.group == "image":
        return {"type": "input_image", "image_url": part.address, "detail": "auto"}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": parts.file_name(part), "file_data": part.address}


def adapt(traits: Traits, fault: Fault) -> Traits:
    """Traits after a refused request: what it names is left out from now on. Of thinking, only what it alone knows: summaries."""
    detail = openai.detail_of(fault)
    named = {detail.param} if detail.param else set(re.findall(r"\w+", detail.message))
    if named & {"reasoning.summary", "summaries", "summary"}:  # "Your organization must be verified to generate reasoning summaries."
        return traits | {"no thoughts"}
    if not (openai.REJECTED.search(detail.message) or detail.code.startswith("unsupported")):
        return traits
    return traits | {f"no {name}" for name in DROPPABLE if name in named}


# -- in ------------------------------------------------------------------------------------------------------------------


def read(value: Any) -> Completion:
    """A whole answer. Raises Fault: one that failed, one that is still at work, something that is no response."""
    if not isinstance(value, Mapping):
        raise malformed(codec.excerpt(value), "200, but the answer is not a response")
    _raise_failed(value)
    openai.raise_error(value, failed=value.get("type") == "error")
    output = value.get("output")
    if not isinstance(output, list):
        raise malformed(codec.excerpt(value), "200, but the answer has no output")
    if value.get("status") in UNFINISHED:
        raise Fault(
            "bad_request",
            "the server answers in the background, which holynb does not fetch: leave out -p background",
            retry=False,
        )
    parsed, model = _Output(output), openai.text_or_none(value.get("model"))
    answer = conclude(codec.mend(parsed.text), finish(_word(value)), model, usage(value.get("usage")), thoughts=parsed.thoughts)
    tier = openai.text_or_none(value.get("service_tier"))
    return _completed(answer if tier is None else answer.on_tier(tier), parsed)


class _Output:
    """The items of a response: what is said, what was thought, and what the caller is asked to do."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self.text = ""
        self.thoughts: str | None = None
        self.refused = self.called = False
        for item in items:
            if isinstance(item, Mapping):
                self._add(item)

    def _add(self, item: Mapping[str, Any]) -> None:
        kind = item.get("type")
        if kind == "message":
            content = item.get("content")
            for part in content if isinstance(content, list) else [content]:
                if isinstance(part, Mapping) and (refusal := openai.text_or_none(part.get("refusal"))):
                    self.refused = True
                    self.text += refusal
                else:
                    self.text += text([part] if isinstance(part, Mapping) else part)
        elif kind == "reasoning":
            parts = [p for name in ("summary", "content") if isinstance(listed := item.get(name), list) for p in listed]
            words = [t for p in parts if isinstance(p, Mapping) and (t := openai.text_or_none(p.get("text")))]
            self.thoughts = codec.mend(THOUGHT_GAP.join(filter(None, (self.thoughts, *words))))
        elif kind in CALLS:
            self.called = True


class ResponseEvents(StreamReader):
    """The reader of a stream of response events."""

    def __init__(self) -> None:
        super().__init__()
        self._output = _Output()
        self._in_pieces = False
        self._items: list[Any] = []  # that have ended: a gateway's last event may leave them out

    def on_event(self, name: str, chunk: Any) -> str | None:
        """An event's text. The last event has the usage and says how the answer ended. Raises Fault for one that failed."""
        if not isinstance(chunk, dict) or not isinstance(kind := chunk.get("type") or name, str):
            raise malformed(codec.excerpt(chunk), "the server's stream holds an event that does not belong to a response")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            if piece := text(chunk.get("delta")):  # an empty one promises no more of them
                self._in_pieces = True
                self._output.refused = self._output.refused or kind == "response.refusal.delta"
            return piece
        openai.raise_error(chunk, failed=kind == "error")
        if isinstance(response := chunk.get("response"), dict):
            return self._on_response(kind, response)
        if kind.startswith("response.reasoning"):
            return self._on_thought(kind, chunk)
        if kind.startswith("response.output_item") and isinstance(item := chunk.get("item"), dict):
            self._output.called = self._output.called or item.get("type") in CALLS
            self.thinking = self.thinking or item.get("type") == "reasoning"
            if kind == "response.output_item.done":
                self._items.append(item)
            return None
        if not kind.startswith("response."):
            raise malformed(codec.excerpt(chunk), "the server's stream holds an event that does not belong to a response")
        return "" if kind.startswith(_AT_WORK) else None  # progress without text

    def _on_response(self, kind: str, response: dict[str, Any]) -> str | None:
        """What an event about the whole response says: which model answers, and at the end how it went."""
        self.model = self.model or openai.text_or_none(response.get("model"))
        if (tier := openai.text_or_none(response.get("service_tier"))) is not None:
            self.tier = tier  # the last one counts: the first events may still say auto
        if isinstance(reported := response.get("usage"), Mapping) and reported:
            self.usage = usage(reported)
        if (ended := kind.removeprefix("response.")) not in ENDS:
            return None
        _raise_failed(response, failed=ended == "failed")
        self.ended(_word(response, ended))
        self.done = True
        output = response.get("output")
        items: list[Any] = output if isinstance(output, list) and output else self._items
        if self._in_pieces:
            items = [] if self.thoughts else [i for i in items if isinstance(i, Mapping) and i.get("type") == "reasoning"]
        whole = _Output(items)  # of a gateway that sends no pieces, or none of the thoughts
        if not self.thoughts and whole.thoughts:
            self.think(whole.thoughts)
        if self._in_pieces:
            return None
        self._output = whole
        return whole.text or None

    def _on_thought(self, kind: str, chunk: dict[str, Any]) -> str | None:
        self.thinking = True
        if kind == "response.reasoning_summary_part.added":
            return self.think(THOUGHT_GAP) if self.thoughts else None
        return self.think(delta) if kind.endswith(".delta") and isinstance(delta := chunk.get("delta"), str) else None

    def end(self) -> Completion:
        """The whole answer, a refusal marked as one. Raises Fault."""
        return _completed(super().end(), self._output)


def _word(response: Mapping[str, Any], otherwise: str | None = None) -> Any:
    """Why a response ended: its status, or what made it incomplete. `otherwise`: the name of the event, where it has no status."""
    status, details = response.get("status", otherwise), response.get("incomplete_details")
    reason = details.get("reason") if status == "incomplete" and isinstance(details, Mapping) else None
    return reason if finish(reason) else status


def _completed(answer: Completion, output: _Output) -> Completion:
    """The answer, a refusal marked as one. One that is nothing but the call of a tool ended by it."""
    only_called = output.called and answer.finish_reason in ("stop", "unknown") and not answer.text.strip()
    reason = "refusal" if output.refused else "tool" if only_called else answer.finish_reason
    return answer if reason == answer.finish_reason else replace(answer, finish_reason=reason)


def _raise_failed(response: Mapping[str, Any], *, failed: bool = False) -> None:
    """Raise the Fault of a response that failed, with what it cost."""
    if not failed and response.get("status") != "failed":
        return
    error = response.get("error")
    error = error if isinstance(error, Mapping) else {}
    code, words = openai.text_or_none(error.get("code")) or "", openai.text_or_none(error.get("message")) or "the response failed"
    fault = to_fault(400 if code in OF_THE_REQUEST else 500, ErrorDetail(words, code), {}, codec.excerpt(response))
    counted = usage(response.get("usage"))
    fault.usage = None if counted == Usage() else counted
    raise fault


def usage(reported: Any) -> Usage:
    """Token counts, None where not reported: chat completions' under other names."""
    return counts.usage({NAMES.get(k, k): v for k, v in reported.items()} if isinstance(reported, Mapping) else None)


WIRE = Wire(url, openai.headers, body, read, ResponseEvents, openai.classify, quotas.openai, adapt=adapt, name="responses")
