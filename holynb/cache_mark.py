"""How much of a request's beginning a provider's prompt cache keeps. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheMark"]


@dataclass(frozen=True, slots=True)
class CacheMark:
    """How much of a request's beginning the provider's prompt cache keeps: `chars` of message `turn` with all before it. -1: nothing.

    `key` is what requests with the same beginning share. `hour`: for an hour, else as long as is usual.
    """

    turn: int
    chars: int = 0
    key: str = ""
    hour: bool = False
