"""The pool's wire: request → body, events of a stream → answer, error → Fault. Pure; knows no sockets and no processes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from holynb.engines import choices, thinking
from holynb.engines.counts import usage
from holynb.engines.finish import Finish, finish, worse
from holynb.errors import Fault
from holynb.full_context import full_context_note
from holynb.types import Completion, Request, Route, Usage

__all__ = ["NO_MEMORY", "PoolEnding", "StreamFold", "body", "fault", "refusal"]

#: A substring of a pool's reason for its end.
NO_MEMORY = "ran out of memory"

#: A pool's notes on an answered row → the text for people.
_NOTES = {
    "context_full": "",  # with its tokens, once they are known
    "oom": "oom: the pool's memory ran out under this row, which was kept and written to its end",
    "thinks_not": "the pool's model does not think: its chat template knows no thinking",
    "thinks_always": "the pool's model always thinks: its chat template has no way to leave it out",
    "thinks_little": "the pool's model always thinks: it thought with the least effort that its chat template takes",
    "closed_at_once": "the pool's model always thinks: its thought was ended at once",
    "no_levels": "the chat template of the pool's model takes no level of thinking: it thought as much as it does by itself",
    "no_budget": "the pool's model has no tokens for its tags, so its thinking was not held to the budget",
}

#: The server's error codes → kinds of Fault.
_KINDS = {
    "context_length_exceeded": "context_length",
    "oom": "oom",
    "model_not_found": "not_found",
    "invalid_api_key": "auth",
    "replica_died": "server",
    "pool_failed": "connection",
    "server_error": "server",
    "not_finite": "server",
    "unsupported_parameter": "bad_request",
    "invalid_schema": "bad_request",
}


class PoolEnding(Fault):
    """The pool takes no more rows, because it ends or has failed."""


class StreamFold:
    """The reader of one stream. `admitted`: the row has left the pool's queue; `over`: the stream has ended.

    `thought`: what the last line that `feed` read thinks.
    """

    def __init__(self) -> None:
        self.admitted = False
        self.over = False
        self.thought = ""
        self._thoughts: list[str] = []
        self._pieces: list[str] = []
        self._finish: Finish | None = None
        self._model: str | None = None
        self._usage = Usage()
        self._notes: list[str] = []
        self._thinking = False
        self._stop_string = ""

    def feed(self, line: bytes) -> str | None:
        """The text of one line; "" where the row only left the queue, None for a line without text. Raises Fault."""
        self.thought = ""
        if self.over or not line.startswith(b"data:"):
            return None
        if line == b"data: [DONE]":
            self.over = True
            return None
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError) as exc:
            if not line[5:].strip():
                return None
            raise Fault("server", "The pool sent an event that is not JSON.") from exc
        if event is None or event == "":
            return None
        if not isinstance(event, dict):
            raise Fault("server", "The pool sent an event that does not belong to an answer.")
        if error := event.get("error"):
            raise fault(error if isinstance(error, dict) else {"message": error}, None)
        self._model = event.get("model") or self._model
        if counts := event.get("usage"):
            self._usage = usage(counts)
            self._notes = [note for note in counts.get("notes") or () if note in _NOTES]
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue  # a second answer, which is ignored
            self.admitted = True
            if (ended := finish(choice.get("finish_reason"))) and (self._finish is None or worse(ended, self._finish)):
                self._finish = ended
                self._stop_string = stop if isinstance(stop := choice.get("stop_reason"), str) else ""
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
            if (len(delta) > 1 or not text) and (thought := choices.thoughts(delta)) is not None:
                self._thinking, self.thought = True, thought
                self._thoughts.append(thought)
            self._pieces.append(text)
            return str(text)
        return None

    def thinking_lines(self, route: Route) -> list[str]:
        """What its notes say of thinking, as lines about the route: they hold for every row that asks for as much."""
        words = [_NOTES[note] for note in self._notes if note not in ("oom", "context_full")]
        return [f"{w[0].upper()}{w[1:]}.".replace("The pool's model", str(route)).replace("the pool's model", str(route)) for w in words]

    def completion(self, device_s: float | None = None) -> Completion:
        """The whole answer, with its share of the devices' time. Raises Fault (truncated) where the stream broke off."""
        if not self.over or self._finish is None:
            raise Fault("truncated", "The pool's stream ended before its answer did.")
        counted, (reason, word, _) = replace(self._usage, device_s=device_s), self._finish
        if reason in ("error", "content_filter"):  # vLLM's words behind a pool
            raise Fault("server", f"the pool failed in the middle of the answer ({word})", usage=counted, finish_reason=reason)
        notes = [*filter(None, (_NOTES[note] for note in self._notes)), *([f'the finish reason was "{word}"'] if reason == "other" else [])]
        if "context_full" in self._notes:
            notes.append(full_context_note((counted.tokens_in or 0) + (counted.tokens_out or 0)))
        if self._stop_string and not "".join(self._pieces).strip():
            notes.append(f"the stop string {json.dumps(self._stop_string, ensure_ascii=False)} ended it before its first word")
        thoughts, thinking = "".join(self._thoughts), self._thinking or bool(counted.tokens_reasoning)
        reasoning = thoughts if thoughts.strip() else None
        return Completion("".join(self._pieces), reason, self._model, counted, "; ".join(notes) or None, thinking, reasoning)


def body(request: Request, model: str, *, vllm: bool = False) -> bytes:
    """The request's JSON. Always streamed, so that a row in the pool's queue can be told from a silent one. `vllm`: of a pool of vLLM's."""
    s = request.sampling
    optional = {
        "max_tokens": s.max_tokens,
        "temperature": s.temperature,
        "top_p": s.top_p,
        "seed": s.seed,
        "stop": list(s.stop) or None,
    }
    body: dict[str, Any] = {"model": model, "messages": [{"role": m.role, "content": m.content} for m in request.messages]}
    body |= {name: value for name, value in optional.items() if value is not None}
    thinking.apply(body, request, frozenset(), "vllm" if vllm else "pool")
    thinking.add(body, s.extra)
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    payload = body | {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")


def refusal(body: bytes, status: int) -> Fault:
    """The Fault for a reply that is not 200."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        error = None
    if not isinstance(error, dict):
        error = {"message": f"The pool sent something that is not an answer: {body[:200]!r}"}
    return fault(error, status)


def fault(error: dict[str, Any], status: int | None) -> Fault:
    """The Fault for the server's error object. `status`: None where it came in a stream."""
    code, message = str(error.get("code")), str(error.get("message"))
    kind = _KINDS.get(code) or ("bad_request" if status is not None and 400 <= status < 500 else "server")
    raw = json.dumps(error, ensure_ascii=False)[:2000]
    if code == "pool_failed":
        return PoolEnding("oom" if NO_MEMORY in message else kind, message, retry=False, status=status, raw=raw)
    # The same numbers come of the same weights.
    return Fault(kind, message, status=status, raw=raw, **({"retry": False} if code == "not_finite" else {}))
