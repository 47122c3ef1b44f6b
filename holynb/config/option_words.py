"""The option that is meant by a word that is none: by the name that a provider gives its field, else the nearest. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from holynb.errors import closest

__all__ = ["nearest"]

#: Fields of providers' own requests, as a person who knows them types them → the option that is sent as each.
FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"), "max_tokens"),
    **dict.fromkeys(("effort", "reasoning", "reasoning_effort", "thinking", "thinking_level"), "think"),
    **dict.fromkeys(("budget_tokens", "enable_thinking", "no_think", "thinking_budget"), "think"),
    **dict.fromkeys(("flex", "priority", "service_tier"), "tier"),
}


def nearest(word: str, known: Collection[str]) -> str:
    """`" Did you mean X?"` for the end of a line, or `""`. `word` and `known` are flags (`--max-tokens`) or names (`max_tokens`)."""
    name = FIELDS.get(word.lstrip("-").replace("-", "_").lower())
    spelled = f"--{name.replace('_', '-')}" if name is not None and word.startswith("-") else name
    return f" Did you mean {spelled}?" if spelled in known else closest(word, known)
