"""ASGI helpers: JSON bodies, event streams, clients that disconnect, the port's token. Knows OpenAI's error shape; no pool."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from holynb.pool.server import api
from holynb.pool.server.api import ApiError

__all__ = ["ClientDisconnected", "Events", "read_json", "require_token", "run_until_disconnect", "sse_event"]

T = TypeVar("T")

#: Where a body may have half of a surrogate pair, which JSON allows and UTF-8 cannot encode.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
#: A prompt of a million tokens is about 5 MB.
_MAX_BODY_BYTES = 64 * 1024 * 1024


class ClientDisconnected(Exception):
    """The client disconnected before its response."""


class Events(StreamingResponse):
    """Server-sent events. `after` is called when the response is over, also where its first byte was never sent."""

    def __init__(self, events: AsyncGenerator[bytes, None], after: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._events = events
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._after()
            await self._events.aclose()


def sse_event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


async def read_json(request: Request) -> Any:
    """A request's JSON body. Raises ApiError where it is not JSON, ClientDisconnected where the client left before its end."""
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > _MAX_BODY_BYTES:
                raise ApiError(413, f"The body is longer than {_MAX_BODY_BYTES:,} bytes.")
    except ClientDisconnect:
        raise ClientDisconnected from None
    try:
        value = json.loads(raw.decode("utf-8-sig"))
        if _SURROGATE_ESCAPE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        half = exc.object[exc.start]
        raise ApiError(
            400, f"The body holds {ascii(half)[1:-1]}, half of a surrogate pair without its other half: that is no text."
        ) from exc
    except RecursionError as exc:
        raise ApiError(400, "The body is nested too deeply.") from exc
    except ValueError as exc:
        raise ApiError(400, f"The body is not JSON: {exc}") from exc
    return value


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. Raises ClientDisconnected, with the work cancelled, where the client disconnects first."""
    task, disconnect = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        disconnect.cancel()
        task.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


def require_token(app: ASGIApp, token: str) -> ASGIApp:
    """The application behind a bearer token, for the port: on a shared machine every user reaches loopback.

    A page in a browser reaches it too, through DNS rebinding; it has no token either, and no CORS header lets it read a response.
    `Host` is not checked: a tunnel or a proxy sets its own.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), token.encode()):
            await app(scope, receive, send)
            return
        message = "This pool's port needs its token as a bearer key, and the one given is not it. Its owner sees it with: holynb pool status --json"
        error = api.error_body(ApiError(401, message, code="invalid_api_key"))
        await JSONResponse(error, 401, {"www-authenticate": "Bearer"})(scope, receive, send)

    return guard
