"""Cohere's embeddings: POST /v2/embed, which must be told what a text is. Pure but for the class.

`-p input_type=document|query` are its search_document and search_query; its other words (classification, clustering) pass as they are.
Nothing is cut off in silence: a text that is too long is refused (`truncate`).
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

__all__ = ["WIRE", "CohereEmbeddings", "fields", "floats", "read"]

#: Our word for what a text is → Cohere's.
TYPES = {"document": "search_document", "query": "search_query"}


class CohereEmbeddings(Hosted):
    """Cohere, or a server that speaks as it does."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - the model is named in the body
    base = endpoint.base_url.removesuffix("/compatibility/v1").removesuffix("/v1").removesuffix("/v2")
    return f"{base}/v2/embed"


def fields(request: Request) -> dict[str, Any]:
    """What stands in the body beside the model, at Cohere and at Bedrock."""
    extra = dict(request.sampling.extra)
    kind = extra.pop("input_type", "document")
    payload: dict[str, Any] = {
        "texts": [m.content for m in request.messages],
        "input_type": TYPES.get(kind, kind),
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    if request.embedding is not None and request.embedding.dimensions is not None:
        payload["output_dimension"] = request.embedding.dimensions
    return payload | extra


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:  # noqa: ARG001 - as every wire is asked
    return {"model": request.route.model, **fields(request)}


def floats(value: Any) -> list[Any]:
    """The vectors of an answer, in the order of the texts: by type, or as a list where one type alone was known. Raises Fault."""
    embedded = value.get("embeddings") if isinstance(value, dict) else None
    embedded = embedded.get("float", embedded.get("float_")) if isinstance(embedded, dict) else embedded
    if not isinstance(embedded, list):
        raise malformed(codec.excerpt(value), "200, but the answer has no embeddings")
    return embedded


def read(value: Any) -> Completion:
    """The vectors. Raises Fault."""
    embedded, meta = floats(value), value.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    tokens = openai.count(billed.get("input_tokens")) if isinstance(billed, dict) else None
    return vectors.completion(embedded, None, tokens)


WIRE = replace(openai.WIRE, url=url, body=body, read=read, adapt=lambda traits, fault: traits, traits=lambda endpoint: frozenset())
