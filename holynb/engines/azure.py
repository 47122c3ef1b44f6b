"""The Azure OpenAI wires: OpenAI's protocols at a resource's address, with `api-key` and content filter categories.

`{resource}/openai/v1` needs no api-version, and the model is the deployment's name. The older form,
`{resource}/openai/deployments/{deployment}/chat/completions?api-version=…`, is used where a version is set or the base names a deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from holynb.engines import codec, entra, openai, responses
from holynb.engines.hosted import Wire
from holynb.engines.logged_in import LoggedIn
from holynb.engines.place import in_path
from holynb.engines.protocols import either
from holynb.engines.tokens import Tokens
from holynb.errors import Fault
from holynb.types import Endpoint, Request, Secret

__all__ = ["API_VERSION", "WIRE", "Azure", "AzureResponses", "classify", "headers", "resource", "resource_url", "url"]

#: The last generally available version of the older form.
API_VERSION = "2024-10-21"
#: Versions that are the newer form, and what goes along with them: its preview alone is asked for by name.
NEWER = {"v1": "", "latest": "", "preview": "?api-version=preview"}


class Azure(LoggedIn):
    """A deployment of an Azure OpenAI resource, reached with a key, or with a token of Entra ID where none is set."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None], wire: Wire | None = None) -> None:
        tokens = Tokens(lambda: entra.fetch(endpoint, scope(endpoint)), "Entra ID") if endpoint.login == "entra" else None
        super().__init__(endpoint, key, wire or either(WIRE, RESPONSES), tokens, entra.NAME)

    def _login_refused(self, words: str) -> str:
        return (
            f"{self.endpoint.route.provider} refused the Entra ID login ({words}). It needs the role Cognitive Services OpenAI User at this "
            f"resource. Run az login to log in as somebody else, or set a key in {self.endpoint.key_name}, which is used first."
        )


class AzureResponses(Azure):
    """A deployment of a model that has no chat completions."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, RESPONSES)


def scope(endpoint: Endpoint) -> str:
    """What a token has to be for."""
    own = endpoint.options.get("scope")
    return str(own) if own else entra.SCOPE if resource(endpoint)[1] in NEWER else entra.SCOPE_OF_DEPLOYMENTS


def url(endpoint: Endpoint, request: Request) -> str:
    base, version = resource(endpoint)
    if version in NEWER:
        return f"{base}/v1/chat/completions{NEWER[version]}"
    if "/deployments/" not in base:
        base = f"{base}/deployments/{in_path(request.route.model)}"
    return f"{base}/chat/completions?api-version={quote(version, safe='')}"


def responses_url(endpoint: Endpoint, request: Request) -> str:  # noqa: ARG001 - the deployment is named in the body
    base, version = resource(endpoint)
    base = base.partition("/deployments/")[0]
    return f"{base}/v1/responses{NEWER[version]}" if version in NEWER else f"{base}/responses?api-version={quote(version, safe='')}"


def resource_url(endpoint: Endpoint, path: str, query: str = "") -> str:
    """An address at the resource that belongs to no deployment."""
    base, version = resource(endpoint)
    base = base.partition("/deployments/")[0]
    if version in NEWER:
        queries, base = [query, NEWER[version].removeprefix("?")], f"{base}/v1"
    else:
        queries = [query, f"api-version={quote(version, safe='')}"]
    joined = "&".join(q for q in queries if q)
    return f"{base}/{path}{f'?{joined}' if joined else ''}"


def resource(endpoint: Endpoint) -> tuple[str, str]:
    """The address up to `/openai`, or to its deployment, and the version: `v1` where none is set and no deployment is named."""
    base = endpoint.base_url.removesuffix("/chat/completions").removesuffix("/responses").removesuffix("/embeddings")
    version = str(endpoint.options.get("api_version") or "")
    if base.endswith("/v1"):
        return base.removesuffix("/v1"), version if version in NEWER else "v1"
    if "/openai/deployments/" in base:
        return base, API_VERSION if version in ("", *NEWER) else version
    return f"{base.removesuffix('/openai')}/openai", version or "v1"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    if secret is not None and secret.name == entra.NAME:
        return openai.headers(endpoint, secret)  # as a bearer's
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
RESPONSES = replace(responses.WIRE, url=responses_url, headers=headers, classify=classify)
