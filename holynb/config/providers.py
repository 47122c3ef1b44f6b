"""Providers as data: who can be asked, over which wire, where, with which key. Reads one TOML file; knows no HTTP and no settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["Provider", "merged", "table"]


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. The fields are those of a `[provider.NAME]` in config.toml; `providers.toml` says what each means."""

    name: str
    wire: str = "openai"
    base: str = ""
    key: str = ""
    page: str = ""
    max_tokens: str = "max_tokens"
    key_optional: bool = False
    models: Mapping[str, int | None] = field(default_factory=dict)
    """Model → context length in tokens, None where it is not published."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only this provider's wire understands."""


@lru_cache(maxsize=1)
def table() -> Mapping[str, Provider]:
    """The providers that ship with holynb, by name."""
    said = tomllib.loads((files("holynb.config") / "providers.toml").read_text("utf-8"))
    return {name: _laid_over(Provider(name), entry) for name, entry in said.items()}


def merged(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Provider]:
    """`table()` with the user's own entries over it, field by field; `models` and `options` key by key.

    A name that is not in the table is an OpenAI-compatible server whose key may be missing, unless its entry says otherwise.
    """
    out = dict(table())
    for name, said in own.items():
        out[name] = _laid_over(out.get(name) or _unknown(name), said)
    return out


def _unknown(name: str) -> Provider:
    return Provider(name, key=re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_API_KEY", key_optional=True)


def _laid_over(provider: Provider, said: Mapping[str, Any]) -> Provider:
    changes = dict(said)
    if "models" in changes:
        # TOML has no null: 0 stands for a context length that nobody published.
        changes["models"] = {**provider.models, **{model: length or None for model, length in changes["models"].items()}}
    if "options" in changes:
        changes["options"] = {**provider.options, **changes["options"]}
    return replace(provider, **changes)
