"""The edges of HTTP: bodies, event streams, clients that go away, the port's token. Knows OpenAI's error shape; no pool."""

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

__all__ = ["Events", "Gone", "body", "event", "guarded", "unless_gone"]

T = TypeVar("T")

#: Where a body may name half of a surrogate pair, which JSON allows and no text can hold.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
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
    """A request's JSON. Raises ApiError where it is none, Gone where the client left while it sent."""
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > _LONGEST:
                raise ApiError(413, f"The body is longer than {_LONGEST:,} bytes.")
    except ClientDisconnect:
        raise Gone from None
    try:
        said = json.loads(raw.decode("utf-8-sig"))
        if _HALF.search(raw):
            json.dumps(said, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        half = exc.object[exc.start]
        raise ApiError(
            400, f"The body holds {ascii(half)[1:-1]}, half of a surrogate pair without its other half: that is no text."
        ) from exc
    except RecursionError as exc:
        raise ApiError(400, "The body is nested too deeply.") from exc
    except ValueError as exc:
        raise ApiError(400, f"The body is not JSON: {exc}") from exc
    return said


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
