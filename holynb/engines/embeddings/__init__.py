"""How each wire embeds texts: one module a wire, and what vectors are. Each is an engine like any other, made with `(endpoint, key)`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from holynb.config import embedding_models
from holynb.errors import BadRoute
from holynb.types import Endpoint, Engine, Secret

__all__ = ["connect"]

#: Wire of embeddings → its engine, as `module:Class`. Azure's address and login are its own.
_ENGINES = {
    "openai": "openai_wire:OpenAIEmbeddings",
    "azure": "azure_wire:AzureEmbeddings",
    "gemini": "gemini_wire:GeminiEmbeddings",
    "bedrock-titan": "bedrock_wire:TitanEmbeddings",
    "bedrock-cohere": "bedrock_wire:CohereOnBedrock",
    "cohere": "cohere_wire:CohereEmbeddings",
    "ollama": "ollama_wire:OllamaEmbeddings",
    "pool": "pool_wire:PoolEmbeddings",
    "sim": "sim_wire:SimEmbeddings",
}


def connect(endpoint: Endpoint, key: Callable[[], Secret | None]) -> Engine:
    """An engine that embeds at `endpoint`; no socket is opened. Raises BadRoute where its wire has no embeddings."""
    wire = embedding_models.wire_of(endpoint)
    if wire == "openai" and endpoint.wire.startswith("azure"):
        wire = "azure"
    if wire not in _ENGINES:
        named = (
            f"options.embed is {wire!r}, which is none of openai, cohere, ollama" if wire else f"its wire ({endpoint.wire}) embeds nothing"
        )
        raise BadRoute(f"{endpoint.route} cannot embed: {named}. Ask {embedding_models.ALTERNATIVES}.")
    module, _, name = _ENGINES[wire].partition(":")
    engine: Engine = getattr(import_module(f"{__name__}.{module}"), name)(endpoint, key)
    return engine
