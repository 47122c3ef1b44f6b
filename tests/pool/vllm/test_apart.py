"""Thoughts that vLLM leaves in the text, told apart on their way: whole and streamed, of several choices; and the parser it is started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import thinking_models as models
from pool_fake import byte_model

from holynb.pool.server import PoolConfig
from holynb.pool.vllm.__main__ import reasoning_parser, vllm_command
from holynb.pool.vllm.apart import ThoughtsApart

THINK = "<think>\nOne.\n</think>\n\nTwo."
CASES = [
    (THINK, "One.", "Two."),
    ("Two.", "", "Two."),
    ("<think>One.", "One.", ""),
    ("About <think>.", "", "About <think>."),
    ("<thi", "", "<thi"),
]


def event(index: int, finish: str | None = None, **delta: Any) -> bytes:
    value = {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.mark.parametrize(("text", "thought", "said"), CASES)
@pytest.mark.parametrize("choices", [1, 2])
def test_events_hold_thoughts_and_text_apart(text: str, thought: str, said: str, choices: int) -> None:
    apart, got = ThoughtsApart(choices), [{"reasoning_content": "", "content": ""} for _ in range(choices)]
    events = [event(i, content=c) for c in text for i in range(choices)]
    events = [event(i, role="assistant", content="") for i in range(choices)] + events + [event(i, "stop") for i in range(choices)]
    for one in events:
        passed = apart.event(one)
        assert passed.startswith(b"data: {")
        assert passed.endswith(b"\n\n")
        for choice in json.loads(passed[6:])["choices"]:
            for name in ("reasoning_content", "content"):
                got[choice["index"]][name] += choice["delta"].get(name) or ""
    assert got == [{"reasoning_content": thought, "content": said}] * choices
    body = json.dumps({"choices": [{"index": i, "message": {"content": text}, "finish_reason": "stop"} for i in range(choices)]}).encode()
    messages = [c["message"] for c in json.loads(ThoughtsApart(choices).whole(body))["choices"]]
    assert [(m.get("reasoning_content", ""), m["content"]) for m in messages] == [(thought, said)] * choices


def test_what_is_nothing_of_this_passes_as_it_came() -> None:
    apart = ThoughtsApart(1)
    for one in (
        b": alive\n\n",
        b"data: [DONE]\n\n",
        b"data: {\n\n",
        b'data: {"choices": [], "usage": {}}\n\n',
        b'data: {"choices": 3}\n\n',
    ):
        assert apart.event(one) is one
    own = event(0, reasoning="One")
    assert apart.event(own) is own
    spoken = event(0, content="<think>")
    assert apart.event(spoken) is spoken, "the server tells thoughts apart itself"
    assert ThoughtsApart(1).whole(b"no json") == b"no json"
    settled = ThoughtsApart(1)
    settled.event(event(0, content="Two"))
    later = event(0, content="<think>")
    assert settled.event(later) is later


def test_vllm_is_started_with_the_parser_of_the_model(tmp_path: Path) -> None:
    folders = {
        "qwen3": models.thinking_model(tmp_path / "qwen3"),
        "deepseek_r1": models.thinking_model(tmp_path / "r1", models.R1),
        "openai_gptoss": models.thinking_model(tmp_path / "harmony", models.HARMONY, models.HARMONY_TOKENS, special=True),
    }
    assert {name: reasoning_parser(folder) for name, folder in folders.items()} == {name: name for name in folders}
    none = [models.thinking_model(tmp_path / "text", models.R1, ()), byte_model(tmp_path / "plain"), tmp_path / "missing", Path("org/name")]
    assert [reasoning_parser(folder) for folder in none] == [None] * 4
    argv = vllm_command("p", str(folders["qwen3"]), PoolConfig("n", "m", tmp_path), tmp_path / "s")
    assert argv[argv.index("--reasoning-parser") + 1] == "qwen3"
