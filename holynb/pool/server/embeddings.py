"""`/v1/embeddings`: texts in, one vector each out, in OpenAI's shape. Knows the service, requests and bytes of float32; no tensors.

A vector is the mean of the hidden states of a text's tokens, or that of the last one (`pooling`); the model's folder may say which.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holynb import poolfields
from holynb.pool.protocol import Job
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.facts import FactRoutes
from holynb.pool.server.http import client_of, read_json, run_until_disconnect
from holynb.pool.server.messages import parse_prompts
from holynb.pool.server.pooling import Pooling
from holynb.pool.server.replica import Generation, GenerationLost, GenerationRefused
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["EmbeddingRequest", "EmbeddingRoutes", "lost_error", "parse_embedding"]

#: Texts of one request, as at OpenAI.
MAX_TEXTS = 2048


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A validated request. None: as the model's folder says it."""

    texts: tuple[str | tuple[int, ...], ...]
    model: str = ""
    pooling: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    base64: bool = False
    special: bool = True
    truncate: int | None = None


def parse_embedding(body: Any) -> EmbeddingRequest:
    """The request of a JSON body. Raises ApiError 400, naming the field."""
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.")
    try:
        poolfields.check_embedding(body)
    except poolfields.FieldError as exc:
        raise ApiError(400, str(exc), param=exc.param, code="unsupported_parameter" if exc.unsupported else None) from exc
    try:
        texts = parse_prompts(body.get("input"))
    except ApiError:
        raise ApiError(400, "input must be text, a list of texts, or token ids.", param="input") from None
    if len(texts) > MAX_TEXTS:
        raise ApiError(400, f"input holds {len(texts):,} texts; a request takes at most {MAX_TEXTS:,}.", param="input")
    if (blank := next((i for i, text in enumerate(texts) if text == ""), None)) is not None:
        raise ApiError(400, f"input.{blank} is empty.", param="input")
    return EmbeddingRequest(
        texts,
        body.get("model") or "",
        body.get("pooling"),
        body.get("normalize"),
        body.get("dimensions"),
        body.get("encoding_format") == "base64",
        body.get("add_special_tokens") is not False,
        body.get("truncate_prompt_tokens"),
    )


class EmbeddingRoutes(FactRoutes):
    """The handler over one service."""

    async def embeddings(self, request: Request) -> Response:
        service = self._service
        parsed = parse_embedding(await read_json(request))
        self.check_model(parsed.model)
        if service.pipe > 1:
            words = f"This pool divides its model into {service.pipe} stages (--pp), and embeds nothing then; start it without --pp, or with --tp."
            raise ApiError(400, words, code="unsupported_parameter")
        service.requests += 1
        generations: list[Generation] = []
        try:
            return JSONResponse(await run_until_disconnect(request, self._embed(parsed, generations, client_of(request))))
        finally:
            for generation in generations:
                service.cancel(generation)
            service.requests -= 1
            service.used_at = time.monotonic()

    async def _embed(self, request: EmbeddingRequest, generations: list[Generation], client: str | None) -> dict[str, Any]:
        """The whole answer. `generations` gets what runs for it, for whoever ends it."""
        tokenizer, began = await self._service.wait_ready(), time.monotonic()
        way = _way(request, self._service.pooling)
        jobs = await self._jobs(request, way.kind, tokenizer)
        tokens = sum(len(job.ids) for job in jobs)
        hold = await self._service.clients.hold(client, tokens)
        outcome = "error"
        try:
            generations += self._service.submit(jobs, client)
            for generation in generations:
                while not generation.done:
                    await generation.wait_update(math.inf)
                if generation.error is not None:
                    raise lost_error(generation.error) from generation.error
            data = [_item(i, g, request, way) for i, g in enumerate(generations)]
            outcome = "stop"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            hold.settle(tokens)
            self._service.metrics.finish(outcome, time.monotonic() - began)
        model = request.model or self._service.identity.name
        return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    async def _jobs(self, request: EmbeddingRequest, pooling: str, tokenizer: ChatTokenizer) -> list[Job]:
        """One for each text. Raises ApiError 400 for one that is too long."""
        prompts = ApiRequest(chat=False, prompts=request.texts, special=request.special, truncate=request.truncate)
        encoded = await self._service.encode(prompts, tokenizer)
        for i, ids in enumerate(encoded):
            if len(ids) > self._service.max_len:
                raise ApiError(
                    400,
                    f"This model's maximum context length is {self._service.max_len} tokens. However, input.{i} has {len(ids)} tokens.",
                    param="input",
                    code="context_length_exceeded",
                )
        return [Job(self._service.next_job(), ids, 1, pooling=pooling) for ids in encoded]


def _way(request: EmbeddingRequest, own: Pooling) -> Pooling:
    """How this request's vectors are made. Raises ApiError 400 where the model's own way cannot be, and no other is asked for."""
    if request.pooling is None and own.refusal:
        words = f"This model's own way to make a vector is not supported: {own.refusal}. Ask for pooling: mean or last."
        raise ApiError(400, words, param="pooling", code="unsupported_parameter")
    normalize = own.normalize if request.normalize is None else request.normalize
    return Pooling(request.pooling or own.kind, normalize)


def _item(index: int, generation: Generation, request: EmbeddingRequest, way: Pooling) -> Mapping[str, Any]:
    import numpy as np

    numbers = np.frombuffer(base64.b64decode(generation.vector), "<f4")
    if request.dimensions is not None:
        if request.dimensions > len(numbers):
            words = (
                f"dimensions must be a whole number from 1 to {len(numbers)}, which this model's vectors have, not {request.dimensions}."
            )
            raise ApiError(400, words, param="dimensions")
        numbers = numbers[: request.dimensions]
    if way.normalize and (length := float(np.linalg.norm(numbers.astype(np.float64)))):
        numbers = (numbers / length).astype("<f4")
    coded: Any = base64.b64encode(numbers.tobytes()).decode("ascii") if request.base64 else numbers.tolist()
    return {"object": "embedding", "index": index, "embedding": coded}


def lost_error(exc: GenerationLost | GenerationRefused) -> ApiError:
    """The API's error for a row that its rank refused, or that was lost."""
    if isinstance(exc, GenerationRefused):
        return ApiError(400, str(exc), code="context_length_exceeded")
    return ApiError(500, str(exc), code=exc.code)
