"""Where a request's JSON says how much of its beginning the provider's prompt cache keeps (`Request.cache`). Pure.

The text of a prompt stays what it is: a block of text is cut in two where the mark falls. Nothing is marked where a piece would be blank,
which servers refuse, or where a turn holds something beside text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holynb.cache_mark import CacheMark
from holynb.config import prompt_caches
from holynb.errors import Fault
from holynb.types import Message, Request

__all__ = ["NAMES", "anthropic", "bedrock", "learned", "openai", "responses"]

#: Fields of `-p` with which a person sees to the cache; nothing is marked beside them.
NAMES = frozenset({"cache_control", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cachedContent"})
#: A trait: this server takes no marks.
REFUSED = "no cache"
_ABOUT_CACHES = re.compile(r"cache_?(?:control|point)|prompt[ _]cach", re.IGNORECASE)

Block = dict[str, Any]


def learned(traits: frozenset[str], fault: Fault, request: Request) -> frozenset[str]:
    """Traits after a refused request: a server that names the mark gets none any more."""
    marked = request.cache is not None and REFUSED not in traits
    return traits | {REFUSED} if marked and _ABOUT_CACHES.search(f"{fault.message} {fault.raw or ''}") else traits


def _mark(request: Request, traits: frozenset[str]) -> CacheMark | None:
    return None if REFUSED in traits else request.cache


# -- wires with a field for the system prompt --------------------------------------------------------------------------
def anthropic(payload: dict[str, Any], request: Request, traits: frozenset[str]) -> None:
    """Mark the block of Messages' JSON with which the beginning ends."""
    mark = _mark(request, traits)
    if mark is None or mark.turn < 0:
        return
    control = {"type": "ephemeral", "ttl": "1h"} if mark.hour else {"type": "ephemeral"}

    def blocks(text: str, end: int) -> list[Block] | None:
        pieces = _cut(text, end)
        rest = [{"type": "text", "text": text} for text in pieces[1:]] if pieces else []
        return [{"type": "text", "text": pieces[0], "cache_control": control}, *rest] if pieces else None

    turn, end = _joined(request.messages, mark)
    if turn is None:
        payload["system"] = blocks(payload.get("system", ""), end) or payload.get("system", "")
    elif isinstance(content := payload["messages"][turn]["content"], str):
        payload["messages"][turn] = {**payload["messages"][turn], "content": blocks(content, end) or content}


def bedrock(payload: dict[str, Any], request: Request, traits: frozenset[str]) -> None:
    """Put a cachePoint into Converse's JSON, behind the beginning."""
    mark = _mark(request, traits)
    if mark is None or mark.turn < 0 or "no system" in traits:
        return
    point = {"cachePoint": {"type": "default", "ttl": "1h"} if mark.hour else {"type": "default"}}
    turn, end = _joined(request.messages, mark)
    place, name = (payload, "system") if turn is None else (payload["messages"][turn], "content")
    blocks = place.get(name)
    if isinstance(blocks, list) and len(blocks) == 1 and set(blocks[0]) == {"text"} and (pieces := _cut(blocks[0]["text"], end)):
        place[name] = [{"text": pieces[0]}, point, *({"text": text} for text in pieces[1:])]


def _joined(messages: tuple[Message, ...], mark: CacheMark) -> tuple[int | None, int]:
    """The mark's place in what these wires make of the messages: the number of the turn (None: the system prompt), and characters of it.

    System messages are joined into one text, and so are turns of one role that follow each other.
    """
    system = messages[mark.turn].role == "system"
    turn, length, role = -1, 0, None
    for i, message in enumerate(messages[: mark.turn + 1]):
        if (message.role == "system") != system:
            continue
        same = message.role == role
        turn, role = turn + (not same), message.role
        length = (length + 2 if same else 0) + (mark.chars if i == mark.turn else len(message.content))
    return (None if system else turn), length


# -- wires with a list of messages -------------------------------------------------------------------------------------
def openai(payload: dict[str, Any], request: Request, traits: frozenset[str]) -> None:
    """Mark the part of a chat's message with which the beginning ends, in its provider's words, or say which requests belong together."""
    if (mark := _mark(request, traits)) is None:
        return
    how = _how(request)
    if how == "marks":
        control = {"type": "ephemeral", "ttl": "1h"} if mark.hour else {"type": "ephemeral"}
        _cut_message(payload["messages"], mark, "text", {"cache_control": control})
        return
    _keyed(payload, mark, how)
    if how == "breakpoints":
        _cut_message(payload["messages"], mark, "text", {"prompt_cache_breakpoint": {"mode": "explicit"}})


def responses(payload: dict[str, Any], request: Request, traits: frozenset[str]) -> None:
    """The same in a response's JSON, whose instructions take no mark: there they are the first turn of the input."""
    if (mark := _mark(request, traits)) is None:
        return
    how = _how(request)
    _keyed(payload, mark, how)
    if how != "breakpoints" or mark.turn < 0:
        return
    turns = list(payload["input"])
    if "instructions" in payload and len(turns) == len(request.messages) - 1:
        turns.insert(0, {"role": "system", "content": payload["instructions"]})
    if len(turns) == len(request.messages) and _cut_message(turns, mark, "input_text", {"prompt_cache_breakpoint": {"mode": "explicit"}}):
        payload["input"] = turns
        payload.pop("instructions", None)


def _how(request: Request) -> str:
    rules = prompt_caches.find(request.route.provider, request.route.model)
    return "" if rules is None else rules.how


def _keyed(payload: dict[str, Any], mark: CacheMark, how: str) -> None:
    if how in ("key", "breakpoints") and mark.key:
        payload["prompt_cache_key"] = mark.key
    if how == "breakpoints":
        payload["prompt_cache_options"] = {"mode": "explicit"}  # else the whole prompt is written, with what its row alone has


def _cut_message(turns: list[Any], mark: CacheMark, kind: str, control: Mapping[str, Any]) -> bool:
    """Cut the message in which the mark falls, and put `control` into its first part. Assistants' turns take no mark."""
    turn = turns[mark.turn] if 0 <= mark.turn < len(turns) else {}
    content = turn.get("content")
    pieces = _cut(content, mark.chars) if isinstance(content, str) and turn.get("role") != "assistant" else None
    if not pieces:
        return False
    parts: list[Block] = [{"type": kind, "text": text} for text in pieces]
    parts[0] |= control
    turns[mark.turn] = {**turn, "content": parts}
    return True


def _cut(text: str, end: int) -> list[str] | None:
    """The text before the mark, and what follows it; None where one of them would be blank."""
    pieces = [piece for piece in (text[:end], text[end:]) if piece]
    return pieces if end and pieces and all(piece.strip() for piece in pieces) else None
