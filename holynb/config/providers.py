"""Providers as data: name, wire, address, key variable, models. Reads providers.toml and the models' table; knows no HTTP, no settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from holynb.config import models

__all__ = ["CHAINS", "LACKING", "OPENAI_WIRES", "PROVIDER_NAME", "RESPONSES", "Provider", "merged", "table", "variable_prefix"]

#: What a provider may be called.
PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: A wire of chat completions → the wire of OpenAI's Responses at the same servers.
RESPONSES: Mapping[str, str] = {"openai": "responses", "azure": "azure-responses"}
#: What OpenAI's Responses has no field for: a request with it is refused, since leaving it out would change the answer unsaid.
LACKING = ("stop", "seed")
#: The wires of servers that list their models as OpenAI does, at `{base}/models`.
OPENAI_WIRES = ("openai", "responses")
#: Wire → whose chain of credentials signs its requests, where no key is set. So an address decides where they go as it does for a key.
CHAINS: Mapping[str, str] = {"sagemaker": "AWS", "bedrock": "AWS", "vertex": "Google"}


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
    login: str = ""
    models: Mapping[str, int | None] = field(default_factory=dict)
    """Model → context length in tokens, None where it is not published."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only this provider's wire understands."""


@lru_cache(maxsize=1)
def table() -> Mapping[str, Provider]:
    """The providers that ship with holynb, by name; of models only those that no vendor serves."""
    entries = tomllib.loads((files("holynb.config") / "providers.toml").read_text("utf-8"))
    return {name: _merge(Provider(name), entry) for name, entry in entries.items()}


def merged(own: Mapping[str, Mapping[str, Any]], named: Iterable[str] = ()) -> dict[str, Provider]:
    """`table()` and the models on offer, with the user's own entries merged over them, field by field; `models` and `options` key by key.

    A name that is not in the table is an OpenAI-compatible server whose key may be missing, unless its entry names a variable for it.
    `named`: routes that the settings name. They are the models of providers of which no others are known.
    """
    out = dict(_offering(models.state()))
    for name, entry in own.items():
        out[name] = _merge(out.get(name) or _custom(name, entry), entry)
    lacking = {name for name, provider in out.items() if not provider.models}
    for name, _, model in (route.partition("/") for route in named):
        if name in lacking and model:
            out[name] = replace(out[name], models={**out[name].models, model: None})
    return out


@lru_cache(maxsize=4)
def _offering(state: tuple[object, ...]) -> Mapping[str, Provider]:  # noqa: ARG001 - key of the cache: what `offered` depends on
    return {name: replace(p, models={**models.offered(name), **p.models}) for name, p in table().items()}


def _custom(name: str, entry: Mapping[str, Any]) -> Provider:
    """A server of the user's own. One for whose key a variable is named needs that key."""
    return Provider(name, key=f"{variable_prefix(name)}_API_KEY", key_optional="key" not in entry)


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
