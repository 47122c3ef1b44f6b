"""What each provider's batch API takes and keeps: limits.toml, typed. Knows no request."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["MOST_BYTES", "ProviderLimits", "table"]

#: A batch is built and sent from memory, so it stays below this whatever its provider takes.
MOST_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """Of one provider; `limits.toml` says what each field means. `unread`: the fields that no page of the provider states."""

    rows: int
    bytes: int
    hours: int
    expires: bool
    kept_days: int
    carries: str
    settles_s: float
    unread: frozenset[str]


@lru_cache(maxsize=1)
def table() -> Mapping[str, ProviderLimits]:
    """Provider → its limits. A provider that is not here has no batch API that we speak."""
    entries = tomllib.loads((files("holynb.batches") / "limits.toml").read_text("utf-8"))
    return {name: _limits(entry) for name, entry in entries.items()}


def _limits(entry: Mapping[str, Any]) -> ProviderLimits:
    figures = {name: value for name, value in entry.items() if name not in ("read", "unread")}
    return ProviderLimits(**figures, unread=frozenset(entry["unread"]))
