"""The edges of HTTP: bodies, event streams, clients that go away, the port's token. Knows OpenAI's error shape; no pool."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from holynb.pool import api
from holynb.pool.api import ApiError

__all__ = ["Events", "Gone", "body", "event", "guarded", "unless_gone"]

T = TypeVar("T")

#: Bytes of the longest body. A prompt of a million tokens is about 5 MB.
_LONGEST = 64 * 1024 * 1024


class Gone(Exception):
    """The client went away; there is nobody to answer."""


class Events(StreamingResponse):
    """Server-sent events. `after` is called when the response is over, also where its first byte never went out."""

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


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


async def body(request: Request) -> Any:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > _LONGEST:
            raise ApiError(413, f"The body is longer than {_LONGEST:,} bytes.")
    try:
        return json.loads(raw)
    except ValueError as exc:
        raise ApiError(400, f"The body is not JSON: {exc}") from exc


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result, unless the client goes away first: then the work is cancelled."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """The application behind a bearer token, for the port: on a shared machine every user reaches loopback.

    A page in a browser reaches it too, by a name of its own that it lets point here (DNS rebinding); it has no token either, and
    no header tells it that it may read an answer. Names in `Host` are not judged: a tunnel or a proxy brings its own.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), token.encode()):
            await app(scope, receive, send)
            return
        words = "This pool's port needs its token as a bearer key, and the one given is not it. Its owner sees it with: holynb pool status --json"
        error = api.error_body(ApiError(401, words, code="invalid_api_key"))
        await JSONResponse(error, 401, {"www-authenticate": "Bearer"})(scope, receive, send)

    return guard
