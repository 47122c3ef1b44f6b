"""Ollama's embeddings: POST /api/embed, which normalizes. Pure but for the class.

A text beyond the model's context is refused, not cut off in silence, as Ollama does by itself (`truncate`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holynb.engines import codec, openai
from holynb.engines.classify import malformed
from holynb.engines.embeddings import vectors
from holynb.engines.hosted import Hosted, Traits
from holynb.types import Completion, Endpoint, Request, Secret

__all__ = ["WIRE", "OllamaEmbeddings", "body", "read"]


class OllamaEmbeddings(Hosted):
    """An Ollama server."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - the model is named in the body
    return f"{endpoint.base_url.removesuffix('/v1').removesuffix('/api')}/api/embed"


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:  # noqa: ARG001 - as every wire is asked
    payload: dict[str, Any] = {"model": request.route.model, "input": [m.content for m in request.messages], "truncate": False}
    if request.embedding is not None and request.embedding.dimensions is not None:
        payload["dimensions"] = request.embedding.dimensions
    return payload | dict(request.sampling.extra)


def read(value: Any) -> Completion:
    """The vectors, in the order of the texts. Raises Fault."""
    if not isinstance(value, dict) or not isinstance(embedded := value.get("embeddings"), list):
        raise malformed(codec.excerpt(value), "200, but the answer has no embeddings")
    return vectors.completion(embedded, value.get("model"), openai.count(value.get("prompt_eval_count")))


WIRE = replace(openai.WIRE, url=url, body=body, read=read, adapt=lambda traits, fault: traits, traits=lambda endpoint: frozenset())
