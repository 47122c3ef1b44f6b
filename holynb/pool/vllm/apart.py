"""Chat answers of a server that leaves thoughts in their text → with them in `reasoning_content`. Knows OpenAI's JSON; no sockets."""

from __future__ import annotations

import json
from typing import Any

from holynb.thoughts import HeadSplitter

__all__ = ["ThoughtsApart"]


class ThoughtsApart:
    """For one request of so many `choices`. What is no chat answer, or has thoughts in a field of their own, passes as it came."""

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._splitters: dict[int, HeadSplitter | None] = {}

    def whole(self, body: bytes) -> bytes:
        """A whole answer."""
        return self._changed(body, "message")

    def event(self, event: bytes) -> bytes:
        """An event of a stream, with or without its blank line."""
        if not event.startswith(b"data: {") or self._settled:
            return event
        data = event[6:].rstrip(b"\n")
        changed = self._changed(data, "delta")
        return event if changed is data else b"data: " + changed + event[6 + len(data) :]

    @property
    def _settled(self) -> bool:
        """All choices have come to their answers."""
        return len(self._splitters) >= self._choices and all(s is None or s.answering for s in self._splitters.values())

    def _changed(self, data: bytes, name: str) -> bytes:
        try:
            value = json.loads(data)
            choices = [(c, c[name]) for c in value["choices"]]
            changed = [self._split(choice, part, whole=name == "message") for choice, part in choices]
        except (ValueError, KeyError, TypeError, AttributeError):
            return data
        return json.dumps(value, ensure_ascii=False).encode() if any(changed) else data

    def _split(self, choice: dict[str, Any], part: dict[str, Any], *, whole: bool) -> bool:
        """Split the text of a message or a piece of one; returns whether that changed it."""
        index, content, last = choice.get("index") or 0, part.get("content") or "", whole or bool(choice.get("finish_reason"))
        if part.get("reasoning_content") or part.get("reasoning"):
            self._splitters[index] = None
        if not content and (not last or index not in self._splitters):
            return False
        splitter = self._splitters.setdefault(index, HeadSplitter())
        if splitter is None:
            return False
        thought, text = splitter.push(content, last=last)
        if thought:
            part["reasoning_content"] = thought
        if text != content:
            part["content"] = text
        return bool(thought) or text != content
