"""What the abbreviations of charts mean, for whoever points at them; `charts.js` says the same. Pure."""

from __future__ import annotations

import re

__all__ = ["GLOSSES", "tip"]

GLOSSES = {
    "p50": "the median: half of the rows took no longer",
    "p95": "95 of 100 rows took no longer",
    "TTFT": "time to first token: from the request to the beginning of its answer",
    "KV": "KV cache: keys and values of the tokens in work; its size is how many rows fit at once",
}


def tip(text: str) -> str:
    """A line for each abbreviation in a text; empty where there is none."""
    return "\n".join(f"{word}: {meaning}" for word, meaning in GLOSSES.items() if re.search(rf"\b{word}\b", text))
