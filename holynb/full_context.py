"""An answer that ended because its model's context was full: how its note says so, and what helps, which is no larger --max-tokens."""

from __future__ import annotations

__all__ = ["ADVICE", "full_context_note", "is_full"]

_FULL = "the model's context is full"

#: What gives an answer more room.
ADVICE = "shorten the prompt, or use a model with a longer context (of a pool: --max-len)"


def full_context_note(tokens: int | None) -> str:
    """The note of such an answer. `tokens`: of prompt and answer together; None: not known."""
    return f"{_FULL}{'' if tokens is None else f' ({tokens:,} tokens, prompt and answer)'}: {ADVICE}"


def is_full(finish_reason: str | None, note: str | None) -> bool:
    """Whether an answer ended so. Its finish reason is `length`, as where it reached --max-tokens."""
    return finish_reason == "length" and note is not None and _FULL in note
