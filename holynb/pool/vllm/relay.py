"""The routes of a pool whose model runs in another OpenAI-compatible server: relays requests, translates errors, adds keep-alives.

Knows HTTP and server-sent events; not how that server is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from holynb.pool.server import ApiError, Metrics, Service, error_body
from holynb.pool.server.app import Routes, refuse
from holynb.pool.server.http import ClientDisconnected, Events, read_json, run_until_disconnect, sse_event
from holynb.pool.vllm import upstream
from holynb.pool.vllm.apart import ThoughtsApart
from holynb.pool.vllm.upstream import UpstreamError, UpstreamReply

__all__ = ["RelayService", "relay"]

#: Silence after which an SSE comment keeps the connection alive.
_KEEPALIVE_S = 2.0
#: Parts of vLLM's messages about prompts that do not fit.
_CONTEXT_LENGTH_ERRORS = ("maximum context length", "max_model_len", "longer than the maximum", "maximum model length")


class RelayService(Service):
    """A service whose rows another server writes. `socket` is that server's."""

    socket = Path()
    served_model = ""
    """The model's name there."""

    async def name_of(self, key: bytes) -> str | None:  # noqa: ARG002
        """Nobody's: what vLLM writes is not counted here, so a day's limit could not be held."""
        return None

    async def exit_reason(self) -> str | None:
        """How the server ended; None where that is unknown, or it still runs after a few seconds."""
        return None

    async def wait_serving(self) -> None:
        """Wait until the server answers requests. Raises ApiError 503 where it never will."""
        await self._settled.wait()
        if self.state != "ready":
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")

    async def lost_error(self, error: str) -> ApiError:
        """The error of a row whose response broke off with `error`."""
        reason = await self.exit_reason()
        return ApiError(500, f"The pool {self.identity.name} lost the server that wrote this row: {reason or error}", code="replica_died")


@dataclass(slots=True)
class _RequestTimer:
    """Times a request for the latency histograms."""

    metrics: Metrics
    began_at: float
    last_token_at: float = 0.0

    def tokens(self) -> None:
        now = time.monotonic()
        if self.last_token_at:
            self.metrics.inter_token.add(now - self.last_token_at)
        else:
            self.metrics.ttft.add(now - self.began_at)
        self.last_token_at = now

    def finish(self, reason: str) -> None:
        self.metrics.finish(reason, time.monotonic() - self.began_at)


