"""What is known of models that embed: what one request may hold, and what its vectors are. The head of the table explains its fields."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from typing import Any

from holynb.types import Endpoint

__all__ = ["ALTERNATIVES", "EmbeddingModel", "find", "wire_of"]

#: Whom to ask where a provider embeds nothing.
ALTERNATIVES = "openai/text-embedding-3-small, gemini/gemini-embedding-001, or a pool of your own (pool/MODEL)"

#: Wire → the wire of its embeddings. One that is not here has none.
_WIRES = {
    "openai": "openai",
    "responses": "openai",
    "azure": "openai",
    "azure-responses": "openai",
    "gemini": "gemini",
    "pool": "pool",
    "sim": "sim",
}


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """An entry. None: not known."""

    wire: str
    models: tuple[str, ...]
    items: int | None = None
    tokens: int | None = None
    longest: int | None = None
    cuts: bool = False
    dimensions: int | None = None
    shorter: tuple[int, ...] = ()
    fixed: bool = False
    input_type: bool | None = None
    date: object = None
    source: str = ""

    def may_have(self, dimensions: int) -> bool:
        """Whether it can be asked for vectors of so many numbers, as far as anybody knows."""
        if self.fixed:
            return dimensions == self.dimensions
        if len(self.shorter) == 2:
            return self.shorter[0] <= dimensions <= self.shorter[1]
        return not self.shorter or dimensions in self.shorter

    @property
    def offered(self) -> str:
        """The numbers of dimensions that it can be asked for, in words."""
        if self.fixed:
            return f"{self.dimensions:,} alone"
        if len(self.shorter) == 2:
            return f"{self.shorter[0]:,} to {self.shorter[1]:,}"
        return ", ".join(f"{n:,}" for n in self.shorter)


def wire_of(endpoint: Endpoint) -> str | None:
    """How this endpoint embeds; None where it does not. `[provider.NAME.options] embed` sets it: openai, cohere, ollama."""
    if endpoint.wire == "bedrock":
        kind = re.search(r"\b(titan-embed-text|titan-embed-g1|cohere\.embed)", endpoint.route.model)
        return None if kind is None else "bedrock-cohere" if kind[1] == "cohere.embed" else "bedrock-titan"
    named = endpoint.options.get("embed")
    return str(named) if named is not None and endpoint.wire == "openai" else _WIRES.get(endpoint.wire)


def find(wire: str, model: str) -> EmbeddingModel:
    """What is known of this model, the least there is to know being its wire's own limits."""
    name = model.lower().removeprefix("models/")
    entry = next((e for e in _table() if e.wire == wire and any(fnmatchcase(name, m) for m in e.models)), None)
    return entry or EmbeddingModel(wire, ("*",))


@lru_cache(maxsize=1)
def _table() -> tuple[EmbeddingModel, ...]:
    document = tomllib.loads((files("holynb.config") / "embedding_models.toml").read_text("utf-8"))
    return tuple(_entry(entry) for entry in document["model"])


def _entry(values: dict[str, Any]) -> EmbeddingModel:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return EmbeddingModel(**fields)
