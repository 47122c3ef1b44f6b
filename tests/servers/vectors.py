"""A server that embeds, as each vendor does: a script for `Exact`. The vector of a text is known, so a test can tell whose it got.

Ollama's fields are those of docs.ollama.com/api/embed, vLLM's those of `EmbeddingResponse` and `UsageInfo` in vllm/entrypoints, which
has some that OpenAI has not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from servers.exact import Asked, Step, reply

__all__ = ["SIZE", "Embedder", "vector"]

SIZE = 12


def vector(text: str, size: int = SIZE) -> NDArray[np.float32]:
    """What this server says of a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@dataclass
class Embedder:
    """Answers on every vendor's path. `refuse`: texts that it refuses, the whole request with them; `size` as models have it."""

    refuse: Callable[[str], bool] = lambda text: False
    status: int = 400
    size: int = SIZE
    shuffled: bool = False
    words: str = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens."

    def __call__(self, asked: Asked, number: int) -> Sequence[Step]:
        body, path = asked.json, asked.path.partition("?")[0]
        texts = texts_of(path, body)
        if any(self.refuse(text) for text in texts):
            return [reply({"error": {"message": self.words, "type": "invalid_request_error", "param": None, "code": None}}, self.status)]
        requests = body.get("requests") or [{}]
        size = body.get("dimensions") or body.get("output_dimension") or requests[0].get("outputDimensionality") or self.size
        rows = [vector(text, size) for text in texts]
        tokens = sum(len(t.split()) for t in texts)
        if path.endswith(":batchEmbedContents"):
            return [reply({"embeddings": [{"values": r.tolist()} for r in rows], "usageMetadata": {"promptTokenCount": tokens}})]
        if path.endswith("/v2/embed"):
            numbers = {"float": [r.tolist() for r in rows]}
            return [reply({"id": "1", "embeddings": numbers, "texts": texts, "meta": {"billed_units": {"input_tokens": tokens}}})]
        if path.endswith("/api/embed"):
            took = {"total_duration": 14_143_917, "load_duration": 1_019_500, "prompt_eval_count": tokens}
            return [reply({"model": body["model"], "embeddings": [r.tolist() for r in rows], **took})]
        if path.endswith("/invoke") and "inputText" in body:
            return [reply({"embedding": rows[0].tolist(), "inputTextTokenCount": tokens})]
        if path.endswith("/invoke"):
            numbers = {"float": [r.tolist() for r in rows]}
            return [reply({"embeddings": numbers, "id": "1"}, x_amzn_bedrock_input_token_count=str(tokens))]
        return [reply(self._openai(body, rows, tokens))]

    def _openai(self, body: Any, rows: list[NDArray[np.float32]], tokens: int) -> dict[str, Any]:
        whole = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": base64.b64encode(r.tobytes()).decode() if whole else r.tolist()}
            for i, r in enumerate(rows)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        facts = {"id": "embd-1", "object": "list", "created": 1_800_000_000, "model": body.get("model")}
        return {**facts, "data": data[::-1] if self.shuffled else data, "usage": usage}


def texts_of(path: str, body: Any) -> list[str]:
    """The texts of a request, wherever its wire has them."""
    if "requests" in body:
        return [r["content"]["parts"][0]["text"] for r in body["requests"]]
    if "texts" in body:
        return list(body["texts"])
    if "inputText" in body:
        return [body["inputText"]]
    return [body["input"]] if isinstance(body["input"], str) else list(body["input"])