class Relay:
    """The handlers that relay requests for the model."""

    def __init__(self, service: RelayService) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        service = self._service
        payload = await read_json(request)
        if not isinstance(payload, dict):
            raise ApiError(400, "The body is not a JSON object.")
        name = str(payload.get("model") or "")
        if not service.identity.matches(name):
            raise ApiError(404, f"The model {name} does not exist here.", param="model", code="model_not_found")
        relayed = json.dumps({**payload, "model": service.served_model}).encode()
        timer = _RequestTimer(service.metrics, time.monotonic())
        # Completions are raw, here too.
        apart = ThoughtsApart(payload.get("n") or 1) if request.url.path.endswith("/chat/completions") else None
        service.requests += 1
        try:
            reply = await run_until_disconnect(request, self._send(request.url.path, relayed, timer))
            if payload.get("stream"):
                return Events(self._stream(reply, timer, apart), lambda: self._close(reply))
        except BaseException:
            self._finish()
            raise
        try:
            return await run_until_disconnect(request, self._whole(reply, timer, apart))
        finally:
            self._close(reply)

    def _close(self, reply: UpstreamReply) -> None:
        reply.close()
        self._finish()

    def _finish(self) -> None:
        self._service.requests -= 1
        self._service.used_at = time.monotonic()

    async def _send(self, target: str, payload: bytes, timer: _RequestTimer) -> UpstreamReply:
        """Send a request; returns once the response's head is there. Raises ApiError where that is an error, or there is none."""
        await self._service.wait_serving()
        try:
            reply = await upstream.request(self._service.socket, "POST", target, payload)
            if reply.status < 400:
                return reply
            timer.finish("error")
            try:
                raise await self._to_api_error(reply.status, await reply.read())
            finally:
                reply.close()
        except UpstreamError as exc:
            timer.finish("error")
            raise await self._service.lost_error(str(exc)) from exc

    async def _whole(self, reply: UpstreamReply, timer: _RequestTimer, apart: ThoughtsApart | None) -> Response:
        outcome = "cancelled"
        try:
            body = await reply.read()
            outcome = "stop"
            return Response(body if apart is None else apart.whole(body), reply.status, media_type="application/json")
        except UpstreamError as exc:
            outcome = "error"
            raise await self._service.lost_error(str(exc)) from exc
        finally:
            timer.finish(outcome)

    async def _stream(self, reply: UpstreamReply, timer: _RequestTimer, apart: ThoughtsApart | None) -> AsyncGenerator[bytes, None]:
        """The server's events, and keep-alives while it is silent: the row may be in its queue for long."""
        outcome, complete = "cancelled", False
        try:
            async with contextlib.aclosing(_with_keepalives(self._events(reply))) as events:
                async for piece in events:
                    if piece.startswith(b"data: {"):
                        timer.tokens()
                    complete = complete or piece.startswith(b"data: [DONE]")
                    yield piece if apart is None else apart.event(piece)
            outcome = "stop" if complete else "error"
            if not complete:
                yield sse_event(error_body(await self._service.lost_error("its stream ended before its answer did")))
        except (UpstreamError, ApiError) as exc:
            outcome = "error"
            yield sse_event(error_body(exc if isinstance(exc, ApiError) else await self._service.lost_error(str(exc))))
        finally:
            timer.finish(outcome)

    async def _events(self, reply: UpstreamReply) -> AsyncGenerator[bytes, None]:
        """Whole events, each with its blank line. Raises UpstreamError, ApiError."""
        rest = b""
        async for chunk in reply.chunks():
            *whole, rest = (rest + chunk).split(b"\n\n")
            for item in whole:
                if item.startswith(b'data: {"error"'):
                    raise await self._to_api_error(500, item[6:])
                yield item + b"\n\n"

    async def _to_api_error(self, status: int, body: bytes) -> ApiError:
        """The server's error response as an ApiError; a 5xx with the reason why the server ended, where it did."""
        try:
            error = json.loads(body)
            error = error.get("error") or error
            message = str(error.get("message") or error)
        except (ValueError, AttributeError):
            message = body[:500].decode("utf-8", "replace") or f"HTTP {status}"
        if status >= 500 and (reason := await self._service.exit_reason()):
            return ApiError(
                500, f"The pool {self._service.identity.name} lost the server that wrote this row: {reason}", code="replica_died"
            )
        too_long = status == 400 and any(part in message for part in _CONTEXT_LENGTH_ERRORS)
        return ApiError(status, message, code="context_length_exceeded" if too_long else None if status < 500 else "server_error")


async def _with_keepalives(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events, with an SSE comment for each interval without one."""
    pending: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events, None))
            done, _ = await asyncio.wait({pending}, timeout=_KEEPALIVE_S)
            if not done:
                yield b": alive\n\n"
                continue
            event, pending = pending.result(), None
            if event is None:
                return
            yield event
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await events.aclose()


def relay(service: RelayService) -> ASGIApp:
    """The whole application over one upstream server: /health and /metrics are the pool's own."""
    own, relayed = Routes(service), Relay(service)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", relayed.answer, methods=["POST"]),
            Route("/v1/completions", relayed.answer, methods=["POST"]),
            Route("/v1/embeddings", relayed.answer, methods=["POST"]),
            Route("/v1/models", own.models),
            Route("/v1/models/{name:path}", own.model),
            Route("/health", own.health),
            Route("/metrics", own.metrics),
        ],
        exception_handlers=dict.fromkeys((ApiError, ClientDisconnected, HTTPException, Exception), refuse),
    )
