"""Gemini through Google Vertex: the Gemini wire's bodies at a project's address, with a token of the Google Cloud login.

Project and location: `[provider.vertex.options]`, else GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION, else the login's project, and
`global`. A service tier is a header here, and only the global location knows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace

from holynb.config import vertex_models
from holynb.engines import codec, gemini, google_login, http, loading
from holynb.engines.hosted import Traits, Wire
from holynb.engines.logged_in import LoggedIn
from holynb.engines.tokens import Tokens
from holynb.errors import BadSetting, Fault
from holynb.types import Endpoint, Request, Secret, Timeouts

__all__ = ["WIRE", "Vertex", "address", "location"]

#: Locations that are several regions, with an address of their own (as python-genai has them).
MULTI_REGIONS = ("us", "eu")
TIER_HEADER = b"x-vertex-ai-llm-shared-request-type"


class Vertex(LoggedIn):
    """A project's models of Google."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        self._place = vertex_models.path(endpoint.route)
        self._login = google_login.Credentials(endpoint.route.provider)
        super().__init__(endpoint, key, WIRE, Tokens(self._login.fetch, "Google Cloud"), google_login.NAME)

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Log in where no token is set, and find project and location. Raises BadKey, BadSetting."""
        await super().ready(notice)
        location(self.endpoint)

    def _check_login(self) -> None:
        self._project()  # the login's, where none is set

    def _project(self) -> str:
        provider, options = self.endpoint.route.provider, self.endpoint.options
        project = options.get("project") or os.environ.get("GOOGLE_CLOUD_PROJECT") or self._login.project
        if not project or not re.fullmatch(r"(?=.*[A-Za-z0-9])[A-Za-z0-9.:_-]+", str(project)):
            raise BadSetting(
                f"{provider}/… needs the project of Google Cloud: set GOOGLE_CLOUD_PROJECT, or [provider.{provider}.options] project "
                "in config.toml."
            )
        return str(project)

    def _url(self, request: Request, wire: Wire) -> str:  # noqa: ARG002 - as every wire is asked
        place = f"projects/{self._project()}/locations/{location(self.endpoint)}/{self._place}"
        verb = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        return f"{self.endpoint.base_url or address(location(self.endpoint))}/v1/{place}:{verb}"

    async def _post(self, request: Request, traits: Traits, secret: Secret | None, timeouts: Timeouts) -> http.Reply:
        if request.tiers and location(self.endpoint) != "global":
            where = f"this run asks at {location(self.endpoint)}: set GOOGLE_CLOUD_LOCATION=global, or leave --tier out"
            raise Fault("bad_request", f"Vertex offers service tiers at the global location only, and {where}", stops=True)
        try:
            url = self._url(request, self._wire)
        except BadSetting as exc:  # the login's server was away when the run began, and its project is not known
            raise Fault("bad_request", str(exc), stops=True) from None
        if self._client is None:
            self._client = http.borrow(url)
        untiered = replace(request, tiers=())
        async with loading.written(untiered, "vertex", lambda ready: codec.dumps(self._wire.body(ready, traits))) as body:
            headers = await self._request_headers(url, body, secret)
            headers = [*headers, (TIER_HEADER, request.tiers[0].encode())] if request.tiers else headers
            return await self._client.send("POST", url, headers, body, connect=timeouts.connect)

    async def _request_headers(self, url: str, body: codec.Body, secret: Secret | None) -> list[tuple[bytes, bytes]]:
        headers = await super()._request_headers(url, body, secret)
        payer = self._login.quota_project
        return [*headers, (b"x-goog-user-project", payer.encode())] if payer else headers

    def _login_refused(self, words: str) -> str:
        return (
            f"{self.endpoint.route.provider} refused the Google Cloud login ({words}). It needs the role Vertex AI User in the project. "
            "Run gcloud auth application-default login to log in as somebody else."
        )


def location(endpoint: Endpoint) -> str:
    """Where the model is asked. Raises BadSetting."""
    place = str(endpoint.options.get("location") or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global")
    if not re.fullmatch(r"[a-z0-9-]+", place):
        raise BadSetting(f"{place[:60]!r} is not the name of a location. Set GOOGLE_CLOUD_LOCATION to one such as global or europe-west4.")
    return place


def address(place: str) -> str:
    """The address of a location."""
    if place == "global":
        return "https://aiplatform.googleapis.com"
    return f"https://aiplatform.{place}.rep.googleapis.com" if place in MULTI_REGIONS else f"https://{place}-aiplatform.googleapis.com"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:
    base = gemini.headers(endpoint, None)
    return base if secret is None else base | {"authorization": f"Bearer {secret.reveal()}"}


WIRE = replace(gemini.WIRE, headers=headers)
