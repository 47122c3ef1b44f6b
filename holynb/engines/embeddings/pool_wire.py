"""Embeddings of a local pool: POST /v1/embeddings over its private socket. While a request is at work, empty Deltas say so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from holynb.engines import codec, entry, poolwire
from holynb.engines.embeddings import openai_wire
from holynb.engines.pool import Pool
from holynb.errors import Fault
from holynb.types import Completion, Delta, Done, Request, Timeouts

__all__ = ["PoolEmbeddings"]


class PoolEmbeddings(Pool):
    """A pool's endpoint, asked for vectors."""

    path = "/v1/embeddings"

    def _body(self, request: Request, name: str, *, vllm: bool) -> bytes:  # noqa: ARG002 - as for answers
        payload: dict[str, Any] = openai_wire.body(request) | {"model": name}
        return json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")

    async def _stream(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        posting = asyncio.ensure_future(self._ask(request, timeouts))
        try:
            while not posting.done():  # it may wait behind others, which is no silence
                await asyncio.wait({posting}, timeout=timeouts.silence / 3)
                if posting.done():
                    break
                info = await self._status()
                if info is not None and info.state == "silent":
                    raise Fault("timeout", "the pool does not respond; see %infer pool status")
                yield Delta("")
            yield entry.admit(Done(posting.result()), None)
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)

    async def _ask(self, request: Request, timeouts: Timeouts) -> Completion:
        reply, meter = await self._post(request, timeouts)
        started = meter.begin()
        share: float | None = None
        try:
            data = await reply.read()
            if reply.status != 200:
                raise poolwire.refusal(data, reply.status)
            answer = openai_wire.read(codec.loads(data, strict=True))
        except poolwire.PoolEnding as fault:
            raise self._ending_fault(fault) from fault
        except ValueError as exc:
            raise Fault("server", "The pool sent something that is not JSON.") from exc
        finally:
            share = meter.end(started)
            await reply.aclose()
        return replace(answer, usage=replace(answer.usage, device_s=share))
