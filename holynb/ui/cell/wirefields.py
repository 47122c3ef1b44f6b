"""Fields of a request that `-p` can set, by the wire of a route, for completion: what each wire knows by name. Sends no request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

__all__ = ["names", "values"]

#: Of chat completions, Responses and Messages, beside those that have an option of their own. tests/ui/cell/test_wirefields.py holds them
#: against the vendors' SDKs.
_CHAT = (
    *(
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "response_format",
        "reasoning_effort",
        "verbosity",
    ),
    *("metadata", "store", "user", "safety_identifier", "prompt_cache_key", "service_tier", "tools", "tool_choice", "parallel_tool_calls"),
    *("prediction", "web_search_options"),
)
_RESPONSES = (
    *("reasoning", "text", "include", "instructions", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "store"),
    *("tools", "tool_choice", "max_tool_calls", "parallel_tool_calls", "truncation", "top_logprobs", "user"),
)
_MESSAGES = ("thinking", "metadata", "service_tier", "tools", "tool_choice", "output_config", "container", "inference_geo", "cache_control")
_GENERATION = ("topK", "presencePenalty", "frequencyPenalty", "responseMimeType", "responseSchema", "thinkingConfig", "responseLogprobs")
_SIMULATOR = ("fault", "times", "at", "retry_after", "seconds", "latency", "thoughts", "broken")
#: What an option of the cell sets, and what holynb itself writes.
_OWN = {"n", "temperature", "top_p", "seed", "stop", "max_tokens", "max_completion_tokens"}


def names(route: str | None) -> list[str]:
    """Of the wire of this route, an alias or a default; none where it is unknown."""
    wire = _wire(route)
    fields: Mapping[str, Callable[[], Iterable[str]]] = {
        "openai": lambda: _CHAT,
        "azure": lambda: _CHAT,
        "responses": lambda: _RESPONSES,
        "azure-responses": lambda: _RESPONSES,
        "anthropic": lambda: _MESSAGES,
        "gemini": _gemini,
        "vertex": _gemini,
        "bedrock": _bedrock,
        "pool": _pool,
        "sim": lambda: _SIMULATOR,
    }
    return [name for name in fields[wire]() if name not in _OWN] if wire in fields else []


def values(route: str | None, name: str) -> list[str]:
    """What this field may be, where that is a short list."""
    wire = _wire(route)
    if wire == "sim" and name == "fault":
        from holynb.engines import sim

        return list(sim.FAULTS)
    if wire == "sim" and name == "at":
        from holynb.engines import sim

        return list(sim.MODELS)
    if wire in ("pool", "openai", "azure") and name == "reasoning_effort":
        from holynb.efforts import EFFORTS

        return list(EFFORTS)
    return ["true", "false"] if wire == "pool" and _is_switch(name) else []


def _wire(route: str | None) -> str:
    from holynb.config import settings
    from holynb.errors import UserError

    try:
        found = settings.route(route)
    except UserError:  # it is still being typed
        return ""
    provider = settings.providers().get(found.provider)
    return "" if provider is None else provider.wire


def _gemini() -> Iterable[str]:
    from holynb.engines import gemini

    return (*_GENERATION, *gemini.TOP_LEVEL_FIELDS)


def _bedrock() -> Iterable[str]:
    from holynb.engines import bedrock

    return bedrock.TOP_LEVEL_FIELDS


def _pool() -> Iterable[str]:
    from holynb import poolfields

    return poolfields.cell_fields()


def _is_switch(name: str) -> bool:
    from holynb import poolfields

    return poolfields.cell_fields().get(name, False)
