"""The routes: HTTP in, HTTP out, over a Service. Knows OpenAI's paths and server-sent events; no processes, no files.

A stream's first chunk goes out when its row leaves the queue; until then, and whenever nothing comes for a while, comments
show that the server is alive. A client that goes away has its rows cancelled at the next step.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from holynb.pool.server import api
from holynb.pool.server.api import ApiError, ApiRequest
from holynb.pool.server.detokenize import Reading, TextPiece
from holynb.pool.server.grammar import GrammarError, Grammars
from holynb.pool.server.http import Events, Gone, body, event, unless_gone
from holynb.pool.server.metrics import render
from holynb.pool.server.replica import Generation, Lost, Refused
from holynb.pool.server.service import Service

__all__ = ["Routes", "application", "refuse"]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A request under way: what was asked, its head, and its generations."""

    ask: ApiRequest
    head: dict[str, Any]
    generations: list[Generation]
    readings: list[Reading]
    began: float

    @property
    def tokens_in(self) -> int:
        return sum(len(g.job.ids) for g in self.generations[:: self.ask.n])

    @property
    def cached(self) -> int:
        """Of these, how many were in the cache when their row was admitted."""
        return sum(g.cached for g in self.generations[:: self.ask.n])

    def usage(self, tokens_out: int) -> dict[str, Any]:
        """What it took, and whether memory ran out under it."""
        notes = ["oom"] if any("oom" in g.notes for g in self.generations) else []
        return api.usage(self.tokens_in, tokens_out, self.cached, notes)


