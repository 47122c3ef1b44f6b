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
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from holynb.pool.server import answers
from holynb.pool.server.answers import Choice
from holynb.pool.server.api import ApiRequest, parse_request
from holynb.pool.server.apierror import ApiError, error_body
from holynb.pool.server.clients import Hold
from holynb.pool.server.detokenize import TextReader, merged
from holynb.pool.server.effort import with_thinking
from holynb.pool.server.embeddings import EmbeddingRoutes, lost_error
from holynb.pool.server.grammar import GrammarCache, GrammarError
from holynb.pool.server.http import ClientDisconnected, Events, client_of, read_json, run_until_disconnect, sse_event
from holynb.pool.server.jobs import completed
from holynb.pool.server.logprobs import LogprobWriter
from holynb.pool.server.replica import Generation, GenerationLost, GenerationRefused
from holynb.pool.server.service import Service
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["Routes", "application", "refuse"]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A request in flight: its head, its generations, their readers and what writes their log probabilities."""

    request: ApiRequest
    head: dict[str, Any]
    generations: list[Generation]
    readers: list[TextReader]
    logprobs: list[LogprobWriter]
    began_at: float
    splits: bool
    """What is thought is told from the text."""
    hold: Hold
    context: int
    """Tokens that a row can have."""

    @property
    def tokens_in(self) -> int:
        return sum(len(g.job.ids) for g in self.generations[:: self.request.n])

    @property
    def cached(self) -> int:
        """Of these, how many were in the KV cache when their row was admitted."""
        return sum(g.cached for g in self.generations[:: self.request.n])

    def usage(self, tokens_out: int, thought: int) -> dict[str, Any]:
        """The usage object, with a note where memory ran out under the request, or it was not done to the letter."""
        notes = [*self.request.notes, *(["oom"] if any("oom" in g.notes for g in self.generations) else [])]
        full = any(g.finish == "length" and len(g.job.ids) + g.job.max_new >= self.context for g in self.generations)
        notes += ["context_full"] if full else []
        return answers.usage(self.tokens_in, tokens_out, self.cached, thought=thought if self.splits else None, notes=notes)


class Routes(EmbeddingRoutes):
    """The handlers over one service."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._grammars = GrammarCache()

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        service = self._service
        parsed = parse_request(await read_json(request), chat=chat)
        self.check_model(parsed.model)
        service.requests += 1
        try:
            answer = await run_until_disconnect(request, self._begin(parsed, client_of(request)))
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
        if answer:
            answer.hold.settle(answer.tokens_in + sum(len(g.tokens) for g in answer.generations))
        self._service.requests -= 1
        self._service.used_at = time.monotonic()

    async def _begin(self, request: ApiRequest, client: str | None) -> _Answer:
        tokenizer = await self._service.wait_ready()
        request = completed(with_thinking(request, tokenizer), tokenizer.defaults)
        prompts, grammar = await self._service.encode(request, tokenizer), await self._grammar(request)
        jobs = self._service.jobs(request, prompts, tokenizer, grammar)
        prompt = sum(len(job.ids) for job in jobs[:: request.n])
        hold = await self._service.clients.hold(client, prompt + sum(job.max_new for job in jobs), prompt, len(jobs))
        try:
            generations = self._service.submit(jobs, client)
        except ApiError:
            hold.settle(0)
            raise
        echoes = [_echo(request, g, i // request.n, tokenizer) for i, g in enumerate(generations)]
        readers = [TextReader(g, tokenizer, request, echo) for g, echo in zip(generations, echoes, strict=True)]
        writers = [LogprobWriter(request, tokenizer, g.job.ids) for g in generations]
        head = answers.head(request, uuid.uuid4().hex, request.model or self._service.identity.name)
        splits = request.chat and tokenizer.thinking is not None
        return _Answer(request, head, generations, readers, writers, time.monotonic(), splits, hold, self._service.max_len)

    async def _grammar(self, request: ApiRequest) -> str | None:
        """The grammar of the answer. Raises ApiError 400 where the guide cannot be enforced."""
        guide = request.guide
        try:
            return None if guide is None else await self._grammars.get(guide)
        except GrammarError as exc:
            param = "" if guide is None else guide.param
            raise ApiError(400, f"{param}: {exc}", param=param, code="invalid_schema") from exc

    async def _whole(self, answer: _Answer) -> dict[str, Any]:
        """All choices; the first one that fails ends the others."""
        tasks = [asyncio.ensure_future(self._collect(r, w)) for r, w in zip(answer.readers, answer.logprobs, strict=True)]
        try:
            done = await asyncio.gather(*tasks)
        except (GenerationLost, GenerationRefused) as exc:
            self._service.metrics.finish("error", 0.0)
            raise lost_error(exc) from exc
        except asyncio.CancelledError:
            self._service.metrics.finish("cancelled", 0.0)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for choice in done:
            self._service.metrics.finish(choice.finish or "stop", time.monotonic() - answer.began_at)
        usage = answer.usage(sum(c.tokens for c in done), sum(c.thought_tokens for c in done))
        return answers.completion(answer.request, answer.head, done, usage)

    async def _collect(self, reader: TextReader, logprobs: LogprobWriter) -> Choice:
        """One whole choice."""
        texts: dict[str, list[str]] = {"text": [], "thought": []}
        parts: list[dict[str, Any]] = []
        async with aclosing(reader.pieces(self._service.cancel)) as pieces:
            async for piece in pieces:
                if piece.kind == "again":
                    texts = {"text": [], "thought": []}
                    parts.clear()
                if (part := logprobs.write(piece)) is not None:
                    parts.append(part)
                if piece.kind == "end":
                    text, thought = "".join(texts["text"]), "".join(texts["thought"])
                    return Choice(text, thought, piece.finish, logprobs.join(parts), piece.tokens, piece.thought, piece.stopped)
                if piece.kind in texts:
                    texts[piece.kind].append(piece.text)
        raise AssertionError("a reader without an end")  # pragma: no cover

    async def _stream(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        """The events of a stream. An error after the first byte is an event too, as the SDKs expect it."""
        request, metrics, tokens, thought, ended = answer.request, self._service.metrics, 0, 0, False
        try:
            async with aclosing(merged(answer.readers, self._service.cancel)) as pieces:
                async for choice, piece in pieces:
                    if piece.kind == "quiet":
                        yield b": alive\n\n"
                    elif piece.kind == "admitted":
                        yield sse_event(answers.chunk(request, answer.head, choice, {"role": "assistant", "text": ""}))
                    elif piece.kind == "thought":
                        yield sse_event(answers.chunk(request, answer.head, choice, {"thought": piece.text}))
                    elif piece.kind == "text":
                        more = {"text": piece.text, "logprobs": answer.logprobs[choice].write(piece)}
                        yield sse_event(answers.chunk(request, answer.head, choice, more))
                    elif piece.kind == "end":
                        tokens, thought = tokens + piece.tokens, thought + piece.thought
                        metrics.finish(piece.finish or "stop", time.monotonic() - answer.began_at)
                        more = {"finish": piece.finish, "stopped": piece.stopped, "logprobs": answer.logprobs[choice].write(piece)}
                        yield sse_event(answers.chunk(request, answer.head, choice, more))
            ended = True
            if request.usage_chunk:
                kind = "chat.completion.chunk" if request.chat else "text_completion"
                yield sse_event({**answer.head, "object": kind, "choices": [], "usage": answer.usage(tokens, thought)})
            yield b"data: [DONE]\n\n"
        except (GenerationLost, GenerationRefused) as exc:
            ended = True
            metrics.finish("error", 0.0)
            yield sse_event(error_body(lost_error(exc)))
        finally:
            if not ended:
                metrics.finish("cancelled", 0.0)


def _echo(request: ApiRequest, generation: Generation, prompt: int, tokenizer: ChatTokenizer) -> str | None:
    """The prompt's text, where the answer begins with it: as it was sent, or what its tokens say."""
    if not request.echo:
        return None
    sent = request.prompts[prompt]
    return sent if isinstance(sent, str) and request.truncate is None else tokenizer.decode(generation.job.ids, special=True)


async def refuse(request: Request, exc: Exception) -> Response:
    if isinstance(exc, ClientDisconnected):
        return Response(status_code=499)
    headers = None
    if isinstance(exc, HTTPException):
        headers = exc.headers  # a 405 names the allowed methods
        exc = ApiError(exc.status_code, f"{request.method} {request.url.path}: {exc.detail}")
    if not isinstance(exc, ApiError):
        exc = ApiError(500, f"A fault in the pool's server: {type(exc).__name__}: {exc}")
    return JSONResponse(error_body(exc), exc.status, headers or exc.headers)


def application(service: Service) -> ASGIApp:
    """The whole application over one service."""
    routes = Routes(service)
    handlers = dict.fromkeys((ApiError, ClientDisconnected, HTTPException, Exception), refuse)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/embeddings", routes.embeddings, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/v1/usage", routes.usage),
            Route("/v1/models/{name:path}", routes.model),
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/apply-template", routes.apply_template, methods=["POST"]),
            Route("/detokenize", routes.detokenize, methods=["POST"]),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
        ],
        exception_handlers=handlers,
    )
