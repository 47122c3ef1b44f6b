"""The Azure OpenAI wire: OpenAI's chat completions at a deployment's address, with `api-key` and content filter categories. Pure.

A base that ends in /v1 (`…/openai/v1`) is the newer form: no api-version, and the model is the deployment's name. Any other base is the
resource's: `{base}/openai/deployments/{deployment}/chat/completions?api-version=…`, the version from OPENAI_API_VERSION or the provider's
options.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from holynb.engines import codec, openai
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.types import Endpoint, Request, Secret

__all__ = ["API_VERSION", "WIRE", "Azure", "classify", "headers", "url"]

#: The last generally available version of the older form.
API_VERSION = "2024-10-21"


class Azure(Hosted):
    """A deployment of an Azure OpenAI resource."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        version = endpoint.options.get("api_version") or os.environ.get("OPENAI_API_VERSION") or API_VERSION
        super().__init__(replace(endpoint, options={**endpoint.options, "api_version": version}), key, WIRE)


def url(endpoint: Endpoint, request: Request) -> str:
    base = endpoint.base_url.removesuffix("/chat/completions")
    if base.endswith("/v1"):
        return f"{base}/chat/completions"
    if "/openai/deployments/" not in base:
        base = f"{base.removesuffix('/openai')}/openai/deployments/{quote(request.route.model, safe='')}"
    return f"{base}/chat/completions?api-version={quote(str(endpoint.options.get('api_version', API_VERSION)), safe='')}"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    headers = openai.headers(endpoint, None)
    return headers if secret is None else headers | {"api-key": secret.reveal()}


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """OpenAI's, with the categories of the content filter that refused."""
    fault = openai.classify(status, headers, body)
    if fault.kind == "content_filter" and (categories := _filtered_categories(body)):
        fault.message = f"{fault.message} ({', '.join(categories)})"
    return fault


def _filtered_categories(body: bytes) -> list[str]:
    """The content filter's categories that refused: `hate high`, `jailbreak`."""
    value: Any = codec.loads(body)  # has parsed before
    for name in ("error", "innererror", "content_filter_result"):
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        return []
    categories = [(k, v) for k, v in value.items() if isinstance(v, Mapping) and v.get("filtered") is True]
    return [f"{name} {verdict['severity']}" if isinstance(verdict.get("severity"), str) else name for name, verdict in categories]


WIRE = replace(openai.WIRE, url=url, headers=headers, body=partial(openai.body, wire="azure"), classify=classify)
