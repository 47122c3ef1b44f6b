"""Choices of OpenAI's shape: which of several is the first, its text, whether it thinks. Knows no request and no stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.engines import codec
from holynb.engines.classify import malformed

__all__ = ["called", "first_choice", "text", "thought"]

#: Types of the parts of a content that are its text. Thinking comes as a part, too (Mistral).
TEXT_PARTS = (None, "text", "output_text")


def first_choice(choices: Any) -> Mapping[str, Any] | None:
    """The choice of index 0, or that has none; of several that come in any order the others are other answers."""
    listed = choices if isinstance(choices, list) else ()
    if listed and isinstance(first := listed[0], dict) and not first.get("index"):
        return first  # nearly always, and once per piece of an answer
    return next((c for c in listed if isinstance(c, Mapping) and c.get("index") in (0, None, "0")), None)


def thought(message: Mapping[str, Any]) -> bool:
    """Whether a message, or a piece of one, holds thinking."""
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    as_part = any(isinstance(p, Mapping) and p.get("type") not in TEXT_PARTS for p in parts)
    return as_part or bool(message.get("reasoning_content") or message.get("reasoning") or message.get("reasoning_details"))


def called(message: Mapping[str, Any]) -> bool:
    """Whether a message, or a piece of one, calls a tool."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def text(content: Any) -> str:
    """Text, or the text among parts of content. Raises Fault for a number: what a gateway made one of, 007 or 1.10, is lost."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_part, content))
    if isinstance(content, int | float):
        raise malformed(codec.excerpt(content), "the answer's content is not text")
    return _part(content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    words = part.get("text") if isinstance(part, Mapping) and part.get("type") in TEXT_PARTS else None
    return words if isinstance(words, str) else ""
