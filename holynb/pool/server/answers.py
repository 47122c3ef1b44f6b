"""Answers in OpenAI's wire format: chunks of a stream, whole completions, usage. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from holynb.pool.server.api import ApiRequest

__all__ = ["Choice", "chunk", "completion", "head", "usage"]

#: Text, finish reason and log probabilities of one choice.
Choice = tuple[str, str | None, Any]


def _version() -> str:
    try:
        return metadata.version("holynb")
    except metadata.PackageNotFoundError:  # run from a folder
        return "source"


#: What computes the answers, as far as it decides them: the same seed may give others with another version.
_FINGERPRINT = f"holynb-{_version()}"


def chunk(request: ApiRequest, head: Mapping[str, Any], choice: int, piece: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream. `piece` has text, finish (the last one) or role (the first one), and logprobs where asked for."""
    item = {"index": choice, "logprobs": piece.get("logprobs"), "finish_reason": piece.get("finish")}
    if not request.chat:
        item["text"] = piece.get("text", "")
    else:
        item["delta"] = {k: v for k, v in (("role", piece.get("role")), ("content", piece.get("text"))) if v is not None}
    return {**head, "object": "chat.completion.chunk" if request.chat else "text_completion", "choices": [item]}


def completion(request: ApiRequest, head: Mapping[str, Any], choices: Sequence[Choice], usage: Mapping[str, Any]) -> dict[str, Any]:
    """A whole response."""
    items: list[dict[str, Any]] = [
        {"index": i, "finish_reason": finish, "logprobs": logprobs}
        | ({"message": {"role": "assistant", "content": text, "refusal": None}} if request.chat else {"text": text})
        for i, (text, finish, logprobs) in enumerate(choices)
    ]
    return {**head, "object": "chat.completion" if request.chat else "text_completion", "choices": items, "usage": dict(usage)}


def usage(tokens_in: int, tokens_out: int, cached: int, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The usage object. `cached`: prompt tokens that were in the KV cache. `notes` is ours, and there only where it is not empty."""
    total = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {**total, "prompt_tokens_details": {"cached_tokens": cached}} | ({"notes": list(notes)} if notes else {})


def head(request: ApiRequest, number: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of a response share."""
    prefix = "chatcmpl-" if request.chat else "cmpl-"
    return {"id": prefix + number, "created": int(time.time()), "model": model, "system_fingerprint": _FINGERPRINT}
