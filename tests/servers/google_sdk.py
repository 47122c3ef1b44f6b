"""One request through google-genai, the oracle of Gemini's two wires, and the same for ours."""

from __future__ import annotations

from typing import Any

from google import genai
from google.genai import types

__all__ = ["ASKED", "SCHEMA", "said"]

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
#: What `said` asks, for `servers.asking.request`.
ASKED: dict[str, Any] = {
    "messages": [("system", "Be brief."), ("user", "안녕?")],
    "sampling": {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ("END",)},
    "schema": SCHEMA,
}


def said(client: genai.Client, model: str, *, stream: bool) -> str:
    """What the SDK reads of the answer. Closes the client."""
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop_sequences=["END"],
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
    )
    if stream:
        text = "".join(c.text or "" for c in client.models.generate_content_stream(model=model, contents="안녕?", config=config))
    else:
        text = str(client.models.generate_content(model=model, contents="안녕?", config=config).text)
    client.close()
    return text
