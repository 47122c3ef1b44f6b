"""The routes: HTTP in, HTTP out, over a Service. Knows OpenAI's paths and server-sent events; no processes, no files.

A stream's first chunk is sent when its row leaves the queue; until then, and whenever there is no text for a while, SSE comments
keep the connection alive. When a client disconnects its rows are cancelled at the next step.
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
from holynb.pool.server.detokenize import TextPiece, TextReader
from holynb.pool.server.grammar import GrammarCache, GrammarError
from holynb.pool.server.http import ClientDisconnected, Events, read_json, run_until_disconnect, sse_event
from holynb.pool.server.metrics import render
from holynb.pool.server.replica import Generation, GenerationLost, GenerationRefused
from holynb.pool.server.service import Service

__all__ = ["Routes", "application", "refuse"]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A request in flight: its head, its generations and their readers."""

    request: ApiRequest
    head: dict[str, Any]
    generations: list[Generation]
    readers: list[TextReader]
    began_at: float

    @property
    def tokens_in(self) -> int:
        return sum(len(g.job.ids) for g in self.generations[:: self.request.n])

    @property
    def cached(self) -> int:
        """Of these, how many were in the KV cache when their row was admitted."""
        return sum(g.cached for g in self.generations[:: self.request.n])

    def usage(self, tokens_out: int) -> dict[str, Any]:
        """The usage object, with a note where memory ran out under the request."""
        notes = ["oom"] if any("oom" in g.notes for g in self.generations) else []
        return api.usage(self.tokens_in, tokens_out, self.cached, notes)


