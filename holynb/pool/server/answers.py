"""Answers in OpenAI's wire format: chunks of a stream, whole completions, usage. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from holynb.pool.server.api import ApiRequest

__all__ = ["Choice", "chunk", "completion", "head", "usage"]


@dataclass(slots=True)
class Choice:
    """One whole answer: its text, what was thought before it, how many tokens it has and the thought has, the stop string that ended it."""

    text: str = ""
    thought: str = ""
    finish: str | None = None
    logprobs: Any = None
    tokens: int = 0
    thought_tokens: int = 0
    stopped: str = ""


#: Parts of a piece → fields of a delta, under the name that DeepSeek's API has for thoughts.
_DELTA = {"role": "role", "thought": "reasoning_content", "text": "content"}


def _version() -> str:
    try:
        return metadata.version("holynb")
    except metadata.PackageNotFoundError:  # run from a folder
        return "source"


#: What computes the answers, as far as it decides them: the same seed may give others with another version.
_FINGERPRINT = f"holynb-{_version()}"


def chunk(request: ApiRequest, head: Mapping[str, Any], choice: int, piece: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream. `piece` has text, thought, finish (the last one) or role (the first one), and logprobs where asked for.

    `stopped`, of the last one: the stop string, which has the name that it has in vLLM's API.
    """
    item: dict[str, Any] = {"index": choice, "logprobs": piece.get("logprobs"), "finish_reason": piece.get("finish")}
    item |= _stop_reason(piece.get("stopped"))
    if not request.chat:
        item["text"] = piece.get("text", "")
    else:
        item["delta"] = {name: v for part, name in _DELTA.items() if (v := piece.get(part)) is not None}
    return {**head, "object": "chat.completion.chunk" if request.chat else "text_completion", "choices": [item]}


def completion(request: ApiRequest, head: Mapping[str, Any], choices: Sequence[Choice], usage: Mapping[str, Any]) -> dict[str, Any]:
    """A whole response."""
    items: list[dict[str, Any]] = [
        {"index": i, "finish_reason": c.finish, "logprobs": c.logprobs, **_stop_reason(c.stopped)}
        | ({"message": _message(c)} if request.chat else {"text": c.text})
        for i, c in enumerate(choices)
    ]
    return {**head, "object": "chat.completion" if request.chat else "text_completion", "choices": items, "usage": dict(usage)}


def _stop_reason(stopped: str | None) -> dict[str, str]:
    return {"stop_reason": stopped} if stopped else {}


def _message(choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.text, "refusal": None}
    return message | ({"reasoning_content": choice.thought} if choice.thought else {})


def usage(tokens_in: int, tokens_out: int, cached: int, *, thought: int | None = None, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The usage object. `cached`: prompt tokens that were in the KV cache. `thought`: tokens before the answer, tags included.

    None: thoughts are not told from the text. `notes` is ours, and there only where it is not empty.
    """
    total = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    details = {} if thought is None else {"completion_tokens_details": {"reasoning_tokens": thought}}
    return {**total, "prompt_tokens_details": {"cached_tokens": cached}, **details} | ({"notes": list(notes)} if notes else {})


def head(request: ApiRequest, number: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of a response share."""
    prefix = "chatcmpl-" if request.chat else "cmpl-"
    return {"id": prefix + number, "created": int(time.time()), "model": model, "system_fingerprint": _FINGERPRINT}
