"""The routes of a pool whose model runs in a foreign OpenAI-compatible server: requests passed through, errors and silence in our words.

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

from holynb.pool.server import ApiError, Events, Gone, Metrics, Routes, Service, api, body, event, refuse, unless_gone
from holynb.pool.vllm import upstream
from holynb.pool.vllm.upstream import UpstreamError, UpstreamReply

__all__ = ["Lodger", "relay"]

#: Seconds of silence after which a comment shows that somebody is there.
_QUIET = 2.0
#: Words of a server that has not enough room for a prompt and its answer.
_TOO_LONG = ("maximum context length", "max_model_len", "longer than the maximum", "maximum model length")


class Lodger(Service):
    """A service whose rows another server writes. `socket` is that server's; how it ended is asked of `fate`."""

    socket = Path()
    served = ""
    """The model's name there."""

    async def fate(self) -> str | None:
        """How the server ended; None where that is not known, or it still runs after a moment."""
        return None

    async def settled(self) -> None:
        """Wait until it answers. Raises ApiError 503 where it never will."""
        await self._settled.wait()
        if self.state != "ready":
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")

    async def refusal(self, why: str) -> ApiError:
        """What a row hears whose answer broke off."""
        how = await self.fate()
        return ApiError(500, f"The pool {self.identity.name} lost the server that wrote this row: {how or why}", code="replica_died")


@dataclass(slots=True)
class _Watch:
    """When a request came and its last tokens: what the histograms of times are made of."""

    metrics: Metrics
    began: float
    last: float = 0.0

    def tokens(self) -> None:
        now = time.monotonic()
        if self.last:
            self.metrics.between.add(now - self.last)
        else:
            self.metrics.ttft.add(now - self.began)
        self.last = now

    def end(self, how: str) -> None:
        self.metrics.end(how, time.monotonic() - self.began)


class Relay:
    """What is asked of the model goes on."""

    def __init__(self, service: Lodger) -> None:
        self._lodger = service

    async def answer(self, request: Request) -> Response:
        service = self._lodger
        asked = await body(request)
        if not isinstance(asked, dict):
            raise ApiError(400, "The body is not a JSON object.")
        name = str(asked.get("model") or "")
        if not service.identity.answers_to(name):
            raise ApiError(404, f"The model {name} does not exist here.", param="model", code="model_not_found")
        sent = json.dumps({**asked, "model": service.served}).encode()
        watch = _Watch(service.metrics, time.monotonic())
        service.requests += 1
        try:
            reply = await unless_gone(request, self._begin_there(request.url.path, sent, watch))
            if asked.get("stream"):
                return Events(self._stream(reply, watch), lambda: self._end(reply))
        except BaseException:
            self._leave()
            raise
        try:
            return await unless_gone(request, self._whole(reply, watch))
        finally:
            self._end(reply)

    def _end(self, reply: UpstreamReply) -> None:
        reply.close()
        self._leave()

    def _leave(self) -> None:
        self._lodger.requests -= 1
        self._lodger.used_at = time.monotonic()

    async def _begin_there(self, target: str, sent: bytes, watch: _Watch) -> UpstreamReply:
        """The head of the server's answer. Raises ApiError: it is none, or a refusal."""
        await self._lodger.settled()
        try:
            reply = await upstream.ask(self._lodger.socket, "POST", target, sent)
            if reply.status < 400:
                return reply
            watch.end("error")
            try:
                raise await self._translated(reply.status, await reply.read())
            finally:
                reply.close()
        except UpstreamError as exc:
            watch.end("error")
            raise await self._lodger.refusal(str(exc)) from exc

    async def _whole(self, reply: UpstreamReply, watch: _Watch) -> Response:
        how = "cancelled"
        try:
            said = await reply.read()
            how = "stop"
            return Response(said, reply.status, media_type="application/json")
        except UpstreamError as exc:
            how = "error"
            raise await self._lodger.refusal(str(exc)) from exc
        finally:
            watch.end(how)

    async def _stream(self, reply: UpstreamReply, watch: _Watch) -> AsyncGenerator[bytes, None]:
        """The server's events, and comments where it is silent: it may have the row in its queue for long."""
        how, over = "cancelled", False
        try:
            async with contextlib.aclosing(_lively(self._events(reply))) as lively:
                async for piece in lively:
                    if piece.startswith(b"data: {"):
                        watch.tokens()
                    over = over or piece.startswith(b"data: [DONE]")
                    yield piece
            how = "stop" if over else "error"
            if not over:
                yield event(api.error_body(await self._lodger.refusal("its stream ended before its answer did")))
        except (UpstreamError, ApiError) as exc:
            how = "error"
            yield event(api.error_body(exc if isinstance(exc, ApiError) else await self._lodger.refusal(str(exc))))
        finally:
            watch.end(how)

    async def _events(self, reply: UpstreamReply) -> AsyncGenerator[bytes, None]:
        """Whole events, each with its blank line. Raises UpstreamError, ApiError."""
        rest = b""
        async for chunk in reply.chunks():
            *whole, rest = (rest + chunk).split(b"\n\n")
            for one in whole:
                if one.startswith(b'data: {"error"'):
                    raise await self._translated(500, one[6:])
                yield one + b"\n\n"

    async def _translated(self, status: int, said: bytes) -> ApiError:
        """The server's refusal as ours; a fault of its engine with how it ended, where it did."""
        try:
            error = json.loads(said)
            error = error.get("error") or error
            message = str(error.get("message") or error)
        except (ValueError, AttributeError):
            message = said[:500].decode("utf-8", "replace") or f"HTTP {status}"
        if status >= 500 and (how := await self._lodger.fate()):
            return ApiError(500, f"The pool {self._lodger.identity.name} lost the server that wrote this row: {how}", code="replica_died")
        long = status == 400 and any(words in message for words in _TOO_LONG)
        return ApiError(status, message, code="context_length_exceeded" if long else None if status < 500 else "server_error")


async def _lively(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events, and a comment for each while in which there is none."""
    pending: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events, None))
            done, _ = await asyncio.wait({pending}, timeout=_QUIET)
            if not done:
                yield b": alive\n\n"
                continue
            found, pending = pending.result(), None
            if found is None:
                return
            yield found
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await events.aclose()


def relay(service: Lodger) -> ASGIApp:
    """The whole application over one foreign server: /health and /metrics are ours, in our names."""
    ours, theirs = Routes(service), Relay(service)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", theirs.answer, methods=["POST"]),
            Route("/v1/completions", theirs.answer, methods=["POST"]),
            Route("/v1/models", ours.models),
            Route("/health", ours.health),
            Route("/metrics", ours.metrics),
        ],
        exception_handlers=dict.fromkeys((ApiError, Gone, HTTPException, Exception), refuse),
    )
