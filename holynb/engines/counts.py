"""Token counts of OpenAI's shape, as its many servers send them, read as they are billed. Knows no request and no stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.types import Usage

__all__ = ["count", "usage"]

#: A count of tokens from here on is none: sums of such have to stay within a column of the run log.
MAX_COUNT = 2**53


def count(value: Any) -> int | None:
    """A count of tokens; None for anything else."""
    return value if value.__class__ is int and 0 <= value < MAX_COUNT else None


def usage(counts: Any) -> Usage:
    """Token counts, None where not reported. The prompt's include cached tokens."""
    if not isinstance(counts, dict):  # of parsed JSON
        return Usage()
    prompt, out, total = count(counts.get("prompt_tokens")), count(counts.get("completion_tokens")), count(counts.get("total_tokens"))
    details = _details(counts, "prompt_tokens_details")
    cached, written = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    if cached is None:
        cached = count(counts.get("prompt_cache_hit_tokens"))  # DeepSeek
    thought = count(_details(counts, "completion_tokens_details").get("reasoning_tokens"))
    if thought is None:
        thought = count(counts.get("reasoning_tokens"))  # SGLang, Perplexity
    if out is not None:
        # What the total has beyond prompt and completion; a relay of Anthropic's may leave cached tokens out of the prompt.
        beside = 0 if prompt is None or total is None or (not thought and (cached or written)) else total - prompt - out
        out += _beside(out, thought or 0, beside)
    return Usage(prompt, out, cached, written, tokens_reasoning=thought)


def _beside(out: int, thought: int, beside: int) -> int:
    """Billed tokens that are no part of completion_tokens: thoughts, which OpenAI and most others count among them.

    xAI counts them beside (docs.x.ai, consumption and rate limits: in total_tokens alone), Perplexity not even in the total; Gemini's
    compatible endpoint says nothing of them but the total (discuss.ai.google.dev/t/127400).
    """
    if thought:
        return thought if beside >= thought or thought > out else 0
    return max(0, beside)


_NO_DETAILS: Mapping[str, Any] = {}


def _details(counts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = counts.get(name)
    return details if isinstance(details, dict) else _NO_DETAILS
