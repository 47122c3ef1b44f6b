"""Gemini's batch API: an operation over requests that go inline, with our key as its displayName. Answers come in the operation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from holynb.batches.calls import id_of, json_call, json_lines, reason_of, seconds_of
from holynb.batches.limits import ProviderLimits
from holynb.batches.vendor import Answered, Candidates, Lost, Standing, words_of
from holynb.engines import codec
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.types import Request

__all__ = ["GeminiBatches"]

#: States that end a job, whether they are called JOB_STATE_… or BATCH_STATE_….
ENDED = ("SUCCEEDED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")


class GeminiBatches:
    """Batches at one endpoint of the Gemini wire."""

    def __init__(self, engine: Hosted, limits: ProviderLimits) -> None:
        self._engine, self._limits = engine, limits
        base = engine.endpoint.base_url
        self._base = base if base.endswith(("/v1beta", "/v1")) else f"{base}/v1beta"

    async def entry(self, custom_id: str, request: Request) -> bytes:
        return await self._engine.written(request, lambda body: {"request": body, "metadata": {"key": custom_id}})

    async def submit(self, key: str, request: Request, entries: Sequence[bytes]) -> Standing:
        head = b'{"batch":{"displayName":' + codec.dumps(key) + b',"inputConfig":{"requests":{"requests":['
        url = self._engine.address(request).partition("?")[0].rpartition(":")[0]
        sent = await json_call(self._engine, "POST", f"{url}:batchGenerateContent", body=head + b",".join(entries) + b"]}}}}")
        return self._standing(sent)

    async def find(self, lost: Lost) -> Standing | Candidates | None:
        after = ""
        while True:
            page = words_of(await json_call(self._engine, "GET", f"{self._base}/batches?pageSize=100{after}"))
            listed = [words_of(b) for b in page.get("operations") or page.get("batches") or ()]
            for batch in listed:
                if (words_of(batch.get("metadata")) or batch).get("displayName") == lost.key:
                    return self._standing(batch)
            if not (token := page.get("nextPageToken")):
                return None
            after = f"&pageToken={quote(str(token), safe='')}"

    async def poll(self, id: str) -> Standing:  # noqa: A002
        return self._standing(await json_call(self._engine, "GET", f"{self._base}/{_named(id)}"))

    async def cancel(self, id: str) -> None:  # noqa: A002
        await json_call(self._engine, "POST", f"{self._base}/{_named(id)}:cancel", {})

    async def read(self, standing: Standing) -> AsyncIterator[Answered]:
        value = words_of(await json_call(self._engine, "GET", f"{self._base}/{_named(standing.id)}"))
        output = words_of(value.get("response")) or words_of(words_of(value.get("metadata")).get("output"))
        if isinstance(file := output.get("responsesFile"), str) and file:
            parts = urlsplit(self._base)
            async for line in json_lines(
                self._engine, f"{parts.scheme}://{parts.netloc}/download{parts.path}/{_named(file)}:download?alt=media"
            ):
                yield _answered(words_of(line))
            return
        inline = words_of(output.get("inlinedResponses")).get("inlinedResponses")
        for one in inline if isinstance(inline, list) else ():
            yield _answered(words_of(one))

    def _standing(self, value: Any) -> Standing:
        job = words_of(self._engine.cleaned(value))
        about = words_of(job.get("metadata")) or job
        id_, state, stats = id_of(job.get("name") or about.get("name")), str(about.get("state") or ""), words_of(about.get("batchStats"))
        counts = {n: int(stats[n]) for n in stats if isinstance(stats[n], int) or (isinstance(stats[n], str) and stats[n].isdecimal())}
        done = counts.get("successfulRequestCount", 0) + counts.get("failedRequestCount", 0) if counts else None
        facts: dict[str, Any] = {"done": done, "n": counts.get("requestCount"), "created": seconds_of(about.get("createTime"))}
        word = state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
        if word == "FAILED" or (job.get("error") and word not in ENDED):
            return self._failed(id_, words_of(job.get("error")), facts)
        if word in ENDED:
            rest: Any = {"EXPIRED": "expired", "CANCELLED": "cancelled"}.get(word, "error")
            return Standing(id_, "ended", **facts, rest=rest)
        return Standing(id_, "working", **facts)

    def _failed(self, id_: str, error: Any, facts: dict[str, Any]) -> Standing:
        words = reason_of(error.get("message"))
        full = error.get("code") == 8 or "RESOURCE_EXHAUSTED" in words or "quota" in words.lower()
        fault = Fault("rate_limit" if full else "bad_request", f"the batch was refused: {words}", retry=False, status=400)
        return Standing(id_, "full" if full else "refused", **facts, problem=fault)


#: The codes of google.rpc as HTTP statuses, where an error of a row names no status.
STATUSES = {3: 400, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}


def _answered(one: Any) -> Answered:
    id_ = str(words_of(one.get("metadata")).get("key") or one.get("key") or "")
    if isinstance(answer := one.get("response"), dict):
        return Answered(id_, "answer", answer)
    error = words_of(one.get("error"))
    code = error.get("code")
    if code in (1, 4) and "expire" not in str(error.get("message", "")).lower():
        return Answered(id_, "cancelled")
    if code in (1, 4):
        return Answered(id_, "expired")
    status = code if isinstance(code, int) and code >= 400 else STATUSES.get(code, 500) if isinstance(code, int) else 500
    return Answered(id_, "error", {"error": dict(error) or {"message": "no answer came with this row"}}, status)


def _named(name: str) -> str:
    return quote(name, safe="/")
