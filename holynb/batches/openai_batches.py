"""OpenAI's batch API, and Azure's: a file of JSON lines, a batch over it with our key in its metadata, and files of results."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from holynb.batches.calls import id_of, json_call, json_lines, reason_of, seconds_of
from holynb.batches.limits import ProviderLimits
from holynb.batches.vendor import Answered, Candidates, Lost, Standing, words_of
from holynb.engines import azure
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.types import Request

__all__ = ["OpenAIBatches"]

#: Our name among a batch's metadata.
KEY = "holynb"
#: How long files are kept where that is said, as it must be on Azure to keep more than 500: the most it takes.
KEPT_S = 2_592_000
#: Azure looks through a file before a batch may name it.
FILE_POLL_S, FILE_WAIT_S = 1.0, 300.0
#: What Azure says of a deployment that is none for batches, and OpenAI of a model without them.
NO_BATCH = re.compile(r"global.?batch|batch.{0,60}not support|not support.{0,80}batch|sku|deployment type", re.IGNORECASE)


class OpenAIBatches:
    """Batches at one endpoint of OpenAI's wire or Azure's."""

    def __init__(self, engine: Hosted, limits: ProviderLimits) -> None:
        self._engine, self._limits = engine, limits
        self._azure = engine.endpoint.wire.startswith("azure")

    async def entry(self, custom_id: str, request: Request) -> bytes:
        path = self._path(self._engine.address(request))
        return await self._engine.written(request, lambda body: {"custom_id": custom_id, "method": "POST", "url": path, "body": body})

    async def submit(self, key: str, request: Request, entries: Sequence[bytes]) -> Standing:
        file = await self._upload(key, entries)
        wanted = {
            "input_file_id": file,
            "endpoint": self._path(self._engine.address(request)),
            "completion_window": "24h",
            "metadata": {KEY: key},
            "output_expires_after": {"anchor": "created_at", "seconds": KEPT_S},
        }
        try:
            return self._standing(await json_call(self._engine, "POST", self._url("batches"), wanted))
        except Fault as fault:
            fault.message += self._hint("", fault.message)
            raise

    async def find(self, lost: Lost) -> Standing | Candidates | None:
        """The newest come first, so the list is read until what is older than the lost one."""
        after = ""
        while True:
            page = words_of(await json_call(self._engine, "GET", self._url("batches", f"limit=100{after}")))
            listed = [words_of(b) for b in page.get("data") or ()]
            for batch in listed:
                if words_of(batch.get("metadata")).get(KEY) == lost.key:
                    return self._standing(batch)
            oldest = seconds_of(listed[-1].get("created_at")) if listed else None
            if not page.get("has_more") or not listed or (oldest is not None and oldest < lost.since - 3600):
                return None
            after = f"&after={quote(str(listed[-1].get('id')), safe='')}"

    async def poll(self, id: str) -> Standing:  # noqa: A002
        return self._standing(await json_call(self._engine, "GET", self._url(f"batches/{quote(id, safe='')}")))

    async def cancel(self, id: str) -> None:  # noqa: A002
        await json_call(self._engine, "POST", self._url(f"batches/{quote(id, safe='')}/cancel"))

    async def read(self, standing: Standing) -> AsyncIterator[Answered]:
        for file in standing.results:
            async for line in json_lines(self._engine, self._url(f"files/{quote(file, safe='')}/content")):
                yield _answered(words_of(line))

    # -- inside ----------------------------------------------------------------------------------------------------
    async def _upload(self, key: str, entries: Sequence[bytes]) -> str:
        boundary = f"holynb{secrets.token_hex(16)}"
        fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": str(KEPT_S)}
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()]
        about = f'Content-Disposition: form-data; name="file"; filename="{key}.jsonl"\r\nContent-Type: application/jsonl'
        head = f"--{boundary}\r\n{about}\r\n\r\n"
        body = b"".join((*parts, head.encode(), b"\n".join(entries), f"\n\r\n--{boundary}--\r\n".encode()))
        reply = words_of(
            await json_call(self._engine, "POST", self._url("files"), body=body, kind=f"multipart/form-data; boundary={boundary}")
        )
        file = str(reply.get("id") or "")
        waited = 0.0
        while self._azure and reply.get("status") in ("pending", "running", "uploaded", "notRunning"):
            if waited >= FILE_WAIT_S:
                raise Fault("server", f"the file of a batch was not ready after {FILE_WAIT_S:g} s", retry=True)
            await asyncio.sleep(FILE_POLL_S)
            waited += FILE_POLL_S
            reply = words_of(await json_call(self._engine, "GET", self._url(f"files/{quote(file, safe='')}")))
        if not file or reply.get("status") in ("error", "failed"):
            raise Fault(
                "bad_request",
                f"the file of a batch was refused: {reason_of(self._engine.cleaned(reply.get('status_details')))}",
                status=400,
            )
        return file

    def _url(self, path: str, query: str = "") -> str:
        if not self._azure:
            return f"{self._engine.endpoint.base_url}/{path}{f'?{query}' if query else ''}"
        return azure.resource_url(self._engine.endpoint, path, query)

    def _path(self, url: str) -> str:
        """What a line and a batch call the address: OpenAI its path, Azure that of chat completions without a version."""
        last = urlsplit(url).path
        name = "/responses" if last.endswith("/responses") else "/chat/completions"
        return name if self._azure and name == "/chat/completions" else f"/v1{name}"

    def _standing(self, value: Any) -> Standing:
        batch = words_of(self._engine.cleaned(value))
        id_, status, counts = id_of(batch.get("id")), batch.get("status"), words_of(batch.get("request_counts"))
        done = [counts[n] for n in ("completed", "failed") if isinstance(counts.get(n), int)]
        facts: dict[str, Any] = {
            "done": sum(done) if done else None,
            "n": counts.get("total") or None,
            "created": seconds_of(batch.get("created_at")),
        }
        if status == "failed":
            fault, full = self._problem(batch)
            return Standing(id_, "full" if full else "refused", **facts, problem=fault)
        if status in ("completed", "expired", "cancelled"):
            files = (batch.get("output_file_id"), batch.get("error_file_id"))
            rest: Any = "error" if status == "completed" else status
            return Standing(id_, "ended", **facts, results=tuple(f for f in files if isinstance(f, str) and f), rest=rest)
        return Standing(id_, "working", **facts)

    def _problem(self, batch: Any) -> tuple[Fault, bool]:
        """Why a batch was refused after it was accepted, and whether it is that too much is enqueued."""
        listed = [words_of(e) for e in words_of(batch.get("errors")).get("data") or ()]
        first = listed[0] if listed else {}
        code, words = str(first.get("code") or ""), reason_of(first.get("message"))
        line = f" (line {first['line']})" if isinstance(first.get("line"), int) else ""
        full = code == "token_limit_exceeded" or "enqueued token" in words.lower()
        kind = "not_found" if code == "model_not_found" else "rate_limit" if full else "bad_request"
        return Fault(kind, f"the batch was refused: {words}{line}{self._hint(code, words)}", retry=False, status=400), full

    def _hint(self, code: str, words: str) -> str:
        """What to do where the deployment, or the model, is none for batches."""
        if not (NO_BATCH.search(words) or NO_BATCH.search(code)):
            return ""
        model = self._engine.endpoint.route.model
        if self._azure:
            return f". {model} is no batch deployment: create one of type Global Batch or Data Zone Batch, and name it in the route."
        return f". Run {model} without --batch."


def _answered(line: Any) -> Answered:
    id_, error, response = str(line.get("custom_id") or ""), words_of(line.get("error")), words_of(line.get("response"))
    code, status = str(error.get("code") or ""), response.get("status_code")
    if code in ("batch_expired", "batch_cancelled"):
        return Answered(id_, "expired" if code == "batch_expired" else "cancelled")
    if status == 200 and response.get("body") is not None:
        return Answered(id_, "answer", response["body"])
    if response.get("body"):
        return Answered(id_, "error", response["body"], status if isinstance(status, int) and status >= 400 else 500)
    return Answered(id_, "error", {"error": dict(error) or {"message": "no answer came with this row"}}, 500)
