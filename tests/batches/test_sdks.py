"""The vendors' own SDKs as oracles of the stand-ins and of what we send: they read its batches, and submit the same as we do."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types
from servers.batches import USAGE, Batches

from holynb import batches
from holynb.batches import Lost, Standing, Vendor
from holynb.engines import connect
from holynb.engines.hosted import Hosted
from holynb.types import Endpoint, Message, Request, Route, Sampling, Secret

KEY = "sk-test-0123456789abcdef"
MODELS = {"openai": "gpt-6-luna", "azure": "gpt-6-luna", "anthropic": "claude-haiku-4-5", "gemini": "gemini-3.8-flash"}
IDS = ["k-0-aa", "k-1-bb"]


def asked(vendor: str) -> Request:
    return Request(0, (Message("user", "hi"),), Route(vendor, MODELS[vendor]), Sampling(max_tokens=9))


def ours(server: Batches, work: Callable[[Vendor], Awaitable[Any]]) -> Any:
    """What `work` gives over our own client of this server's API."""

    async def go() -> Any:
        options = {"max_tokens": "max_completion_tokens"} if server.vendor == "openai" else {}
        endpoint = Endpoint(Route(server.vendor, MODELS[server.vendor]), server.vendor, server.base, "K", options=options)
        engine = connect(endpoint, lambda: Secret(KEY, "K"))
        assert isinstance(engine, Hosted)
        try:
            return await work(batches.of(engine, batches.table()[server.vendor]))
        finally:
            await engine.aclose()

    return asyncio.run(go())


async def submit(vendor: Vendor, name: str) -> Standing:
    row = asked(name)
    return await vendor.submit("k", row, [await vendor.entry(id_, row) for id_ in IDS])


def bodies(server: Batches, path: str) -> list[Any]:
    return [json.loads(a.body) for a in server.asked if a.method == "POST" and a.path.partition("?")[0].endswith(path)]


@pytest.mark.parametrize("vendor", ["openai", "azure"])
def test_openai(vendor: str) -> None:
    with Batches(vendor) as server:
        standing = ours(server, lambda v: submit(v, vendor))
        with openai.OpenAI(api_key=KEY, base_url=server.base, max_retries=0) as client:
            path = "/v1/chat/completions" if vendor == "openai" else "/chat/completions"
            file = client.files.create(
                file=("k.jsonl", server.files["file-0"]), purpose="batch", expires_after={"anchor": "created_at", "seconds": 2_592_000}
            )
            client.batches.create(
                input_file_id=file.id,
                endpoint=path,  # type: ignore[arg-type]
                completion_window="24h",
                metadata={"holynb": "k"},
                output_expires_after={"anchor": "created_at", "seconds": 2_592_000},
            )
            mine, theirs = bodies(server, "/batches")
            assert {**mine, "input_file_id": ""} == {**theirs, "input_file_id": ""}
            assert server.files["file-0"] == server.files["file-1"]
            for line in server.files["file-0"].splitlines():
                assert json.loads(line)["url"] == path and json.loads(line)["body"]["messages"] == [{"role": "user", "content": "hi"}]
            server.work()
            read = client.batches.retrieve(standing.id)
            assert (read.status, read.metadata, read.request_counts and read.request_counts.total) == ("completed", {"holynb": "k"}, 2)
            assert [b.id for b in client.batches.list(limit=1)] == ["batch_1", "batch_0"], "by pages"
            lines = [json.loads(line) for line in client.files.content(str(read.output_file_id)).text.splitlines()]
            assert {line["custom_id"] for line in lines} == set(IDS)
        found = ours(server, lambda v: v.find(Lost("k", 2, read.created_at)))
        assert isinstance(found, Standing) and found.state == "ended"
        sizes = [part for a in server.asked if a.path.endswith("/files") for part in (a.body.count(b"form-data"),)]
        assert sizes[0] == sizes[1], "the same fields in the form"


def test_anthropic() -> None:
    with Batches("anthropic") as server:
        standing = ours(server, lambda v: submit(v, "anthropic"))
        params: Any = json.loads(server.asked[0].body)["requests"][0]["params"]
        with anthropic.Anthropic(api_key=KEY, base_url=server.base, max_retries=0) as client:
            client.messages.batches.create(requests=[{"custom_id": id_, "params": params} for id_ in IDS])
            mine, theirs = bodies(server, "/batches")
            assert mine == theirs
            waiting = client.messages.batches.retrieve(standing.id)
            assert (waiting.processing_status, waiting.request_counts.processing) == ("in_progress", 2)
            server.work(standing.id, share=0.5, end="expired")
            assert client.messages.batches.retrieve(standing.id).request_counts.expired == 1
            assert [b.id for b in client.messages.batches.list(limit=1)] == ["msgbatch_1", "msgbatch_0"]
            client.messages.batches.cancel("msgbatch_1")
            assert client.messages.batches.retrieve("msgbatch_1").request_counts.canceled == 2
        results = [json.loads(line) for line in server.handle(_get(server, f"/v1/messages/batches/{standing.id}/results"))[1].splitlines()]
        parsed = [anthropic.types.messages.MessageBatchIndividualResponse.model_validate(r) for r in results]
        assert [p.result.type for p in parsed] == ["expired", "succeeded"]

        async def read(vendor: Vendor) -> list[tuple[str, str]]:
            return [(a.custom_id, a.what) async for a in vendor.read(standing)]

        assert ours(server, read) == [("k-1-bb", "expired"), ("k-0-aa", "answer")], "of our own address, not of the server's word"


def test_gemini() -> None:
    with Batches("gemini") as server:
        ours(server, lambda v: submit(v, "gemini"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = genai.Client(api_key=KEY, http_options={"base_url": server.base})
            rows = [
                types.InlinedRequest(contents="hi", metadata={"key": id_}, config=types.GenerateContentConfig(max_output_tokens=9))
                for id_ in IDS
            ]
            client.batches.create(model=MODELS["gemini"], src=rows, config={"display_name": "k"})
            mine, theirs = (b["batch"] for b in bodies(server, ":batchGenerateContent"))
            assert mine["displayName"] == theirs["displayName"]
            for one, other in zip(*(b["inputConfig"]["requests"]["requests"] for b in (mine, theirs)), strict=True):
                assert one["metadata"] == other["metadata"] and one["request"]["contents"] == other["request"]["contents"]
                assert one["request"]["generationConfig"] == other["request"]["generationConfig"]
            server.work()
            job = client.batches.get(name="batches/b0")
            assert job.state is not None and job.state.name == "JOB_STATE_SUCCEEDED" and job.display_name == "k"
            assert job.dest is not None and job.dest.inlined_responses is not None
            answer = job.dest.inlined_responses[0].response
            assert answer is not None and answer.usage_metadata is not None and answer.usage_metadata.prompt_token_count == USAGE[0]
            assert {j.name for j in client.batches.list(config={"page_size": 1})} == {"batches/b0", "batches/b1"}
            client.batches.cancel(name="batches/b1")
            client.close()


def _get(server: Batches, path: str) -> Any:
    from servers.exact import Asked

    return Asked("GET", path, server.asked[0].headers, b"", 0)
