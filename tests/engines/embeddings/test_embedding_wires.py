"""How each wire embeds: what is sent against the vendors' own SDKs, what comes back by its place, and what is no vector."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import boto3
import numpy as np
import pytest
from google import genai
from google.genai import types as google
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai import AzureOpenAI, OpenAI
from servers import aws
from servers.asking import KEY, endpoint, hear, request
from servers.exact import Asked, Exact, reply
from servers.vectors import Embedder, vector

from holynb.engines import embeddings
from holynb.engines.embeddings import cohere_wire, gemini_wire, ollama_wire, openai_wire, vectors
from holynb.errors import BadRoute, Fault
from holynb.types import Completion, Embedding, Endpoint, Request, Secret

TEXTS = ("first text", "둘째", 'a "third"\n\\ line')
MESSAGES = [("user", t) for t in TEXTS]


def sent(texts: tuple[str, ...] = TEXTS, dimensions: int | None = None, **extra: Any) -> Request:
    messages = [("user", t) for t in texts]
    return request(messages=messages, embedding=Embedding(dimensions), sampling={"extra": extra}, model=extra.pop("model", "m"))


def ask(where: Endpoint, what: Request) -> Completion:
    async def once() -> Completion:
        engine = embeddings.connect(where, lambda: Secret(KEY, "key"))
        try:
            return (await hear(engine, what))[1].completion
        finally:
            await engine.aclose()

    return asyncio.run(once())


def given_back(answer: Completion) -> list[list[float]]:
    return [np.frombuffer(v, "<f4").tolist() for v in answer.vectors or ()]


WHERE = {
    "openai": ("openai", "/v1", {}),
    "azure": ("azure", "/openai/v1", {}),
    "gemini": ("gemini", "", {}),
    "cohere": ("openai", "/compatibility/v1", {"embed": "cohere"}),
    "ollama": ("openai", "/v1", {"embed": "ollama"}),
    "bedrock": ("bedrock", "", {"region": "eu-west-1"}),
}


@pytest.mark.parametrize("name", WHERE)
def test_each_text_gets_its_own_vector(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch)
    wire, path, options = WHERE[name]
    model = "cohere.embed-v4:0" if name == "bedrock" else "m"
    with Exact(Embedder(shuffled=True)) as server:
        where = endpoint(f"{server.base}{path}", wire, model=model, options=options)
        answer = ask(where, sent(model=model))
    assert given_back(answer) == [vector(t).tolist() for t in TEXTS]
    assert (answer.usage.tokens_in, answer.usage.tokens_out) == (sum(len(t.split()) for t in TEXTS), 0)
    assert KEY not in json.dumps(server.asked[0].json)


def test_titan_takes_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch)
    with Exact(Embedder()) as server:
        answer = ask(endpoint(server.base, "bedrock", model="amazon.titan-embed-text-v2:0"), sent(("one",), 256))
    assert server.asked[0].path == "/model/amazon.titan-embed-text-v2%3A0/invoke"
    assert server.asked[0].json == {"inputText": "one", "dimensions": 256}
    assert given_back(answer) == [vector("one", 256).tolist()]
    assert answer.usage.tokens_in == 1


# -- the official SDKs as oracles ----------------------------------------------------------------------------------------


def ours(where: Endpoint, what: Request, server: Exact) -> Asked:
    ask(where, what)
    return server.asked[-1]


def same(one: Asked, other: Asked) -> None:
    assert (one.method, one.path, one.json) == (other.method, other.path, other.json)


def test_openais_sdk_sends_the_same() -> None:
    with Exact(Embedder()) as server:
        client = OpenAI(api_key=KEY, base_url=f"{server.base}/v1")
        theirs = client.embeddings.create(model="text-embedding-3-small", input=list(TEXTS), dimensions=5, encoding_format="base64")
        client.close()
        where = endpoint(f"{server.base}/v1", model="text-embedding-3-small")
        same(server.asked[0], ours(where, sent(dimensions=5, model="text-embedding-3-small"), server))
        assert [d.index for d in theirs.data] == [0, 1, 2]


@pytest.mark.parametrize("form", ["v1", "deployments"])
def test_azures_sdk_sends_the_same(form: str) -> None:
    with Exact(Embedder()) as server:
        client: OpenAI
        if form == "v1":
            client = OpenAI(api_key=KEY, base_url=f"{server.base}/openai/v1")
        else:
            client = AzureOpenAI(api_key=KEY, azure_endpoint=server.base, api_version="2024-10-21")
        client.embeddings.create(model="mine", input=list(TEXTS), encoding_format="base64")
        client.close()
        options = {} if form == "v1" else {"api_version": "2024-10-21"}
        mine = ours(endpoint(server.base, "azure", model="mine", options=options), sent(model="mine"), server)
        same(server.asked[0], mine)
        assert mine.headers["api-key"] == KEY


def test_googles_sdk_sends_the_same() -> None:
    model = "gemini-embedding-001"
    with Exact(Embedder()) as server:
        client = genai.Client(api_key=KEY, http_options=google.HttpOptions(base_url=server.base, api_version="v1beta"))
        config = google.EmbedContentConfig(task_type="RETRIEVAL_QUERY", output_dimensionality=128)
        client.models.embed_content(model=model, contents=list(TEXTS), config=config)
        client.close()
        mine = ours(endpoint(server.base, "gemini", model=model), sent(dimensions=128, model=model, input_type="query"), server)
        same(server.asked[0], mine)


def test_botos_client_sends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch)
    model = "cohere.embed-v4:0"
    with Exact(Embedder()) as server:
        client = boto3.client("bedrock-runtime", endpoint_url=server.base, region_name="eu-west-1")
        body = {"texts": list(TEXTS), "input_type": "search_query", "embedding_types": ["float"], "truncate": "NONE"}
        client.invoke_model(modelId=model, body=json.dumps(body), contentType="application/json", accept="application/json")
        client.close()
        same(server.asked[0], ours(endpoint(server.base, "bedrock", model=model), sent(model=model, input_type="query"), server))


# -- what a text is ------------------------------------------------------------------------------------------------------


def test_a_document_is_told_from_a_query() -> None:
    assert [r["taskType"] for r in gemini_wire.body(sent(model="gemini-embedding-001"))["requests"]] == ["RETRIEVAL_DOCUMENT"] * 3
    assert gemini_wire.body(sent(model="gemini-embedding-001", task_type="CLUSTERING"))["requests"][0]["taskType"] == "CLUSTERING"
    assert "taskType" not in gemini_wire.body(sent(model="gemini-embedding-2"))["requests"][0]
    assert cohere_wire.body(sent())["input_type"] == "search_document"
    assert cohere_wire.body(sent(input_type="query"))["input_type"] == "search_query"
    assert cohere_wire.body(sent(input_type="clustering"))["input_type"] == "clustering"
    assert openai_wire.body(sent(input_type="query"))["input_type"] == "query", "Voyage and NIM have the field by this name"


def test_nothing_is_cut_off_in_silence() -> None:
    assert cohere_wire.body(sent())["truncate"] == "NONE"
    assert ollama_wire.body(sent())["truncate"] is False


def test_a_server_without_base64_is_asked_for_numbers() -> None:
    def script(asked: Asked, number: int) -> Any:
        if "encoding_format" in asked.json:
            return [reply({"error": {"message": "Unknown field: encoding_format", "type": "invalid_request_error"}}, 400)]
        return Embedder()(asked, number)

    with Exact(script) as server:
        where = endpoint(f"{server.base}/v1", model="numbers")
        with pytest.raises(Fault) as caught:
            ask(where, sent(model="numbers"))
        assert caught.value.retry
        assert given_back(ask(where, sent(model="numbers"))) == [vector(t).tolist() for t in TEXTS]


# -- what is no vector ---------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=4))
@settings(max_examples=50)
def test_numbers_and_base64_are_the_same_bytes(rows: list[list[float]]) -> None:
    coded = [base64.b64encode(np.array(r, "<f4").tobytes()).decode() for r in rows]
    assert vectors.packed(rows) == vectors.packed(coded) == tuple(np.array(r, "<f4").tobytes() for r in rows)


@example([3.4028235677973366e38, -3.4028235677973366e38])
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda x: st.lists(x, max_size=3), max_leaves=6))
@settings(max_examples=80)
def test_whatever_else_is_a_fault(value: Any) -> None:
    try:
        (whole,) = vectors.packed([value])
    except Fault as fault:
        assert fault.kind == "server"
    else:
        assert len(whole) % 4 == 0
        assert np.isfinite(np.frombuffer(whole, "<f4")).all()


@pytest.mark.parametrize("value", [[1, "2"], [None], {"a": 1}, "not base64!", "AAAA", [1e300, 1], [float("nan")], [[1.0]], None, 7])
def test_no_vector(value: Any) -> None:
    with pytest.raises(Fault):
        vectors.packed([value])


@pytest.mark.parametrize(
    "data", [None, [1], [{"index": 0}, {"index": 0}], [{"index": 1}], [{"index": "0"}], [{"index": 0}, {"index": 5}], [{"index": True}]]
)
def test_vectors_numbered_otherwise_are_refused(data: Any) -> None:
    with pytest.raises(Fault):
        vectors.in_order(data)


def test_a_wire_that_embeds_nothing_is_named() -> None:
    for wire in ("anthropic", "sagemaker", "vertex"):
        with pytest.raises(BadRoute, match="embeds nothing"):
            embeddings.connect(endpoint("http://x", wire), lambda: None)
    with pytest.raises(BadRoute, match="none of openai, cohere, ollama"):
        embeddings.connect(endpoint("http://x", options={"embed": "coher"}), lambda: None)
