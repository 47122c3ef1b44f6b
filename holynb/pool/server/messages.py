"""The messages of a chat and the prompts of a completion, as requests write them. Pure; knows no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from holynb.pool.server.apierror import ApiError
from holynb.poolfields import is_token_id

__all__ = ["Message", "parse_messages", "parse_prompts"]

Message = Mapping[str, Any]

_ROLES = {"system", "developer", "user", "assistant", "tool"}


def parse_messages(value: Any) -> tuple[Message, ...]:
    """The messages, each with a role and text. What else a message holds is the template's to read. Raises ApiError 400."""
    if not isinstance(value, list) or not value:
        raise ApiError(400, "messages must be a list of at least one message.", param="messages")
    messages = tuple(_message(m, i) for i, m in enumerate(value))
    if len(messages) > 1 and messages[-1]["role"] == messages[-2]["role"] == "assistant":
        raise ApiError(400, "messages ends with two messages of the assistant: there is nothing left to answer.", param="messages")
    return messages


def _message(value: Any, i: int) -> Message:
    where = f"messages.{i}"
    if not isinstance(value, dict) or not _is_one_of(value.get("role"), _ROLES):
        raise ApiError(400, f"{where} needs a role: one of {', '.join(sorted(_ROLES))}.", param=f"{where}.role")
    more = {k: v for k, v in value.items() if v is not None and k not in ("role", "content", "tool_calls")}
    calls = value.get("tool_calls")
    if calls:
        more["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls")
    content = "" if calls and value.get("content") is None else _content(value.get("content"), f"{where}.content")
    return {**more, "role": "system" if value["role"] == "developer" else value["role"], "content": content}


def _content(content: Any, where: str) -> str:
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) and _is_one_of(p.get("type"), {"text", "input_text"}) else None for p in content]
        if any(not isinstance(p, str) for p in parts):
            raise ApiError(400, f"{where} holds something other than text; this pool reads text only.", param=where)
        return "".join(str(p) for p in parts)
    if not isinstance(content, str):
        raise ApiError(400, f"{where} must be text.", param=where)
    return content


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Calls of an earlier turn. Their arguments come as JSON text, and templates write them as objects."""
    if not isinstance(calls, list) or not all(isinstance(c, dict) and isinstance(c.get("function"), dict) for c in calls):
        raise ApiError(400, f"{where} must be a list of calls, each with a function.", param=where)
    return [{**c, "function": {**c["function"], "arguments": _arguments(c["function"].get("arguments"))}} for c in calls]


def _arguments(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value or {}
    except ValueError:
        return value


def parse_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """A text, ids, or a list of either. Raises ApiError 400."""
    many = value if isinstance(value, list) and value and not all(is_token_id(v) for v in value) else [value]
    out: list[str | tuple[int, ...]] = []
    for one in many:
        if isinstance(one, str):
            out.append(one)
        elif isinstance(one, list) and one and all(is_token_id(v) for v in one):
            out.append(tuple(one))
        else:
            raise ApiError(400, "prompt must be text, a list of texts, or token ids.", param="prompt")
    return tuple(out)


def _is_one_of(value: Any, words: Collection[str]) -> bool:
    """Whether it is one of these words. A list or an object is not (and cannot be looked up in a set)."""
    return isinstance(value, str) and value in words
