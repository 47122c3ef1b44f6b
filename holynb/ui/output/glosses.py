"""What the abbreviations of charts mean, for whoever points at them; `charts.js` says the same. Pure."""

from __future__ import annotations

import re

from holynb.translation import brief

__all__ = ["GLOSSES", "tip"]

GLOSSES = {
    "p50": "half took no longer",
    "p95": "95 % took no longer",
    "TTFT": "time to first token",
}


def tip(text: str) -> str:
    """A line for each abbreviation in a text; empty where there is none."""
    return "\n".join(f"{word}: {brief(meaning)}" for word, meaning in GLOSSES.items() if re.search(rf"\b{word}\b", text))
