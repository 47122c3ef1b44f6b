"""OpenAI's embeddings: POST /embeddings of OpenAI, vLLM, Ray Serve, TEI, Voyage, Mistral and many others. Pure but for the class.

Vectors are asked for in base64, as OpenAI's own SDK asks: a third of the bytes, and exact. A server that refuses it is asked for numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holynb.engines import codec, openai
from holynb.engines.classify import malformed
from holynb.engines.embeddings import vectors
from holynb.engines.hosted import Hosted, Traits
from holynb.errors import Fault
from holynb.types import Completion, Endpoint, Request, Secret

__all__ = ["WIRE", "OpenAIEmbeddings", "body", "read"]

#: The trait of a server that gives numbers alone.
NUMBERS = "no encoding_format"


class OpenAIEmbeddings(Hosted):
    """An OpenAI-compatible server."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - the model is named in the body
    return f"{endpoint.base_url}/embeddings"


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:
    payload: dict[str, Any] = {"model": request.route.model, "input": [m.content for m in request.messages]}
    if NUMBERS not in traits:
        payload["encoding_format"] = "base64"
    if request.embedding is not None and request.embedding.dimensions is not None:
        payload["dimensions"] = request.embedding.dimensions
    return payload | dict(request.sampling.extra)


def adapt(traits: Traits, fault: Fault) -> Traits:
    """Traits after a refused request."""
    detail = openai.detail_of(fault)
    words = f"{detail.param} {detail.message}".lower()
    return traits | {NUMBERS} if "encoding_format" in words or "base64" in words else traits


def read(value: Any) -> Completion:
    """The vectors, by their index. Raises Fault."""
    if not isinstance(value, dict):
        raise malformed(codec.excerpt(value), "200, but the answer has no vectors")
    openai.raise_error(value)
    embedded, counts = vectors.in_order(value.get("data")), value.get("usage")
    counts = counts if isinstance(counts, dict) else {}
    tokens = openai.count(counts.get("prompt_tokens"))
    tokens = openai.count(counts.get("total_tokens")) if tokens is None else tokens  # Voyage
    return vectors.completion(embedded, value.get("model"), tokens)


WIRE = replace(openai.WIRE, url=url, body=body, read=read, adapt=adapt, traits=lambda endpoint: frozenset())
