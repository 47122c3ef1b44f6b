"""Providers as data: name, wire, address, key variable, models. Reads one TOML file; knows no HTTP and no settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["Provider", "merged", "table", "variable_prefix"]


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
    entries = tomllib.loads((files("holynb.config") / "providers.toml").read_text("utf-8"))
    return {name: _merge(Provider(name), entry) for name, entry in entries.items()}


def merged(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Provider]:
    """`table()` with the user's own entries merged over it, field by field; `models` and `options` key by key.

    A name that is not in the table is an OpenAI-compatible server whose key may be missing, unless its entry says otherwise.
    """
    out = dict(table())
    for name, entry in own.items():
        out[name] = _merge(out.get(name) or _custom(name), entry)
    return out


def _custom(name: str) -> Provider:
    return Provider(name, key=f"{variable_prefix(name)}_API_KEY", key_optional=True)


def variable_prefix(name: str) -> str:
    """A provider's name as environment variables spell it: `my-gateway` is `MY_GATEWAY`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _merge(provider: Provider, entry: Mapping[str, Any]) -> Provider:
    changes = dict(entry)
    if "models" in changes:
        # TOML has no null: 0 stands for a context length that is not published.
        changes["models"] = {**provider.models, **{model: length or None for model, length in changes["models"].items()}}
    if "options" in changes:
        changes["options"] = {**provider.options, **changes["options"]}
    return replace(provider, **changes)
