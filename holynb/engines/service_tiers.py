"""Service tiers on the wire: a provider's words for them, which of them a reply names, and refusals that are about the tier alone. Pure.

What each provider calls a tier is data: `options.tiers` in providers.toml. Each wire puts the word into its own field.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from holynb.errors import Fault
from holynb.types import SERVICE_TIERS, Completion, Endpoint, Request

__all__ = ["UNSAID", "mark", "named", "served", "worded"]

#: The tier of an answer whose server was asked for another than the standard one, and does not say which it used.
UNSAID = "unsaid"

#: What replies call the tiers. OpenAI: default, flex, priority, fast, scale. Anthropic: standard, priority, batch. Gemini: usageMetadata's
#: serviceTier; Vertex: its trafficType. Groq: on_demand. What has no price of ours keeps its name; a word that nobody knows is `other`.
_WORDS = {
    **{word: word for word in (*SERVICE_TIERS, "scale", "batch", "reserved", "ultrafast", "provisioned_throughput")},
    "default": "standard",
    "on_demand": "standard",
    "fast": "priority",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
}
#: Words that name no tier: the server was left to choose, and does not say what it chose.
_NO_TIERS = frozenset({"", "auto", "unspecified", "service_tier_unspecified", "traffic_type_unspecified"})

#: What servers say where a tier has no room: OpenAI's flex (429 resource_unavailable), Groq's (498 capacity_exceeded), Vertex' and
#: Gemini's flex (429 and 503 without a quota's name).
_FULL = re.compile(
    r"resource[ _-]?(?:temporarily )?unavailable|capacity|overloaded|high demand|resource (?:has been )?exhausted|\"UNAVAILABLE\"",
    re.IGNORECASE,
)
_QUOTA_NAMED = re.compile(r"per (?:minute|hour|day)|PerMinute|PerDay|\b[IO]?[RT]P[MD]\b|quota|rate.?limit reached", re.IGNORECASE)
_UNKNOWN = re.compile(r"service.?tier|\bflex\b|\bpriority (?:processing|tier)", re.IGNORECASE)


def worded(request: Request, endpoint: Endpoint) -> Request:
    """The request with the first tier it asks for in the words of the endpoint's provider; with none where that has no word for it."""
    words = endpoint.options.get("tiers")
    word = words.get(request.tiers[0]) if isinstance(words, dict) and request.tiers else None
    return replace(request, tiers=(str(word),) if word else ())


def served(word: Any, endpoint: Endpoint, tiers: tuple[str, ...]) -> str | None:
    """The tier that a reply names, in our words. None where there is one tier alone, or it says nothing and none was asked for."""
    if "tiers" not in endpoint.options:
        return None
    name = word.lower() if isinstance(word, str) else ""
    if name in _NO_TIERS:
        return UNSAID if tiers[:1] not in ((), ("standard",)) else None
    return _WORDS.get(name, "other")


def named(completion: Completion, word: str | None, endpoint: Endpoint, tiers: tuple[str, ...]) -> Completion:
    """The answer with the tier that it, or else this word of its headers, names."""
    tier = served(completion.tier or word, endpoint, tiers)
    return completion if tier == completion.tier else completion.on_tier(tier)


def mark(fault: Fault, tiers: tuple[str, ...]) -> None:
    """Tell a refusal of the tier that was asked from any other. One that is full is waited for, as a rate limit is."""
    if tiers[:1] in ((), ("standard",)):
        return
    words = f"{fault.message} {fault.raw or ''}"
    if fault.kind in ("rate_limit", "server") and fault.status in (429, 498, 503):
        if _FULL.search(words) and not _QUOTA_NAMED.search(fault.message):
            fault.kind, fault.retry, fault.tier_refused = "rate_limit", True, tiers[0]
    elif fault.kind == "bad_request" and fault.status in (400, 422) and _UNKNOWN.search(words):
        fault.tier_refused = tiers[0]
