"""Anthropic's Message Batches: one JSON of all rows. They carry no key of ours, so a batch whose reply was lost is known by its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from holynb.batches.calls import id_of, json_call, json_lines, seconds_of
from holynb.batches.limits import ProviderLimits
from holynb.batches.vendor import Answered, Candidates, Lost, Standing, words_of
from holynb.engines import anthropic
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.types import Request

__all__ = ["AnthropicBatches"]

#: How far the provider's clock may be behind ours. Too short, a batch would be overlooked, and sent again.
CLOCK_S = 3600.0


class AnthropicBatches:
    """Batches at one endpoint of the Anthropic wire."""

    def __init__(self, engine: Hosted, limits: ProviderLimits) -> None:
        self._engine, self._limits = engine, limits
        #: Batches whose rows were looked at, and are of another.
        self._foreign: set[tuple[str, str]] = set()

    async def entry(self, custom_id: str, request: Request) -> bytes:
        return await self._engine.written(request, lambda body: {"custom_id": custom_id, "params": body})

    async def submit(self, key: str, request: Request, entries: Sequence[bytes]) -> Standing:  # noqa: ARG002
        body = b'{"requests":[' + b",".join(entries) + b"]}"
        return self._standing(await json_call(self._engine, "POST", self._url(), body=body))

    async def find(self, lost: Lost) -> Standing | Candidates | None:
        """Those created since with as many rows: what has ended is read until its first row says whose it is, what has not is held."""
        held = []
        for batch in await self._since(lost.since - CLOCK_S):
            if batch.id in lost.others or batch.n != lost.n or (lost.key, batch.id) in self._foreign:
                continue
            if batch.state != "ended":
                held.append(batch.id)
            elif await self._is_of(batch, lost.key):
                return batch
            else:
                self._foreign.add((lost.key, batch.id))
        return Candidates(tuple(held)) if held else None

    async def poll(self, id: str) -> Standing:  # noqa: A002
        return self._standing(await json_call(self._engine, "GET", self._url(f"/{quote(id, safe='')}")))

    async def cancel(self, id: str) -> None:  # noqa: A002
        await json_call(self._engine, "POST", self._url(f"/{quote(id, safe='')}/cancel"))

    async def read(self, standing: Standing) -> AsyncIterator[Answered]:
        # The address in the batch is the server's word, and the key would go there.
        async for line in json_lines(self._engine, self._url(f"/{quote(standing.id, safe='')}/results")):
            yield _answered(words_of(line))

    # -- inside ----------------------------------------------------------------------------------------------------
    async def _since(self, since: float) -> list[Standing]:
        since_then: list[Standing] = []
        after = ""
        while True:
            page = words_of(await json_call(self._engine, "GET", self._url(f"?limit=100{after}")))
            listed = [self._standing(b) for b in page.get("data") or ()]
            since_then += [b for b in listed if b.created is None or b.created >= since]
            if not page.get("has_more") or not listed or any(b.created is not None and b.created < since for b in listed):
                return since_then
            after = f"&after_id={quote(listed[-1].id, safe='')}"

    async def _is_of(self, batch: Standing, key: str) -> bool:
        """Whether its first row bears this key. A batch whose results are gone is none that could be ours now."""
        try:
            async with aclosing(self.read(batch)) as rows:  # type: ignore[type-var]
                async for row in rows:
                    return row.custom_id.startswith(f"{key}-")
        except Fault as fault:
            if fault.kind != "not_found":
                raise
        return False

    def _url(self, rest: str = "") -> str:
        return f"{self._engine.endpoint.base_url.removesuffix('/v1')}/v1/messages/batches{rest}"

    def _standing(self, value: Any) -> Standing:
        batch = words_of(self._engine.cleaned(value))
        id_, counts = id_of(batch.get("id")), words_of(batch.get("request_counts"))
        known = {name: n for name, n in counts.items() if isinstance(n, int)}
        n = sum(known.values()) if known else None
        facts: dict[str, Any] = {"done": None if n is None else n - known.get("processing", 0), "n": n}
        ended = batch.get("processing_status") == "ended"
        return Standing(id_, "ended" if ended else "working", **facts, created=seconds_of(batch.get("created_at")))


def _answered(line: Any) -> Answered:
    id_, result = str(line.get("custom_id") or ""), words_of(line.get("result"))
    kind = result.get("type")
    if kind == "succeeded":
        return Answered(id_, "answer", result.get("message"))
    if kind in ("expired", "canceled"):
        return Answered(id_, "expired" if kind == "expired" else "cancelled")
    # An error within an error: the reply that the row would have got.
    error = words_of(result.get("error")) or {"error": {"message": "no answer came with this row"}}
    return Answered(id_, "error", error, anthropic.status_of(words_of(error.get("error")).get("type")))
