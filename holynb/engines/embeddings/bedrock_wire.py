"""Bedrock's embeddings: InvokeModel, whose JSON is the model's own: Titan's, one text a request, or Cohere's. Pure but for the classes.

Bedrock counts tokens in a header for every model; Titan also in its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from holynb.engines import bedrock, codec, openai
from holynb.engines.aws_hosted import AwsHosted
from holynb.engines.classify import malformed
from holynb.engines.embeddings import cohere_wire, vectors
from holynb.engines.hosted import Traits
from holynb.engines.place import in_path
from holynb.types import Completion, Endpoint, Request, Secret, Usage

__all__ = ["COHERE", "TITAN", "CohereOnBedrock", "TitanEmbeddings"]


class TitanEmbeddings(AwsHosted):
    """Amazon's Titan."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, TITAN, bedrock.SERVICE)


class CohereOnBedrock(AwsHosted):
    """Cohere's models."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, COHERE, bedrock.SERVICE)


def url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - as every wire is asked
    """The path; the host depends on the region."""
    return f"/model/{in_path(endpoint.route.model)}/invoke"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    return {**openai.headers(endpoint, secret), "accept": "application/json"}


def counted(answer: Completion, headers: Mapping[str, str]) -> Completion:
    """The answer with the tokens of its request, as a header says; a vector has none of output."""
    number = headers.get("x-amzn-bedrock-input-token-count", "")
    return replace(answer, usage=Usage(int(number), 0)) if number.isascii() and number.isdigit() and len(number) < 16 else answer


def titan_body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:  # noqa: ARG001 - as every wire is asked
    (message,) = request.messages
    payload: dict[str, Any] = {"inputText": message.content}
    if request.embedding is not None and request.embedding.dimensions is not None:
        payload["dimensions"] = request.embedding.dimensions
    return payload | dict(request.sampling.extra)


def titan_read(value: Any) -> Completion:
    """The vector. Raises Fault."""
    if not isinstance(value, Mapping) or not isinstance(embedded := value.get("embedding"), list):
        raise malformed(codec.excerpt(value), "200, but the answer has no embedding")
    return vectors.completion([embedded], None, openai.count(value.get("inputTextTokenCount")))


def cohere_body(request: Request, traits: Traits = frozenset()) -> dict[str, Any]:  # noqa: ARG001 - as every wire is asked
    return cohere_wire.fields(request)


def cohere_read(value: Any) -> Completion:
    """The vectors. Raises Fault."""
    return vectors.completion(cohere_wire.floats(value), None, None)


TITAN = replace(
    bedrock.WIRE, url=url, headers=headers, body=titan_body, read=titan_read, adapt=lambda traits, fault: traits, counted=counted
)
COHERE = replace(TITAN, body=cohere_body, read=cohere_read)