class Routes:
    """The handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._grammars = GrammarCache()

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
        health = self._service.health()
        return JSONResponse(health, 200 if health["state"] == "ready" else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        service = self._service
        return PlainTextResponse(render(service.metrics, service.state, service.stats()), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        service = self._service
        parsed = api.parse_request(await read_json(request), chat=chat)
        if not service.identity.matches(parsed.model):
            names = " or ".join(dict.fromkeys((service.identity.name, service.identity.model)))
            raise ApiError(
                404, f"The model {parsed.model} does not exist here; this pool serves {names}.", param="model", code="model_not_found"
            )
        service.requests += 1
        try:
            answer = await run_until_disconnect(request, self._begin(parsed))
        except BaseException:
            self._finish()
            raise
        if parsed.stream:
            return Events(self._stream(answer), lambda: self._finish(answer))
        try:
            return JSONResponse(await run_until_disconnect(request, self._whole(answer)))
        finally:
            self._finish(answer)

    def _finish(self, answer: _Answer | None = None) -> None:
        """End of the request, however it ended: cancel what still runs for it."""
        for generation in answer.generations if answer else ():
            self._service.cancel(generation)
        self._service.requests -= 1
        self._service.used_at = time.monotonic()

    async def _begin(self, request: ApiRequest) -> _Answer:
        tokenizer = await self._service.wait_ready()
        prompts, grammar = await self._service.encode(request, tokenizer), await self._grammar(request)
        generations = self._service.submit(self._service.jobs(request, prompts, tokenizer, grammar))
        readers = [TextReader(g, tokenizer, request.stop, stream=request.stream) for g in generations]
        head = api.head(request, uuid.uuid4().hex, request.model or self._service.identity.name)
        return _Answer(request, head, generations, readers, time.monotonic())

    async def _grammar(self, request: ApiRequest) -> str | None:
        """The grammar of the answer. Raises ApiError 400 where the schema cannot be enforced."""
        try:
            return None if request.schema is None else await self._grammars.get(request.schema)
        except GrammarError as exc:
            raise ApiError(400, f"response_format: {exc}", param="response_format", code="invalid_schema") from exc

    async def _whole(self, answer: _Answer) -> dict[str, Any]:
        """All choices; the first one that fails ends the others."""
        tasks = [asyncio.ensure_future(self._collect(r)) for r in answer.readers]
        try:
            done = await asyncio.gather(*tasks)
        except (GenerationLost, GenerationRefused) as exc:
            self._service.metrics.finish("error", 0.0)
            raise _api_error(exc) from exc
        except asyncio.CancelledError:
            self._service.metrics.finish("cancelled", 0.0)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for _, finish, _ in done:
            self._service.metrics.finish(finish or "stop", time.monotonic() - answer.began_at)
        usage = answer.usage(sum(tokens for _, _, tokens in done))
        return api.completion(answer.request, answer.head, [(text, finish) for text, finish, _ in done], usage)

    async def _collect(self, reader: TextReader) -> tuple[str, str | None, int]:
        """Text, finish reason and tokens of one choice."""
        texts: list[str] = []
        async with aclosing(reader.pieces(self._service.cancel)) as pieces:
            async for piece in pieces:
                if piece.kind == "again":
                    texts.clear()
                elif piece.kind == "end":
                    return "".join(texts), piece.finish, piece.tokens
                texts.append(piece.text)
        raise AssertionError("a reader without an end")  # pragma: no cover

    async def _stream(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        """The events of a stream. An error after the first byte is an event too, as the SDKs expect it."""
        request, metrics, tokens, ended = answer.request, self._service.metrics, 0, False
        try:
            async with aclosing(_merged(answer.readers, self._service)) as merged:
                async for choice, piece in merged:
                    if piece.kind == "quiet":
                        yield b": alive\n\n"
                    elif piece.kind == "admitted":
                        yield sse_event(api.chunk(request, answer.head, choice, {"role": "assistant", "text": ""}))
                    elif piece.kind == "text":
                        yield sse_event(api.chunk(request, answer.head, choice, {"text": piece.text}))
                    elif piece.kind == "end":
                        tokens += piece.tokens
                        metrics.finish(piece.finish or "stop", time.monotonic() - answer.began_at)
                        yield sse_event(api.chunk(request, answer.head, choice, {"finish": piece.finish}))
            ended = True
            if request.usage_chunk:
                kind = "chat.completion.chunk" if request.chat else "text_completion"
                yield sse_event({**answer.head, "object": kind, "choices": [], "usage": answer.usage(tokens)})
            yield b"data: [DONE]\n\n"
        except (GenerationLost, GenerationRefused) as exc:
            ended = True
            metrics.finish("error", 0.0)
            yield sse_event(api.error_body(_api_error(exc)))
        finally:
            if not ended:
                metrics.finish("cancelled", 0.0)


async def _merged(readers: list[TextReader], service: Service) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """The pieces of all choices as they come, each with the index of its choice."""
    if len(readers) == 1:
        async with aclosing(readers[0].pieces(service.cancel)) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    queue: asyncio.Queue[tuple[int, TextPiece | Exception | None]] = asyncio.Queue()

    async def pump(choice: int, reader: TextReader) -> None:
        try:
            async with aclosing(reader.pieces(service.cancel)) as pieces:
                async for piece in pieces:
                    queue.put_nowait((choice, piece))
            queue.put_nowait((choice, None))
        except (GenerationLost, GenerationRefused) as exc:
            queue.put_nowait((choice, exc))

    tasks, left = [asyncio.create_task(pump(i, r)) for i, r in enumerate(readers)], len(readers)
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


def _api_error(exc: GenerationLost | GenerationRefused) -> ApiError:
    if isinstance(exc, GenerationRefused):
        return ApiError(400, str(exc), code="context_length_exceeded")
    return ApiError(500, str(exc), code=exc.code)


async def refuse(request: Request, exc: Exception) -> Response:
    if isinstance(exc, ClientDisconnected):
        return Response(status_code=499)
    headers = None
    if isinstance(exc, HTTPException):
        headers = exc.headers  # a 405 names the allowed methods
        exc = ApiError(exc.status_code, f"{request.method} {request.url.path}: {exc.detail}")
    if not isinstance(exc, ApiError):
        exc = ApiError(500, f"A fault in the pool's server: {type(exc).__name__}: {exc}")
    return JSONResponse(api.error_body(exc), exc.status, headers)


def application(service: Service) -> ASGIApp:
    """The whole application over one service."""
    routes = Routes(service)
    handlers = dict.fromkeys((ApiError, ClientDisconnected, HTTPException, Exception), refuse)
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
