"""`response_format` through a pool of the real model, beside rows without one; cached prompt tokens are reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from servers.unix import chat

from holynb import pools
from holynb.pools.info import PoolInfo

pytest.importorskip("llguidance")

REVIEW = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad", "mixed"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "why": {"type": "string", "maxLength": 30},
        "tags": {"type": "array", "items": {"enum": ["price", "taste", "service"]}, "maxItems": 2},
    },
    "required": ["mood", "stars", "why", "tags"],
    "additionalProperties": False,
}
REVIEWS = [
    "The soup was cold and nobody cared.",
    "Best noodles in town!",
    "가격은 좋지만 서비스가 느려요.",
    "Fine.",
    "I waited an hour 😡",
    "Lovely people.",
    "Too dear for what it is.",
    "음식이 맛있어요.",
]


@pytest.fixture
def pool(home: Path) -> Iterator[PoolInfo]:
    yield pools.start(port=0)
    pools.stop("all")


def asking(review: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    form = {} if schema is None else {"response_format": {"type": "json_schema", "json_schema": {"name": "review", "schema": schema}}}
    return {"messages": [{"role": "user", "content": f"Judge this review: {review}"}], "max_tokens": 120, "seed": 3, **form, **more}


def text(answer: Any) -> str:
    """The answer of a body or of a stream's chunks."""
    if isinstance(answer, list):
        return "".join(c["choices"][0]["delta"].get("content", "") for c in answer if c["choices"])
    return str(answer["choices"][0]["message"]["content"])


def test_rows_with_and_without_a_schema_side_by_side(pool: PoolInfo) -> None:
    assert pool.socket is not None
    path = pool.socket
    forms: list[dict[str, Any]] = [{"schema": None, "max_tokens": 24} if i % 4 == 3 else {"schema": REVIEW} for i in range(len(REVIEWS))]
    bodies = [asking(review, stream=i % 2 == 0, temperature=1.0, **forms[i]) for i, review in enumerate(REVIEWS)]
    with ThreadPoolExecutor(len(bodies)) as threads:
        answers = list(threads.map(lambda body: chat(path, body), bodies))
    assert [status for status, _ in answers] == [200] * len(bodies)
    for i, (_, answer) in enumerate(answers):
        if i % 4 == 3:
            with pytest.raises(json.JSONDecodeError):
                json.loads(text(answer))
        else:
            jsonschema.validate(json.loads(text(answer)), REVIEW)
    alone = chat(path, asking(REVIEWS[0], REVIEW, temperature=1.0))
    assert text(alone[1]) == text(answers[0][1]), "the same seed says the same, whatever else was in the batch"
    status, answer = chat(path, {**asking("Fine.", None), "response_format": {"type": "json_object"}, "max_tokens": 12, "temperature": 0})
    assert (status, text(answer)[:1]) == (200, "{")
    _bad_schemas(path)
    _cached(path)
    _sdk(pool)


def _bad_schemas(path: str) -> None:
    for form, param, words in (
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}, "response_format", "nonsense"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema", "schema"),
        ({"type": "yaml"}, "response_format", "json_object"),
    ):
        status, answer = chat(path, {**asking("x", None), "response_format": form})
        assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param)
        assert words in answer["error"]["message"]


def _cached(path: str) -> None:
    """A prompt asked twice is found in the cache, up to its last full block; a stream says so too."""
    body = asking("It was all right, I suppose, and we may come back some day when it rains. " * 3, None, max_tokens=2)
    _, first = chat(path, body)
    _, again = chat(path, body)
    *_, last = chat(path, {**body, "stream": True, "stream_options": {"include_usage": True}})[1]
    cached_tokens = (first["usage"]["prompt_tokens"] - 1) // 16 * 16
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] < cached_tokens
    assert [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in (again, last)] == [cached_tokens] * 2


def _sdk(info: PoolInfo) -> None:
    """The official SDK writes the schema of a model, and reads the answer into it."""
    from pydantic import BaseModel

    class Answer(BaseModel):
        city: str
        big: bool

    assert info.base_url is not None
    assert info.token is not None
    with openai.OpenAI(base_url=info.base_url, api_key=info.token.reveal(), timeout=120) as client:
        completion = client.chat.completions.parse(
            model=info.name, messages=[{"role": "user", "content": "Is Paris big?"}], response_format=Answer, temperature=0, max_tokens=200
        )
    assert isinstance(completion.choices[0].message.parsed, Answer)
