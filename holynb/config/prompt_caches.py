"""What is known of hosted providers' prompt caches: prompt_caches.toml, which says what each field means. Knows no price, sends nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from typing import Any

from holynb.config.model_entries import day, text
from holynb.errors import BadSetting, closest

__all__ = ["PromptCacheRules", "find", "shipped"]

WAYS = ("marks", "breakpoints", "key", "automatic")
REQUIRED_FIELDS = ("provider", "models", "how", "minimum", "lifetime", "date", "source")
FIELDS = (*REQUIRED_FIELDS, "hour", "read", "write", "write_1h", "batch_hits")


@dataclass(frozen=True, slots=True)
class PromptCacheRules:
    """One entry. `read`, `write` and `write_1h` are shares of the price of input, `batch_hits` one of a batch's rows; 0: not published."""

    provider: str
    models: tuple[str, ...]
    how: str
    minimum: int
    lifetime: int
    hour: bool = False
    read: float = 1.0
    write: float = 1.0
    write_1h: float = 1.0
    batch_hits: float = 0.0


def find(provider: str, model: str) -> PromptCacheRules | None:
    """The rules for a model; None: it has no prompt cache that is known."""
    low = model.lower()
    return next((r for r in shipped() if r.provider == provider and any(fnmatchcase(low, pattern) for pattern in r.models)), None)


@lru_cache(maxsize=1)
def shipped() -> tuple[PromptCacheRules, ...]:
    """The entries that ship with holynb."""
    document = tomllib.loads((files("holynb.config") / "prompt_caches.toml").read_text("utf-8"))
    return tuple(_entry(e, f"prompt_caches.toml, entry {i}") for i, e in enumerate(document["cache"], 1))


def _entry(raw: Mapping[str, Any], where: str) -> PromptCacheRules:
    for name in raw:
        if name not in FIELDS:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(name, FIELDS)}")
    if missing := [name for name in REQUIRED_FIELDS if name not in raw]:
        raise BadSetting(f"{where}: {', '.join(missing)} missing.")
    if raw["how"] not in WAYS:
        raise BadSetting(f"{where}: how should be one of {', '.join(WAYS)}, not {raw['how']!r}.")
    day(raw["date"], f"{where}: date")
    text(raw["source"], f"{where}: source")
    shares = {name: float(raw.get(name, raw.get("write", 1.0) if name == "write_1h" else 1.0)) for name in ("read", "write", "write_1h")}
    models, hits = tuple(text(m, f"{where}: models") for m in raw["models"]), float(raw.get("batch_hits", 0.0))
    minimum, lifetime, hour = int(raw["minimum"]), int(raw["lifetime"]), bool(raw.get("hour"))
    return PromptCacheRules(raw["provider"], models, raw["how"], minimum, lifetime, hour, **shares, batch_hits=hits)
