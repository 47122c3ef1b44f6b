"""Azure OpenAI's embeddings: OpenAI's, at a resource's address. The model is the deployment's name. Pure but for the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from holynb.engines import azure
from holynb.engines.embeddings import openai_wire
from holynb.engines.place import in_path
from holynb.types import Endpoint, Request, Secret

__all__ = ["AzureEmbeddings"]


class AzureEmbeddings(azure.Azure):
    """A deployment of a model that embeds."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, WIRE)


def url(endpoint: Endpoint, request: Request) -> str:
    base, version = azure.resource(endpoint)
    if version in azure.NEWER:
        return f"{base}/v1/embeddings{azure.NEWER[version]}"
    if "/deployments/" not in base:
        base = f"{base}/deployments/{in_path(request.route.model)}"
    return f"{base}/embeddings?api-version={quote(version, safe='')}"


WIRE = replace(openai_wire.WIRE, url=url, headers=azure.headers, classify=azure.classify)
