"""A prompt cache by Anthropic's rules, and a server of Messages that has one: minimum lengths, lifetimes, and when an entry can be read.

An entry is found by all that stands before a mark; it can be read once the answer to the request that writes it has begun; it lives for
five minutes (or an hour) after the last request that read or wrote it came. What is shorter than the minimum is neither written nor read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

INPUT, READ, WRITE, WRITE_1H = 1.0, 0.1, 1.25, 2.0
LOOKBACK = 20


def tokens(text: str) -> int:
    """Four characters a token."""
    return -(-len(text) // 4)


@dataclass
class Entry:
    lifetime: float
    until: float
    readable: float = float("inf")


@dataclass
class PromptCaching:
    """`arrives` when a request comes: its usage; `begins` when its answer does."""

    minimum: int = 1024
    entries: dict[str, Entry] = field(default_factory=dict)
    bills: list[dict[str, int]] = field(default_factory=list)

    def arrives(self, body: Mapping[str, Any], now: float) -> tuple[dict[str, int], list[str]]:
        """The usage of a request, and the entries that it writes."""
        blocks = list(_blocks(body))
        total = sum(tokens(text) for text, _ in blocks)
        marks = [i for i, (_, control) in enumerate(blocks) if control is not None]
        assert len(marks) <= 4
        assert all(text.strip() for text, control in blocks if control is not None), "cache_control cannot be set for empty text blocks"
        lengths = [sum(tokens(text) for text, _ in blocks[: i + 1]) for i in range(len(blocks))]
        read, written, writes = 0, 0, []
        for mark in marks:
            if lengths[mark] < self.minimum:
                continue
            found = next((i for i in range(mark, max(-1, mark - LOOKBACK), -1) if self._readable(_key(body, blocks, i), now)), None)
            if found is not None:
                read = max(read, lengths[found])
                entry = self.entries[_key(body, blocks, found)]
                entry.until = max(entry.until, now + entry.lifetime)
            if found != mark:
                key, control = _key(body, blocks, mark), blocks[mark][1] or {}
                lifetime = 3600.0 if control.get("ttl") == "1h" else 300.0
                entry = self.entries.get(key)
                if entry is None or entry.until < now:
                    entry = self.entries[key] = Entry(lifetime, now + lifetime)
                entry.until = max(entry.until, now + lifetime)
                writes.append(key)
                written = lengths[mark]
        written = max(0, written - read)
        hour = written if any((blocks[m][1] or {}).get("ttl") == "1h" for m in marks) else 0
        usage = {
            "input_tokens": total - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_1h_input_tokens": hour, "ephemeral_5m_input_tokens": written - hour},
        }
        return usage, writes  # type: ignore[return-value]

    def begins(self, writes: list[str], now: float) -> None:
        for key in writes:
            self.entries[key].readable = min(self.entries[key].readable, now)

    def _readable(self, key: str, now: float) -> bool:
        entry = self.entries.get(key)
        return entry is not None and entry.readable <= now < entry.until


def bill(usage: Mapping[str, Any]) -> float:
    """What an input costs, in the price of a token of input."""
    hour = usage["cache_creation"]["ephemeral_1h_input_tokens"]
    short = usage["cache_creation_input_tokens"] - hour
    return INPUT * usage["input_tokens"] + READ * usage["cache_read_input_tokens"] + WRITE * short + WRITE_1H * hour


def uncached(usage: Mapping[str, Any]) -> float:
    return float(usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"])


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for content in (body.get("system") or [], *(m["content"] for m in body["messages"])):
        for block in [{"text": content}] if isinstance(content, str) else content:
            yield block.get("text") or json.dumps(block.get("source")), block.get("cache_control")


def _key(body: Mapping[str, Any], blocks: list[tuple[str, Any]], last: int) -> str:
    thinking = [body.get("thinking"), (body.get("output_config") or {}).get("effort")]
    return json.dumps([body["model"], thinking, [text for text, _ in blocks[: last + 1]]])
