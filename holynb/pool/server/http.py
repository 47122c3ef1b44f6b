"""ASGI helpers: JSON bodies, event streams, clients that disconnect, the port's token. Knows OpenAI's error shape; no pool."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holynb.pool.server.apierror import ApiError, error_body

__all__ = [
    "ClientDisconnected",
    "Events",
    "NameOf",
    "client_of",
    "nobody",
    "read_json",
    "require_token",
    "run_until_disconnect",
    "sse_event",
]

T = TypeVar("T")

#: Where a body may have half of a surrogate pair, which JSON allows and UTF-8 cannot encode.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
#: A prompt of a million tokens is about 5 MB.
_MAX_BODY_BYTES = 64 * 1024 * 1024
#: A body of more values (told by its commas) would be read for seconds, in which no stream goes on.
_MAX_VALUES = 4_000_000
#: Where a request's scope has the name of its token.
_CLIENT = "holynb.client"
#: Whose a key is; None: nobody's.
NameOf = Callable[[bytes], Awaitable[str | None]]
#: What tells of the pool and of everybody in it: for its own token alone.
_OWNERS = frozenset(("/health", "/metrics"))


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
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, f"The body must be JSON (content-type: application/json), not {kind:.60}.")
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > _MAX_BODY_BYTES:
                raise ApiError(413, f"The body is longer than {_MAX_BODY_BYTES:,} bytes.")
    except ClientDisconnect:
        raise ClientDisconnected from None
    if raw.count(b",") > _MAX_VALUES:
        raise ApiError(413, f"The body has more than {_MAX_VALUES:,} values or commas.")
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


def client_of(request: Request) -> str | None:
    """The name of the token that the request came with; None: the pool's own, or its private socket."""
    name: str | None = request.scope.get(_CLIENT)
    return name


async def nobody(key: bytes) -> str | None:  # noqa: ARG001
    """Whose a token is, where there are no named ones."""
    return None


def require_token(app: ASGIApp, token: str, name_of: NameOf = nobody) -> ASGIApp:
    """The application behind a bearer token, for the port: on a shared machine every user reaches loopback.

    `name_of` says whose token another one is: they may ask, and are not told of the pool and of each other.

    A page in a browser reaches it too, through DNS rebinding; it has no token either, and no CORS header lets it read a response.
    `Host` is not checked: a tunnel or a proxy sets its own.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        key = key if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if hmac.compare_digest(key.strip(), token.encode()):
            await app(scope, receive, send)
            return
        if scope["path"] == "/health" and scope["method"] in ("GET", "HEAD"):
            await _alive(app, scope, receive, send)
            return
        try:
            name = await name_of(key.strip())
        except ApiError as exc:  # it has expired
            error = exc
        else:
            if name is not None and scope["path"] not in _OWNERS:
                await app({**scope, _CLIENT: name}, receive, send)
                return
            error = _refusal(name, scope["path"])
        challenge = {"www-authenticate": "Bearer"} if error.status == 401 else None
        await JSONResponse(error_body(error), error.status, challenge)(scope, receive, send)

    return guard


def _refusal(name: str | None, path: str) -> ApiError:
    """Why a request is not let in: its token is nobody's, or tells of one person alone."""
    if name is not None:
        words = f"{path} tells of the pool and of everybody in it, and needs the pool's own token. What {name} has used: GET /v1/usage"
        return ApiError(403, words, code="insufficient_permissions")
    words = (
        "This pool's port needs a token as its API key, and the one given is none of its, or was removed. Ask whoever runs the pool "
        "(holynb pool token add NAME makes one, and holynb pool status --json shows the pool's own)"
    )
    return ApiError(401, words, code="invalid_api_key")


async def _alive(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The status of a health check and nothing of what it says: without the token, whether the pool answers requests and no more."""

    async def reduced(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            await JSONResponse({"status": "ok" if status == 200 else "not ready"}, status)(scope, receive, send)

    await app(scope, receive, reduced)