class Routes:
    """The handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._grammars = Grammars()

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - a handler's signature
        identity = self._service.identity
        names = dict.fromkeys((identity.name, identity.model))
        data = [
            {"id": n, "object": "model", "created": 0, "owned_by": "holynb-pool", "max_model_len": self._service.max_len} for n in names
        ]
        return JSONResponse({"object": "list", "data": data})

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        said = self._service.health()
        return JSONResponse(said, 200 if said["state"] == "ready" else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        service = self._service
        return PlainTextResponse(render(service.metrics, service.state, service.stats()), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        service = self._service
        ask = api.body_of(await body(request), chat=chat)
        if not service.identity.answers_to(ask.model):
            names = " or ".join(dict.fromkeys((service.identity.name, service.identity.model)))
            raise ApiError(
                404, f"The model {ask.model} does not exist here; this pool serves {names}.", param="model", code="model_not_found"
            )
        service.requests += 1
        try:
            answer = await unless_gone(request, self._begin(ask))
        except BaseException:
            self._leave()
            raise
        if ask.stream:
            return Events(self._stream(answer), lambda: self._leave(answer))
        try:
            return JSONResponse(await unless_gone(request, self._whole(answer)))
        finally:
            self._leave(answer)

    def _leave(self, answer: _Answer | None = None) -> None:
        """The request is over, however it ended; what still runs for it is cancelled."""
        for generation in answer.generations if answer else ():
            self._service.cancel(generation)
        self._service.requests -= 1
        self._service.used_at = time.monotonic()

    async def _begin(self, ask: ApiRequest) -> _Answer:
        text = await self._service.ready()
        generations = self._service.begin(self._service.jobs(ask, text, await self._grammar(ask)))
        readings = [Reading(g, text, ask.stop, stream=ask.stream) for g in generations]
        return _Answer(
            ask, api.head(ask, uuid.uuid4().hex, ask.model or self._service.identity.name), generations, readings, time.monotonic()
        )

    async def _grammar(self, ask: ApiRequest) -> str | None:
        """What the answer must be. Raises ApiError 400 where that cannot be held."""
        try:
            return None if ask.schema is None else await self._grammars.of(ask.schema)
        except GrammarError as exc:
            raise ApiError(400, f"response_format: {exc}", param="response_format", code="invalid_schema") from exc

    async def _whole(self, answer: _Answer) -> dict[str, Any]:
        """All choices; the first one that fails ends the others."""
        tasks = [asyncio.ensure_future(self._collect(r)) for r in answer.readings]
        try:
            done = await asyncio.gather(*tasks)
        except (Lost, Refused) as exc:
            self._service.metrics.end("error", 0.0)
            raise _api_error(exc) from exc
        except asyncio.CancelledError:
            self._service.metrics.end("cancelled", 0.0)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for _, finish, _ in done:
            self._service.metrics.end(finish or "stop", time.monotonic() - answer.began)
        used = answer.usage(sum(tokens for _, _, tokens in done))
        return api.whole(answer.ask, answer.head, [(text, finish) for text, finish, _ in done], used)

    async def _collect(self, reading: Reading) -> tuple[str, str | None, int]:
        """Text, finish reason and tokens of one choice."""
        said: list[str] = []
        async with aclosing(reading.pieces(self._service.cancel)) as pieces:
            async for piece in pieces:
                if piece.kind == "again":
                    said.clear()
                elif piece.kind == "end":
                    return "".join(said), piece.finish, piece.tokens
                said.append(piece.text)
        raise AssertionError("a reading without an end")  # pragma: no cover

    async def _stream(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        """The events of a stream. An error after the first byte is an event too, as the SDKs expect it."""
        ask, metrics, tokens, ended = answer.ask, self._service.metrics, 0, False
        try:
            async with aclosing(_merged(answer.readings, self._service)) as merged:
                async for choice, piece in merged:
                    if piece.kind == "quiet":
                        yield b": alive\n\n"
                    elif piece.kind == "admitted":
                        yield event(api.chunk(ask, answer.head, choice, {"role": "assistant", "text": ""}))
                    elif piece.kind == "text":
                        yield event(api.chunk(ask, answer.head, choice, {"text": piece.text}))
                    elif piece.kind == "end":
                        tokens += piece.tokens
                        metrics.end(piece.finish or "stop", time.monotonic() - answer.began)
                        yield event(api.chunk(ask, answer.head, choice, {"finish": piece.finish}))
            ended = True
            if ask.usage_chunk:
                kind = "chat.completion.chunk" if ask.chat else "text_completion"
                yield event({**answer.head, "object": kind, "choices": [], "usage": answer.usage(tokens)})
            yield b"data: [DONE]\n\n"
        except (Lost, Refused) as exc:
            ended = True
            metrics.end("error", 0.0)
            yield event(api.error_body(_api_error(exc)))
        finally:
            if not ended:
                metrics.end("cancelled", 0.0)


async def _merged(readings: list[Reading], service: Service) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """The pieces of all choices as they come, each with its choice's number."""
    if len(readings) == 1:
        async with aclosing(readings[0].pieces(service.cancel)) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    queue: asyncio.Queue[tuple[int, TextPiece | Exception | None]] = asyncio.Queue()

    async def pump(choice: int, reading: Reading) -> None:
        try:
            async with aclosing(reading.pieces(service.cancel)) as pieces:
                async for piece in pieces:
                    queue.put_nowait((choice, piece))
            queue.put_nowait((choice, None))
        except (Lost, Refused) as exc:
            queue.put_nowait((choice, exc))

    tasks, left = [asyncio.create_task(pump(i, r)) for i, r in enumerate(readings)], len(readings)
    try:
        while left:
            choice, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield choice, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _api_error(exc: Lost | Refused) -> ApiError:
    if isinstance(exc, Refused):
        return ApiError(400, str(exc), code="context_length_exceeded")
    return ApiError(500, str(exc), code=exc.code)


async def refuse(request: Request, exc: Exception) -> Response:
    if isinstance(exc, Gone):
        return Response(status_code=499)
    headers = None
    if isinstance(exc, HTTPException):
        headers = exc.headers  # which methods are allowed, of a 405
        exc = ApiError(exc.status_code, f"{request.method} {request.url.path}: {exc.detail}")
    if not isinstance(exc, ApiError):
        exc = ApiError(500, f"A fault in the pool's server: {type(exc).__name__}: {exc}")
    return JSONResponse(api.error_body(exc), exc.status, headers)


def application(service: Service) -> ASGIApp:
    """The whole application over one service."""
    routes = Routes(service)
    handlers = dict.fromkeys((ApiError, Gone, HTTPException, Exception), refuse)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
        ],
        exception_handlers=handlers,
    )
