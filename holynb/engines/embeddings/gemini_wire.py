"""Gemini's embeddings: batchEmbedContents, which takes up to a hundred texts. Pure but for the class.

`-p input_type=document|query` is its taskType, as are Google's own words (`-p task_type=SEMANTIC_SIMILARITY`). Shortened vectors of
gemini-embedding-001 are not normalized. The reply counts tokens for newer models alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holynb.config import embedding_models
from holynb.engines import codec, gemini, openai
from holynb.engines.classify import malformed
from holynb.engines.embeddings import vectors
from holynb.engines.hosted import Hosted, Traits
from holynb.engines.place import in_path
from holynb.types import Completion, Endpoint, Request, Secret

__all__ = ["WIRE", "GeminiEmbeddings", "body", "read"]

#: Our word for what a text is → Google's.
TASKS = {"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}
#: Python's spelling of its fields → the wire's.
SPELLINGS = {"task_type": "taskType", "output_dimensionality": "outputDimensionality"}


class GeminiEmbeddings(Hosted):
    """Google's Gemini API."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


def _model(request: Request) -> str:
    return in_path(request.route.model.removeprefix("models/"), "/:@")


def url(endpoint: Endpoint, request: Request) -> str:
    base = endpoint.base_url
    base = base if base.endswith(("/v1beta", "/v1")) else f"{base}/v1beta"
    return f"{base}/models/{_model(request)}:batchEmbedContents"


def body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:  # noqa: ARG001 - as every wire is asked
    """The request's JSON: every text has the model and the fields beside it."""
    fields: dict[str, Any] = {}
    if request.embedding is not None and request.embedding.dimensions is not None:
        fields["outputDimensionality"] = request.embedding.dimensions
    extra = {SPELLINGS.get(name, name): value for name, value in request.sampling.extra.items()}
    kind = extra.pop("input_type", None)
    if "taskType" not in extra and embedding_models.find("gemini", request.route.model).input_type:
        kind = kind or "document"
    if kind is not None:
        fields["taskType"] = TASKS.get(kind, kind)
    fields |= extra
    model = f"models/{request.route.model.removeprefix('models/')}"
    return {"requests": [{"content": {"role": "user", "parts": [{"text": m.content}]}, **fields, "model": model} for m in request.messages]}


def read(value: Any) -> Completion:
    """The vectors, in the order of the texts. Raises Fault."""
    embedded = value.get("embeddings") if isinstance(value, dict) else None
    if not isinstance(embedded, list):
        raise malformed(codec.excerpt(value), "200, but the answer has no embeddings")
    counts = value.get("usageMetadata")
    tokens = openai.count(counts.get("promptTokenCount")) if isinstance(counts, dict) else None
    return vectors.completion([e.get("values") if isinstance(e, dict) else e for e in embedded], None, tokens)


WIRE = replace(gemini.WIRE, url=url, body=body, read=read)
